"""The task `round-trip`: an image of a prompt, a caption of the image, and a comparison of both
texts.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import wait
from janusflow.evaluation.task import Item, Sources, Task, register
from janusflow.evaluation.tasks import scenes
from janusflow.evaluation.tasks.scenes import ImageJob
from janusflow.evaluation.tasks.vqa import LONGEST, Key, collect, complete
from janusflow.scenes.captions import parse
from janusflow.scenes.world import Need, Prompt

QUESTION = "describe the picture."


def _jobs(plan: Plan) -> dict[Key, ImageJob]:
    jobs = scenes.jobs(plan, "model")
    return {(job.split, job.category, job.index, job.seed): job for job in jobs}


def make(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Generates the missing images, then their captions."""
    scenes.make(load, plan, folder, settings, ["model"])
    wait()
    asked = {key: (job.file, QUESTION) for key, job in _jobs(plan).items()}
    collect(load, plan, folder, asked)


def agrees(said: list[Need] | None, prompt: Prompt) -> bool:
    """Returns whether a caption names exactly what a prompt requires, apart from places."""
    if said is None:
        return False
    counts = [
        sum(n.count for n in said if n.shape == need.shape and need.color in (None, n.color))
        for need in prompt.needs
    ]
    wanted = [need.count for need in prompt.needs]
    return counts == wanted and sum(n.count for n in said) == sum(wanted)


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns per image whether the caption agrees with the prompt, whether it is true of the
    image, and whether the image shows the prompt.
    """
    jobs = _jobs(plan)
    known, items, calls = complete(folder, list(jobs)), [], []
    for key, (job, result, spent) in zip(jobs, scenes.read_back(plan, folder), strict=True):
        items.append(_item(job, known[key], result))
        calls.append(spent)
    made = {"network_calls": scenes.spent(calls), "max_new_tokens": LONGEST}
    return {"model": items}, made


def _item(job: ImageJob, said: str, result) -> Item:
    named = parse(said)
    there = Counter((obj.shape, obj.color) for obj in result.found)
    told = Counter()
    for need in named or ():
        told[need.shape, need.color] += need.count
    scores = {
        "agrees": agrees(named, job.prompt),
        "caption": named is not None and told == there,
        "picture": result.strict,
    }
    return job.item(scores, said)


NOTE = (
    "agrees: the caption names what the prompt asks for, apart from places. caption: the "
    "caption is true of the image, by the exact scorer. image: the image is right, places "
    "included."
)
register("round-trip", Task(make, score, scenes.FIELDS, images=scenes.path_of, note=NOTE))
