"""The tasks `geneval` and `dpg`: images of the official prompts, in the layout of the official
evaluators.

`official_results.py` reads what those evaluators write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from janusflow.evaluation import provenance
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import share, wait
from janusflow.evaluation.tasks import scenes
from janusflow.pipelines import image_io
from janusflow.scenes.world import generator
from janusflow.utils import images, limits, safe_io
from janusflow.utils.locked_dir import write

GRID = 4  # images of a prompt that DPG-Bench reads from one file


@dataclass(frozen=True)
class Shot:
    """One image of an official prompt; `key` and `seed` determine its noise."""

    key: str
    seed: int
    text: str
    file: Path

    @property
    def noise(self) -> int:
        return int(generator(self.key, self.seed, "noise").integers(2**63))

    @property
    def story(self) -> dict:
        return dict(prompt=self.text, seed=self.seed, noise_seed=self.noise)

    @classmethod
    def each(
        cls, task: str, texts: Mapping, seeds: int, file: Callable[[object, int], Path]
    ) -> list[Shot]:
        """Returns so many images of each of the `texts`, which have names or numbers."""
        return [
            cls(f"{task} {name}", seed, text, file(name, seed))
            for name, text in texts.items()
            for seed in range(seeds)
        ]


def numbered(index: int, seed: int) -> Path:
    """Returns the file of an image of a numbered prompt."""
    return Path("images", f"{index:05d}-{seed}.png")


def entries(path: Path, read: Callable[[str, Path], dict]) -> list[dict]:
    """Returns read(line, place) of the lines of a prompt file with one JSON object each."""
    content = safe_io.read_bytes(path, "prompts_bytes", "prompt file")
    safe_io.split_prompts(content, str(path))  # UTF-8, no line too long, not empty
    lines = [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    return [read(line, Path(f"{path}, line {n}")) for n, line in enumerate(lines, 1)]


def metadata(path: Path) -> list[dict]:
    """Returns GenEval's prompts: one JSON object per line, with "prompt" and "tag"."""
    return entries(path, _entry)


def _entry(line: str, where: Path) -> dict:
    entry = safe_io.parse_object(line, where)
    for name in ("prompt", "tag"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(
                f"{str(where)!r} lacks a text {name!r}; give GenEval's evaluation_metadata.jsonl"
            )
    safe_io.check_prompt(entry["prompt"], str(where))
    return entry


def texts(folder: Path) -> dict[str, str]:
    """Returns DPG-Bench's prompts, one .txt file each, by file name."""
    if not folder.is_dir():
        raise ValueError(
            f"{str(folder)!r} is not a folder; give the folder of DPG-Bench's .txt files"
        )
    found = {}
    for path in sorted(folder.glob("*.txt")):
        lines = safe_io.read_prompts(path)
        found[path.stem] = " ".join(lines)
        safe_io.check_prompt(found[path.stem], str(path))
    if not found:
        raise ValueError(f"{str(folder)!r} holds no .txt; give the folder of DPG-Bench's prompts")
    limits.hold("number", len(found), f"{str(folder)!r} holds {len(found)} prompts")
    return found


def source(paths: dict[str, str], what: str) -> Path:
    """Returns the path of --prompts. Raises ValueError if it is missing or not the folder's."""
    other = [name for name in paths if name != "prompts"]
    if other:
        raise ValueError(f"--{other[0]} is for fid and kid; leave it out")
    if "prompts" not in paths:
        raise ValueError(f"--prompts names no {what}; give its path")
    return Path(paths["prompts"])


def geneval_inputs(paths: dict[str, str]) -> dict[str, str]:
    path = source(paths, "file of GenEval's prompts")
    metadata(path)
    return {"prompts": provenance.sha256(path)}


def dpg_inputs(paths: dict[str, str]) -> dict[str, str]:
    found = texts(source(paths, "folder of DPG-Bench's prompts"))
    return {"prompts": provenance.fingerprint(found)}


def geneval_shots(entries: Sequence[dict], seeds: int) -> list[Shot]:
    texts = {index: entry["prompt"] for index, entry in enumerate(entries)}
    return Shot.each("geneval", texts, seeds, sample)


def sample(index: int, seed: int) -> Path:
    """Returns where GenEval's evaluator looks for an image."""
    return Path(f"{index:05d}", "samples", f"{seed:05d}.png")


def dpg_shots(found: dict[str, str]) -> list[Shot]:
    return Shot.each("dpg", found, GRID, single)


def single(name: str, seed: int) -> Path:
    """Returns the file of one of the images that DPG-Bench reads joined."""
    return Path("single", f"{name}-{seed}.png")


def paint(load: Callable, plan: Plan, folder: Path, settings: dict, shots: list[Shot]) -> None:
    """Generates and saves the missing images."""
    parts = [shots[start : start + plan.batch] for start in range(0, len(shots), plan.batch)]
    draw = partial(scenes.by_model, load, settings=settings)
    scenes.paint(plan, folder, parts, draw, plan.task)


def geneval(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Writes 00000/metadata.jsonl and 00000/samples/00000.png, ... in the folder itself."""
    entries = metadata(Path(plan.paths["prompts"]))
    if share()[0] == 0:
        for index, entry in enumerate(entries):
            (folder / f"{index:05d}" / "samples").mkdir(parents=True, exist_ok=True)
            write(folder / f"{index:05d}" / "metadata.jsonl", json.dumps(entry) + "\n")
    paint(load, plan, folder, settings, geneval_shots(entries, plan.seeds))


def dpg(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Writes images/NAME.png, each with four images side by side, which are also in single/."""
    if plan.seeds != GRID:
        raise ValueError(f"DPG-Bench reads {GRID} images a prompt; leave --seeds out")
    shots = dpg_shots(texts(Path(plan.paths["prompts"])))
    paint(load, plan, folder, settings, shots)
    wait()
    if share()[0] == 0:
        (folder / "images").mkdir(exist_ok=True)
        for start in range(0, len(shots), GRID):
            _join(folder, shots[start : start + GRID], plan.side)


def _join(folder: Path, shots: Sequence[Shot], side: int) -> None:
    """Writes the four images of a prompt as one file, unless it exists."""
    path = folder / "images" / (shots[0].file.name.rpartition("-")[0] + ".png")
    if not scenes.whole(path):
        found = [scenes.read(folder / shot.file, side, shot.text)[0] for shot in shots]
        grid = images.grid([Image.fromarray(pixels) for pixels in found], gap=0)
        image_io.save(grid, {"prompt": shots[0].text}, path)


def calls(plan: Plan, folder: Path, shots: list[Shot]) -> dict:
    """Returns the number of images and their network evaluations, after checking each."""
    scenes.all_there([shot.file for shot in shots], folder)
    found = [scenes.read(folder / shot.file, plan.side, shot.text)[1] for shot in shots]
    return {"images": len(shots), "network_calls": scenes.spent(found)}
