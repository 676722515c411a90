"""A report as images: what went wrong, and bars with intervals."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

from PIL import Image, ImageDraw

from janusflow.evaluation.report import failures
from janusflow.evaluation.tasks.registry import TASKS
from janusflow.pipelines import image_io
from janusflow.utils import images
from samplers.benchmark.style import paper

SHOWN = 8  # failures of each group
CELL = 128  # pixels of an image on the sheet
TEXT = 56  # pixels of the text below it
HEAD = 20  # pixels of a group's name
GAP = 8


def draw(report: dict, folder: Path) -> list[Path]:
    """bars.png where matplotlib is installed, and for images failures-SPLIT.png."""
    if not report["items"]:
        return []
    made, task = [], TASKS[report["protocol"]["task"]]
    if task.pictures:
        for split in report["scores"]:
            sheet = failure_sheet(report, folder, split, task.pictures)
            made.append(image_io.save(sheet, {"split": split}, folder / f"failures-{split}.png"))
    if find_spec("matplotlib"):
        made.append(bars(report, folder / "bars.png"))
    return made


def failure_sheet(
    report: dict, folder: Path, split: str, place: Callable[[dict], Path]
) -> Image.Image:
    """The first failures of each group that has any: what was asked for above, found below."""
    groups = {name: failures(report, split, name) for name in report["scores"][split]["groups"]}
    shown = {name: wrong for name, wrong in groups.items() if wrong}
    columns = max((min(SHOWN, len(wrong)) for wrong in shown.values()), default=1)
    high = HEAD + CELL + TEXT
    size = (max(columns * (CELL + GAP) + GAP, 320), max(1, len(shown)) * high + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    if not shown:
        pen.text((GAP, GAP), "nothing failed", "black", font_size=13)
    for row, (name, wrong) in enumerate(shown.items()):
        top = row * high + GAP
        count = report["scores"][split]["groups"][name]["items"]
        pen.text((GAP, top), f"{name}: {len(wrong)} of {count} wrong", "black", font_size=13)
        for column, item in enumerate(wrong[:columns]):
            image = images.read(folder / place(item)).convert("RGB").resize((CELL, CELL))
            _failure(sheet, image, item, GAP + column * (CELL + GAP), top + HEAD)
    return sheet


def _failure(sheet: Image.Image, image: Image.Image, item: dict, left: int, top: int) -> None:
    """One image with its prompt in black and what was found in it in red."""
    pen = ImageDraw.Draw(sheet)
    sheet.paste(image, (left, top))
    asked = fill(item["wanted"], 24, max_lines=2)
    found = fill(item["said"], 24, max_lines=2)
    pen.text((left, top + CELL + 2), asked, "black", font_size=10)
    below = top + CELL + 2 + 12 * (asked.count("\n") + 1)
    pen.text((left, below), found, "firebrick", font_size=10)


@paper
def bars(report: dict, path: Path) -> Path:
    """Scores with their intervals, a panel per split."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = report["scores"]
    figure = Figure(figsize=(8, 3.2 * len(splits)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number, (split, scores) in enumerate(splits.items(), 1):
        axes = figure.add_subplot(len(splits), 1, number)
        _panel(axes, {**scores["groups"], "overall": scores["overall"]})
        axes.set_title(f"{split}, n = {scores['overall']['items']}", loc="right")
    canvas.draw()
    return image_io.save(Image.fromarray(_pixels(canvas)), {"software": "matplotlib"}, path)


def _pixels(canvas):
    import numpy as np

    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panel(axes, groups: dict) -> None:
    measures = list(groups["overall"]["scores"])
    for i, measure in enumerate(measures):
        entries = [group["scores"][measure] for group in groups.values()]
        scores = [entry["score"] for entry in entries]
        below = [max(0.0, e["score"] - e["low"]) for e in entries]
        above = [max(0.0, e["high"] - e["score"]) for e in entries]
        places = [k + (i - (len(measures) - 1) / 2) * 0.38 for k in range(len(scores))]
        axes.bar(places, scores, 0.36, yerr=[below, above], capsize=2, label=measure)
    axes.set_xticks(range(len(groups)), list(groups), rotation=15)
    axes.set(ylim=(0, 1.02), ylabel="score, 95 % interval")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(measures))
