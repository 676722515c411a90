"""The task `judge`: the model answers questions about its own images, made from their prompts.

It accepts an image if every answer is what the prompt asks for. The exact scorer says whether it
should have.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from janusflow.evaluation import calibration, intervals
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import wait
from janusflow.evaluation.task import Item, Sources, Task, register
from janusflow.evaluation.tasks import scenes
from janusflow.evaluation.tasks.scenes import ImageJob
from janusflow.evaluation.tasks.vqa import LONGEST, Key, answer, collect, complete
from janusflow.scenes.questions import pieces, prompt_questions


def by_question(plan: Plan) -> dict[Key, tuple[ImageJob, str, str]]:
    """Returns image, question and expected answer by (split, category, index, seed, number)."""
    return {
        (job.split, job.category, job.index, job.seed, number): (job, *pair)
        for job in scenes.jobs(plan, "model")
        for number, pair in enumerate(prompt_questions(job.prompt))
    }


def asking(reply: Callable) -> Callable:
    """Returns a task's `make`: the model generates the images, then answers questions about them.

    `reply` gets the pipeline, images, and as many (question, expected answer), and returns texts.
    """

    def make(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
        scenes.make(load, plan, folder, settings, ["model"])
        wait()
        asked = {key: (job.file, tuple(pair)) for key, (job, *pair) in by_question(plan).items()}
        collect(load, plan, folder, asked, reply)

    return make


def _answers(pipe, shown: Sequence, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return answer(pipe, shown, [question for question, _ in pairs])


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns per image whether model and scorer agree, the model accepts it, and it is right."""
    questions, given = by_question(plan), {}
    known = complete(folder, list(questions))
    for key, (_, text, due) in questions.items():
        given.setdefault(key[:-1], []).append((text, due, known[key]))
    seen = list(scenes.judged(plan, folder, "model"))
    items = [_item(item, given[item.split, item.group, item.index, item.seed]) for item, _ in seen]
    calls = scenes.spent(calls for _, calls in seen)
    return {"model": items}, {"network_calls": calls, "max_new_tokens": LONGEST}


def _item(found: Item, given: list[tuple[str, str, str]]) -> Item:
    accepts = all(pieces(said) == pieces(due) for _, due, said in given)
    right = found.scores["strict"]
    scores = {"agrees": accepts == right, "accepts": accepts, "right": right}
    said = "; ".join(f"{text} {said}" for text, _, said in given)
    place = (found.split, found.group, found.index, found.seed, found.cluster)
    return Item(*place, scores, found.wanted, f"{said} (found: {found.said})")


def agreement(items: Sequence[Item]) -> dict:
    """Cohen's kappa, the fractions of wrong images accepted and of right ones rejected."""
    pairs = [(item.scores["accepts"], item.scores["right"]) for item in items]
    found = {} if (value := intervals.kappa(pairs)) is None else {"kappa": value}
    return found | calibration.errors(*zip(*pairs, strict=True))


NOTE = (
    "agrees: the model's verdict equals the exact scorer's. false+: the fraction of wrong "
    "images that the model accepts. false-: the fraction of right images that it rejects. "
    "kappa: the agreement beyond chance (Cohen 1960)."
)
register("judge", Task(asking(_answers), score, scenes.FIELDS, agreement, scenes.path_of, NOTE))
