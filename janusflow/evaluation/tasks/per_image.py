"""Tasks that score each generated image by a function of the image and its prompt.

    @image_task(prompts=["a red star", "a blue circle"])
    def redness(image, prompt):
        return np.asarray(image)[..., 0].mean() / 255

`janusflow evaluate --task redness --plugin my_tasks` then generates what is missing, scores it and
reports the mean with an interval. Without `prompts` the command needs `--prompts FILE`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from janusflow.evaluation import provenance
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.task import OFFICIAL_FIELDS, Item, Sources, Task, register
from janusflow.evaluation.tasks import official
from janusflow.evaluation.tasks.official import Shot, numbered
from janusflow.utils import images, safe_io

Scorer = Callable[[Image.Image, str], "float | Mapping[str, float]"]


def image_task(
    scorer: Scorer | None = None,
    *,
    prompts: Sequence[str] | None = None,
    name: str | None = None,
    note: str = "",
):
    """A decorator that registers `scorer(image, prompt)`: a number (1 is best), or several by name.

    image is an RGB image of PIL; `note` explains the columns of the report.
    """
    if scorer is None:
        return partial(image_task, prompts=prompts, name=name, note=note)
    name = name or scorer.__name__
    register(
        name,
        Task(
            partial(_make, prompts),
            partial(_score, name, scorer, prompts),
            OFFICIAL_FIELDS,
            inputs=partial(_inputs, prompts),
            images=lambda item: numbered(item["index"], item["seed"]),
            note=note,
        ),
    )
    return scorer


def _texts(prompts: Sequence[str] | None, paths: Mapping[str, str]) -> list[str]:
    if "prompts" not in paths and prompts:
        return list(prompts)
    return safe_io.read_prompts(official.source(dict(paths), "file of prompts, one a line"))


def _inputs(prompts: Sequence[str] | None, paths: dict[str, str]) -> dict[str, str]:
    texts = _texts(prompts, paths)
    return {"prompts": provenance.fingerprint({str(i): text for i, text in enumerate(texts)})}


def _shots(plan: Plan, texts: Sequence[str]) -> list[Shot]:
    return Shot.each(plan.task, dict(enumerate(texts)), plan.seeds, numbered)


def _make(prompts, load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    official.paint(load, plan, folder, settings, _shots(plan, _texts(prompts, plan.paths)))


def _score(name: str, scorer: Scorer, prompts, plan: Plan, folder: Path) -> tuple[Sources, dict]:
    texts = _texts(prompts, plan.paths)
    shots = _shots(plan, texts)
    made = official.calls(plan, folder, shots)
    items = []
    for number, shot in enumerate(shots):
        found = scorer(images.read(folder / shot.file).convert("RGB"), shot.text)
        scores = dict(found) if isinstance(found, Mapping) else {name: found}
        scores = {key: one if isinstance(one, bool) else float(one) for key, one in scores.items()}
        said = ", ".join(f"{key} {float(one):.3g}" for key, one in scores.items())
        index = number // plan.seeds
        items.append(Item(name, "all", index, shot.seed, shot.text, scores, shot.text, said))
    return {"model": items}, made
