"""The task `telephone`: an image, its caption, an image of the caption, and so on.

Cycle 0 is the image of the prompt; cycle k is the image of the caption of cycle k - 1. The model's
own captions say how much of the prompt is left, and the exact scorer says whether that is true.
After Mollah et al. 2025 (arXiv 2509.04438), whose scores come from an embedding and a detector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from janusflow.evaluation import calibration
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import batches, wait
from janusflow.evaluation.task import Item, Sources, Task, register
from janusflow.evaluation.tasks import scenes
from janusflow.evaluation.tasks.round_trip import QUESTION, agrees
from janusflow.evaluation.tasks.scenes import ImageJob
from janusflow.evaluation.tasks.vqa import LONGEST, Key, collect, complete, read
from janusflow.scenes.captions import parse
from janusflow.scenes.scorer import read as objects_in
from janusflow.scenes.world import Obj, Prompt, categories_of, generator

SILENCE = "nothing"  # the prompt of an image whose caption was empty


@dataclass(frozen=True)
class Link:
    """The image of a cycle, from the prompt or from the caption of the cycle before."""

    job: ImageJob
    cycle: int
    text: str

    @property
    def file(self) -> Path:
        return _file(self.job, self.cycle)

    @property
    def noise(self) -> int:
        job, cycle = self.job, self.cycle
        key = (job.split, job.category, job.index, job.seed, f"noise of cycle {cycle}")
        return int(generator(*key).integers(2**63)) if cycle else job.noise

    @property
    def story(self) -> dict:
        return dict(prompt=self.text, cycle=self.cycle, noise_seed=self.noise)


def _file(job: ImageJob, cycle: int) -> Path:
    return Path(f"cycle-{cycle}", *job.file.parts[1:])


def _key(job: ImageJob, cycle: int) -> Key:
    return (job.split, f"{job.category}, cycle {cycle}", job.index, job.seed)


def _texts(jobs: Sequence[ImageJob], cycle: int, known: dict[Key, str]) -> dict[ImageJob, str]:
    """Returns the texts from which the images of a cycle are generated."""
    if cycle == 0:
        return {job: job.prompt.text for job in jobs}
    return {job: known[_key(job, cycle - 1)] or SILENCE for job in jobs}


def make(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Generates, cycle by cycle, the missing images and then their captions."""
    jobs = scenes.jobs(plan, "model")
    for cycle in range(plan.cycles + 1):
        links = [Link(j, cycle, text) for j, text in _texts(jobs, cycle, read(folder)).items()]
        parts = batches(links, plan.batch, lambda link: (link.job.split, link.job.category))
        draw = partial(scenes.by_model, load, settings=settings)
        scenes.paint(plan, folder, list(parts), draw, f"cycle {cycle}")
        wait()
        asked = {_key(job, cycle): (_file(job, cycle), QUESTION) for job in jobs}
        collect(load, plan, folder, asked)
        wait()


def shows(found: Sequence[Obj], prompt: Prompt) -> bool:
    """Returns whether the objects are the prompt's; captions lack relations."""
    counts = [sum(need.matches(obj) for obj in found) for need in prompt.needs]
    wanted = [need.count for need in prompt.needs]
    return counts == wanted and len(found) == sum(wanted)


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns whether each cycle's image shows the prompt, and whether its caption says so."""
    jobs, items, calls = scenes.jobs(plan, "model"), [], []
    cycles = range(plan.cycles + 1)
    scenes.all_there([_file(job, cycle) for cycle in cycles for job in jobs], folder)
    known = complete(folder, [_key(job, cycle) for cycle in cycles for job in jobs])
    for cycle in cycles:
        for job, text in _texts(jobs, cycle, known).items():
            picture, spent = scenes.read(folder / _file(job, cycle), plan.side, text)
            said = known[_key(job, cycle)]
            items.append(_item(job, cycle, said, shows(objects_in(picture), job.prompt)))
            calls.append(spent)
    return {"model": items}, {"network_calls": scenes.spent(calls), "max_new_tokens": LONGEST}


def _item(job: ImageJob, cycle: int, said: str, kept: bool) -> Item:
    """Returns an item whose index includes the category's number, so that it can be found again."""
    categories = categories_of(job.split)
    index = job.index * len(categories) + categories.index(job.category)
    scores = {"kept": kept, "said": agrees(parse(said), job.prompt)}
    text = job.prompt.text
    return Item(job.split, f"cycle {cycle}", index, job.seed, text, scores, text, said)


def path_of(item: dict) -> Path:
    """Returns the path of the image of a report's item."""
    categories = categories_of(item["split"])
    index, category = divmod(item["index"], len(categories))
    name = f"{index:05d}-{item['seed']}.png"
    cycle = item["group"].rpartition(" ")[2]
    return Path(f"cycle-{cycle}", item["split"], categories[category], name)


def wrongness(items: Sequence[Item]) -> dict:
    """The error of the captions' verdict against the exact scorer's."""
    said, kept = ([item.scores[name] for item in items] for name in ("said", "kept"))
    clusters = [item.cluster for item in items]
    return {"bias": calibration.bias(said, kept, clusters)} | calibration.errors(said, kept)


NOTE = (
    "kept: the image still shows the objects of the first prompt, apart from places, by the "
    "exact scorer. said: the model's caption of the image says so. bias: said minus kept. "
    "false+: said of images that lost something. false-: not said of images that kept "
    "everything."
)
FIELDS = (*scenes.FIELDS, "cycles")
register("telephone", Task(make, score, FIELDS, wrongness, path_of, NOTE))
