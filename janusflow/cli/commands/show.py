"""`janusflow show`: shows the log of a training run as a table and a figure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from janusflow.cli.command import command
from janusflow.cli.save_images import check_figure, check_file, check_folder
from janusflow.cli.shared_options import OUTPUT, argument, path
from janusflow.utils.typed import is_number

LOG = "log.jsonl"
ROWS = 12  # of the table
POINTS = 20  # reports up to which each has a marker, because a line through one shows nothing
NOT_LOSSES = ("step", "lr", "grad_norm", "gradient_cosine", "mfu", "peak_fraction", "seconds_left")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow show`."""

    run: Path = argument("Shows the training run in this folder.", parser=path, metavar="RUN")
    out: Path | None = OUTPUT.path(
        "Saves the figure to this .png, .svg or .pdf file. The default is losses.png in the "
        "run's folder.",
        "--out",
        "-o",
    )
    figure: bool = OUTPUT.option(
        "Saves the figure; --no-figure only prints the table.", default=True
    )


@command("show", panel="Training and files")
def show(options: Options) -> dict:
    """Shows a training run: losses, gradient norm, learning rate and time left, with a figure."""
    lines, run = read(options.run), options.run
    out = options.out or (run if run.is_dir() else run.parent) / "losses.png"
    if options.figure:
        check_figure(out, "--out")
        check_folder(out.parent)
        check_file(out)
    print(table(lines))
    print(f"\n{summary(lines)}")
    found = dict(run=options.run, lines=lines, figure=None)
    if options.figure:
        draw(lines, out)
        print(out)
        found["figure"] = out
    return found


def read(run: Path) -> list[dict]:
    """Returns the log's entries in order of steps, without an incomplete last line.

    Raises ValueError if there is no log.
    """
    file = run / LOG if run.is_dir() else run
    from janusflow.utils.safe_io import read_bytes

    if not file.is_file():
        raise ValueError(f"{str(run)!r:.200} holds no {LOG}; name the folder of a training run")
    lines = []
    for text in read_bytes(file, "results_bytes", "log").decode("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
            lines.append({"step": int(line["step"]), **line})
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue
    if not lines:
        raise ValueError(
            f"{str(file)!r:.200} has no entry yet; wait until the run reports its first step, or "
            "name another run's folder"
        )
    return sorted(lines, key=lambda line: line["step"])


def losses(lines: Sequence[dict]) -> list[str]:
    """Returns the names of the losses in the log, the sum first."""
    found = dict.fromkeys(name for line in lines for name in line)
    return [
        name
        for name in found
        if name not in NOT_LOSSES
        and not name.endswith(("_weighted", "_per_s"))
        and all(is_number(line.get(name, 0.0)) for line in lines)
    ]


def table(lines: Sequence[dict]) -> str:
    """Formats at most twelve reports, evenly spaced and including the last, in 80 columns."""
    names = [*losses(lines), *(n for n in ("grad_norm", "lr") if n in lines[-1])][:6]
    last = len(lines) - 1
    count = min(ROWS, len(lines))
    chosen = sorted({round(last * i / max(count - 1, 1)) for i in range(count)})
    head = f"{'step':>8}" + "".join(f"{name[:11]:>12}" for name in names)
    rows = [
        f"{lines[i]['step']:>8,}" + "".join(f"{_cell(lines[i].get(name)):>12}" for name in names)
        for i in chosen
    ]
    return "\n".join([head, *rows])


def _cell(value) -> str:
    return f"{value:.4g}" if is_number(value) else ""


def summary(lines: Sequence[dict]) -> str:
    """Returns how far the run is, how fast, and where its loss was lowest."""
    last = lines[-1]
    said = [f"{len(lines)} report{'s' * (len(lines) > 1)} up to step {last['step']:,}"]
    scored = [line for line in lines if is_number(line.get("loss"))]
    if scored:
        best = min(scored, key=lambda line: line["loss"])
        said.append(f"lowest loss {best['loss']:.4g} at step {best['step']:,}")
    if last.get("images_per_s"):
        said.append(f"{last['images_per_s']:g} images/s")
    left = last.get("seconds_left")
    if is_number(left) and left > 0:
        said.append(f"{left / 3600:.1f} h left" if left >= 3600 else f"{left / 60:.0f} min left")
    return ", ".join(said)


def draw(lines: Sequence[dict], out: Path) -> None:
    """Draws the losses, the flow loss by time, and gradient norm with learning rate, over steps."""
    from janusflow.utils import atomic_io
    from janusflow.utils.extras import needed

    with needed("eval", "a figure"):
        figure = _figure(lines)
    with atomic_io.replacing(out, sync=False) as part:
        figure.savefig(part, format=out.suffix[1:].lower(), dpi=200)


def _figure(lines: Sequence[dict]):
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    from samplers.benchmark.style import SHEET

    few = {"lines.marker": "o", "lines.markersize": 4} if len(lines) <= POINTS else {}
    with rc_context(few, fname=SHEET):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        for name in losses(lines):
            left.plot(*_series(lines, name), label=name)
        positive = all(min(line.get_ydata(), default=1) > 0 for line in left.lines)
        left.set(ylabel="loss", yscale="log" if positive else "linear")
        _by_time(middle, lines, colormaps["viridis"])
        right.plot(*_series(lines, "grad_norm"), label="gradient norm")
        right.set(ylabel="gradient norm")
        rate = right.twinx()
        rate.plot(*_series(lines, "lr"), linestyle="--", color="black", label="learning rate")
        rate.set(ylabel="learning rate")
        rate.spines.right.set_visible(True)
        right.legend(handles=[*right.lines, *rate.lines])
        for axes in (left, middle, right):
            axes.set(xlabel="step")
            axes.locator_params(axis="x", integer=True)
            axes.grid()
        for axes in (left, middle):
            if axes.lines:
                axes.legend(fontsize=7, ncols=2)
    return figure


def _by_time(axes, lines: Sequence[dict], colours) -> None:
    """Draws the flow loss in tenths of t, dark at the noise and bright at the data."""
    for number in range(10):
        rows = [(x["step"], (x.get("flow_by_time") or [None] * 10)[number]) for x in lines]
        known = [row for row in rows if is_number(row[1])]
        if known:
            name = f"t in {number / 10:g} to {(number + 1) / 10:g}"
            axes.plot(*zip(*known, strict=True), color=colours(number / 10), label=name)
    axes.set(ylabel="flow loss by t")


def _series(lines: Sequence[dict], name: str) -> tuple[list, list]:
    known = [(line["step"], line[name]) for line in lines if is_number(line.get(name))]
    return [step for step, _ in known], [value for _, value in known]
