"""Draws the figures of README and pages.

python -m checks.page_figures                      # all of them, a minute
python -m checks.page_figures alignment scaling    # from their result files, without a model
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

import samplers
from checks.benchmarks import scaling as scaled
from janusflow import JanusFlowPipeline
from janusflow.evaluation import plots
from samplers import command_line
from studies import few_evaluations as few
from studies import reward_algorithms as reward_curves
from studies.alignment import figure as aligned

DOCS = Path(__file__).resolve().parent.parent / "docs"
SEED = 3  # one for all, not chosen


def shipped() -> JanusFlowPipeline:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def gallery() -> None:
    """Draws docs/images.png: the best of four images for each line of docs/prompts.txt."""
    pipe = shipped()
    prompts = (DOCS / "prompts.txt").read_text(encoding="utf-8").splitlines()
    out = pipe(prompts, seed=SEED, quality="fast", best_of=4)
    figure = plots.images(out.images, prompts, columns=6)
    figure.savefig(DOCS / "images.png", dpi=200)


def emoji() -> None:
    """Draws docs/emoji.png: one image for each line of docs/emoji-prompts.txt, captioned."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/emoji")
    pipe.set_progress_bar_config(disable=True)
    prompts = (DOCS / "emoji-prompts.txt").read_text(encoding="utf-8").splitlines()
    images = pipe(prompts, seed=SEED, guidance_scale=2.0).images
    plots.images(images, prompts, columns=8).savefig(DOCS / "emoji.png", dpi=200)


def trajectory() -> None:
    """Draws docs/trajectory.png: the state and the expected image from noise to data."""
    pipe = shipped()
    field = pipe.field(["a red circle left of a blue square"], 2.0)
    noise = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        path = list(samplers.trajectory(field, noise, 8, "euler"))
        times, states = zip(*path, strict=True)
        ends = [x + (1 - t) * field(x, t) for t, x in path]
    rows = {"state": states, "expected image": ends}
    shown = {name: [pipe.decode(x.float())[0] for x in row] for name, row in rows.items()}
    plots.strip(shown, times).savefig(DOCS / "trajectory.png", dpi=200)


def work_precision() -> None:
    """Draws docs/work-precision.png: error against evaluations on an exact field."""
    problem = samplers.PROBLEMS["mixture"]()
    noise = problem.noise(128)
    exact = problem.solution(noise)
    counts, found = (4, 6, 8, 10, 16, 32), {}
    for name in ("euler", "heun", "dpmpp_2m", "abm", "auto"):
        errors = []
        for calls in counts:
            x = samplers.sample(problem.velocity, noise, calls, name)
            errors.append(float((x - exact).flatten(1).norm(dim=1).log().mean().exp()))
        found[name] = (counts, errors)
    figure = plots.work_precision(found)
    figure.axes[0].set_ylabel("error at t = 1, geometric mean of n = 128")
    figure.savefig(DOCS / "work-precision.png", dpi=200)


def stored(name: str) -> dict:
    """Returns a result file of the documents."""
    return json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))


def alignment() -> None:
    """Draws docs/alignment.png from docs/alignment.json."""
    aligned.figure(stored("alignment")).savefig(DOCS / "alignment.png", dpi=200)


def scaling() -> None:
    """Draws docs/scaling.png from docs/scaling.json."""
    scaled.plot(stored("scaling")).savefig(DOCS / "scaling.png", dpi=200)


def reward_algorithms() -> None:
    """Draws docs/reward-algorithms.png from docs/results/reward-algorithms.json."""
    rows = stored("results/reward-algorithms")["rows"]
    reward_curves.figure(rows).savefig(DOCS / "reward-algorithms.png", dpi=200)


def few_evaluations() -> None:
    """Draws docs/few-evaluations.png from its results file."""
    rows = stored("results/few-evaluations")["rows"]
    few.figure(rows).savefig(DOCS / "few-evaluations.png", dpi=200)


FIGURES: dict[str, Callable[[], None]] = {
    draw.__name__.replace("_", "-"): draw
    for draw in (
        gallery,
        emoji,
        trajectory,
        work_precision,
        alignment,
        scaling,
        reward_algorithms,
        few_evaluations,
    )
}


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"Draws these of {', '.join(FIGURES)}; by default all."
    )
    for name in parser.parse_args().names or FIGURES:
        if name not in FIGURES:
            raise SystemExit(f"no figure named {name!r}; choose one of {', '.join(FIGURES)}")
        FIGURES[name]()


if __name__ == "__main__":
    main()
