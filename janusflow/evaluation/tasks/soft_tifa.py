"""The task `soft-tifa`: the model's own probabilities of each atom of a prompt, on its own images.

An atom is a question about one fact of the prompt. Its soft score is the probability that the model
gives to the right answer. `gm`, the geometric mean over an image's atoms, estimates whether the
image is right; `am`, the arithmetic mean, estimates the fraction of its atoms that hold. Kamath et
al. 2025 (GenEval 2, arXiv 2512.16853). The exact scorer knows both truths, so both are calibrated
here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from janusflow.evaluation import calibration
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.task import Item, Sources, Task, register
from janusflow.evaluation.tasks import scenes
from janusflow.evaluation.tasks.judge import asking, by_question
from janusflow.evaluation.tasks.vqa import complete
from janusflow.pipelines.answering import message, probabilities
from janusflow.pipelines.verifiers import verifier
from janusflow.scenes.captions import parse_prompt
from janusflow.scenes.questions import prompt_questions
from janusflow.scenes.world import Obj, Prompt, relates

LEAST = 1e-12  # of a probability, for the logarithm


def soft_scores(pipe, pictures: Sequence, atoms: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the probability of each atom's answer to its image, as texts."""
    pairs = zip(pictures, atoms, strict=True)
    talks = [message(text, [picture]) for picture, (text, _) in pairs]
    return [repr(p) for p in probabilities(pipe, talks, [due for _, due in atoms])]


@verifier
def soft_tifa(pipe, pictures: Sequence, prompts: Sequence[str]) -> list[float | None]:
    """Scores images by `gm` of their prompts' atoms; None for prompts outside the small world."""
    requests = map(parse_prompt, prompts)
    asked = [[] if request is None else prompt_questions(request) for request in requests]
    talks = [
        message(question, [picture])
        for picture, atoms in zip(pictures, asked, strict=True)
        for question, _ in atoms
    ]
    due = [answer for atoms in asked for _, answer in atoms]
    found = iter(probabilities(pipe, talks, due) if talks else ())
    return [means([next(found) for _ in atoms])[0] if atoms else None for atoms in asked]


def means(values: Sequence[float]) -> tuple[float, float]:
    """Returns the geometric and the arithmetic mean of soft scores."""
    array = np.asarray(values, float)
    return float(np.exp(np.log(array.clip(LEAST)).mean())), float(array.mean())


def number(text: str) -> float:
    """Parses a stored probability. Raises ValueError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(
            f"{text!r:.40} is not a probability; delete answers.json and evaluate again"
        )
    return value


def truths(prompt: Prompt, found: Sequence[Obj]) -> list[bool]:
    """Returns which of the prompt's atoms hold for these objects, as `prompt_questions` does."""
    counts = [sum(need.matches(obj) for obj in found) for need in prompt.needs]
    held = [
        count >= 1 if need.count == 1 else count == need.count
        for need, count in zip(prompt.needs, counts, strict=True)
    ]
    held.append(len(found) == sum(need.count for need in prompt.needs))
    if prompt.relation:
        a, b = ([obj for obj in found if need.matches(obj)] for need in prompt.needs)
        held.append(any(relates(x, prompt.relation, y) for x in a for y in b))
    return held


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns per image both means, the fraction of atoms that hold, and whether it is right."""
    questions, soft, items, calls = by_question(plan), {}, [], []
    known = complete(folder, list(questions))
    for key in questions:
        soft.setdefault(key[:-1], []).append(number(known[key]))
    for job, result, spent in scenes.read_back(plan, folder):
        items.append(_item(job, soft[job.split, job.category, job.index, job.seed], result))
        calls.append(spent)
    return {"model": items}, {"network_calls": scenes.spent(calls)}


def _item(job: scenes.ImageJob, values: list[float], result) -> Item:
    gm, am = means(values)
    held = truths(job.prompt, result.found)
    scores = {"gm": gm, "right": result.strict, "am": am, "atoms": sum(held) / len(held)}
    atoms = zip(prompt_questions(job.prompt), values, held, strict=True)
    said = "; ".join(f"{text} {p:.2f}{'' if true else ' (false)'}" for (text, _), p, true in atoms)
    return job.item(scores, said)


def wrongness(items: Sequence[Item]) -> dict:
    """The error of gm as a score of right images, and of am as a score of right atoms."""
    gm, right, am, atoms = ([i.scores[n] for i in items] for n in ("gm", "right", "am", "atoms"))
    clusters = [item.cluster for item in items]
    found = {"gm bias": calibration.bias(gm, right, clusters)}
    found["am bias"] = calibration.bias(am, atoms, clusters)
    area = calibration.auroc(gm, right)
    return found if area is None else found | {"gm AUROC": area}


NOTE = (
    "gm, am: the geometric and the arithmetic mean of the model's probabilities of the right "
    "answers. right, atoms: whether the image is right, and the fraction of its atoms that "
    "hold, by the exact scorer. bias: estimate minus truth. gm AUROC: how well gm separates "
    "right images from wrong ones."
)
register("soft-tifa", Task(asking(soft_scores), score, scenes.FIELDS, wrongness, note=NOTE))
