"""Figures of a report: sheets of failures, and bars with intervals."""

from collections.abc import Callable
from importlib.util import find_spec
from math import ceil, sqrt
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw

from janusflow.evaluation import plots
from janusflow.evaluation.report import failures
from janusflow.evaluation.tasks import find
from janusflow.pipelines import image_io
from janusflow.utils import images
from samplers.benchmark.style import paper

SHOWN = 8  # failures of each group
COLUMNS = 8  # of the sheet at the most
CELL = 192  # pixels of an image on the sheet
TYPE = 12  # pixels of a letter's height
LINE = 16  # pixels from line to line
LETTERS = 32  # of a line
GAP = 10


def draw(report: dict, folder: Path) -> list[Path]:
    """Writes bars.png if matplotlib is installed, and failures-SPLIT.png if the task has images."""
    if not report["items"]:
        return []
    made, task = [], find(report["protocol"]["task"])
    if task.images:
        for split in report["scores"]:
            sheet = failure_sheet(report, folder, split, task.images)
            made.append(image_io.save(sheet, {"split": split}, folder / f"failures-{split}.png"))
    if find_spec("matplotlib"):
        made.append(bars(report, folder / "bars.png"))
    return made


def failure_sheet(
    report: dict, folder: Path, split: str, place: Callable[[dict], Path]
) -> Image.Image:
    """A sheet of each group's first failures: group and request in black, finding in red."""
    groups = report["scores"][split]["groups"]
    wrong = {name: failures(report, split, name) for name in groups}
    cells = [
        _failure(images.read(folder / place(item)), f"{name} ({len(items)} of {count} wrong)", item)
        for name, items in wrong.items()
        for count in (groups[name]["items"],)
        for item in items[:SHOWN]
    ]
    return _sheet(cells) if cells else _sheet([_told("nothing failed")])


def _sheet(cells: list[Image.Image]) -> Image.Image:
    """Arranges cells of one width in rows; each row is as high as its highest cell."""
    columns = min(COLUMNS, ceil(sqrt(len(cells))))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + GAP for row in rows]
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, sum(heights) + GAP), "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + column * (CELL + GAP), top))
        top += height
    return sheet


def _failure(image: Image.Image, head: str, item: dict) -> Image.Image:
    """Returns an image below its group's name, with the prompt in black and the finding in red."""
    asked = wrap(item["wanted"], LETTERS, max_lines=2, placeholder=" ...")
    found = wrap(item["said"], LETTERS, max_lines=2, placeholder=" ...")
    lines = [(line, "black") for line in asked] + [(line, "firebrick") for line in found]
    cell = Image.new("RGB", (CELL, CELL + LINE * (len(lines) + 1) + 4), "white")
    cell.paste(image.convert("RGB").resize((CELL, CELL)), (0, LINE))
    pen = ImageDraw.Draw(cell)
    pen.text((0, 0), head, "dimgrey", font_size=TYPE)
    for number, (line, colour) in enumerate(lines):
        pen.text((0, CELL + LINE * (number + 1) + 2), line, colour, font_size=TYPE)
    return cell


def _told(text: str) -> Image.Image:
    cell = Image.new("RGB", (CELL, 2 * LINE), "white")
    ImageDraw.Draw(cell).text((0, 0), text, "black", font_size=TYPE)
    return cell


@paper
def bars(report: dict, path: Path) -> Path:
    """Returns a bar chart of scores with their intervals, one panel per split."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = report["scores"]
    figure = Figure(figsize=(8, 3.2 * len(splits)), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number, (split, scores) in enumerate(splits.items(), 1):
        axes = figure.add_subplot(len(splits), 1, number)
        groups = {**scores["groups"], "overall": scores["overall"]}
        series = {
            measure: {
                name: tuple(group["scores"][measure][part] for part in ("score", "low", "high"))
                for name, group in groups.items()
            }
            for measure in scores["overall"]["scores"]
        }
        plots.bars(series, axes)
        axes.set_ylabel("score, 95 % interval")
        axes.set_title(f"{split}, n = {scores['overall']['items']}", loc="right")
    canvas.draw()
    return image_io.save(Image.fromarray(_pixels(canvas)), {"software": "matplotlib"}, path)


def _pixels(canvas):
    import numpy as np

    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
