"""A report as pictures: what went wrong, and bars with intervals."""

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

SHOWN = 8  # failures of each group
CELL = 128  # pixels of a picture on the sheet
TEXT = 44  # pixels of the text below it


def draw(report: dict, folder: Path) -> list[Path]:
    """bars.png where matplotlib is installed, and for pictures failures-SPLIT.png."""
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
    """A row per group: its first failures, with what was asked for and what was found."""
    groups = report["scores"][split]["groups"]
    high = CELL + TEXT
    sheet = Image.new("RGB", (110 + SHOWN * (CELL + 8), len(groups) * (high + 8)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(groups):
        top, wrong = row * (high + 8) + 4, failures(report, split, name)
        pen.text((6, top), f"{name}\n{len(wrong)} wrong", "black")
        for column, item in enumerate(wrong[:SHOWN]):
            left = 110 + column * (CELL + 8)
            picture = images.read(folder / place(item))
            sheet.paste(picture.convert("RGB").resize((CELL, CELL)), (left, top))
            asked, found = (
                fill(item["wanted"], 23, max_lines=3),
                fill(item["said"], 23, max_lines=2),
            )
            pen.text((left, top + CELL), asked, "black", font_size=9)
            below = top + CELL + 11 * (asked.count("\n") + 1)
            pen.text((left, below), found, "firebrick", font_size=9)
    return sheet


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
        axes.set_title(split)
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
    axes.set_ylim(0, 1.02)
    axes.legend(loc="upper right", fontsize=8)
