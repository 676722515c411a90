"""Measures strict scores against network evaluations, with solvers and as a flow map.

    python -m studies.few_evaluations janusflow/scenes my-run/export --ways map:4,map:1,abm:8,fast

A way is `map:N` (N evaluations of a flow map), `SOLVER:N` (N steps, unguided, on the solver's own
grid), `exact` (30 guided Euler steps), or `fast:W` (the model's pilot grid, guided by W where that
grid is; 2 unless told, 1 for none). Prompts are those of the split "test", the same for all models.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

import samplers
from janusflow.evaluation.intervals import wilson
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.scenes.scorer import Score, score
from janusflow.training import init_checkpoint, rollouts, timestep_sampling
from janusflow.training.objectives.online import shape_of
from janusflow.training.rewards.prompts import Prompts
from janusflow.utils.devices import use_threads
from janusflow.utils.hub import FLOW_MAP, locate
from samplers import command_line
from samplers.benchmark.style import colour, mark, paper

AT_ONCE = 64


def draw(model, folder: Path, way: str, samples: list, noise: Tensor) -> tuple[Tensor, int]:
    """Returns the latents of a way, and its evaluations per image."""
    name, _, count = way.partition(":")
    if name == "map":
        return jumped(model, folder, int(count), samples, noise), int(count)
    guidance: object = 1.0
    if name == "exact":
        name, ts, guidance = "euler", samplers.GRIDS["uniform"](30), 2.0
    elif name == "fast":
        pilot = samplers.PilotGrid.load(folder / "pilot-fast.json")
        name, ts = pilot.solver, pilot.ts
        if (scale := float(count or 2)) != 1:
            guidance = samplers.guidance_interval(scale, *pilot.settings["guided"])
    else:
        ts = samplers.core.times(int(count), samplers.core.find(name))
    v = samplers.count(rollouts.field(model, samples, guidance))
    return samplers.sample(v, noise, ts, name), v.calls


def jumped(model, folder: Path, count: int, samples: list, noise: Tensor) -> Tensor:
    """Returns x + (s - t) u(x, t, s) over `count` equal parts of the map's grid."""
    told = folder / FLOW_MAP
    grid = json.loads(told.read_text())["times"] if told.is_file() else [0, 0.11, 0.3, 0.67, 1]
    ts = torch.tensor(grid[:: (len(grid) - 1) // count], dtype=torch.float32)
    u, x = rollouts.flow_map(model, samples), noise
    for t, s in pairwise(ts):
        x = x + (s - t) * u(x, t, s)
    return x


@torch.no_grad()
def scored(name: str, way: str, prompts: int, seeds: int, first: int = 0) -> dict:
    """Returns strict and lenient score, distinct layouts, evaluations and seconds."""
    folder = locate(name)
    model = JanusFlowModel.from_pretrained(folder, dtype=torch.float32).eval()
    vae = load_vae(folder, None)
    asked = Prompts(init_checkpoint.batches(folder), 1).test(prompts, first)
    rows = [(i, s, seed) for i, s in enumerate(asked) for seed in range(seeds)]
    shape, found, began = shape_of(model, vae), [], time.perf_counter()
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        keys = (timestep_sampling.generator(seed, first + i) for i, _, seed in part)
        noise = torch.stack([torch.randn(shape, generator=key) for key in keys])
        x, calls = draw(model, folder, way, [s for _, s, _ in part], noise)
        pixels = rollouts.pixels_of(vae, x).numpy()
        found += [score(image, s.request) for image, (_, s, _) in zip(pixels, part, strict=True)]
    strict = sum(one.strict for one in found)
    low, high = wilson(strict, len(found))
    return {
        "model": str(name),
        "way": way,
        "evaluations": calls,
        "images": len(found),
        "strict": strict / len(found),
        "interval": [low, high],
        "lenient": sum(one.lenient for one in found) / len(found),
        "by_category": _by_category(rows, found),
        "layouts": layouts(found, seeds) if seeds > 1 else None,
        "seconds": round(time.perf_counter() - began, 1),
    }


@paper
def figure(rows: list[dict]):
    """Strict score against evaluations of the flow map, and of its teacher without and with
    guidance, by the rows of a results file.
    """
    from matplotlib.figure import Figure

    lines = {
        "scenes-few": [r for r in rows if r["way"].startswith("map:")],
        "scenes, unguided (abm)": [r for r in rows if r["way"].startswith("abm:")],
        "scenes, guided (fast, exact)": [r for r in rows if r["way"] in ("fast", "exact")],
    }
    ax = (fig := Figure(figsize=(4.2, 3.0), layout="constrained")).subplots()
    for place, (name, own) in enumerate(lines.items()):
        own = sorted(own, key=lambda r: r["evaluations"])
        x, y = ([r[key] for r in own] for key in ("evaluations", "strict"))
        ends = [[r["strict"] - r["low"] for r in own], [r["high"] - r["strict"] for r in own]]
        ax.errorbar(x, y, ends, fmt=mark(place), color=colour(place), markersize=4, label=name)
    ax.set(xscale="log", xlabel="network evaluations (NFE)")
    ax.set_ylabel("strict score, 95 % interval, n = 600")
    ticks = sorted({r["evaluations"] for own in lines.values() for r in own})
    ax.set_xticks(ticks, [str(n) for n in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_ylim(0, 1)
    ax.legend(fontsize=7, loc="lower right")
    return fig


def _by_category(rows: list, found: list[Score]) -> dict[str, float]:
    right, all_ = Counter(), Counter()
    for (_, sample, _), one in zip(rows, found, strict=True):
        all_[sample.request.category] += 1
        right[sample.request.category] += one.strict
    return {name: right[name] / all_[name] for name in all_}


def layouts(found: list[Score], seeds: int, cell: float = 24.0) -> float:
    """Distinct layouts among a prompt's images, as a share of their number: the objects' kinds and
    the cells of a 4 x 4 grid that their centres lie in.
    """
    groups = [found[i : i + seeds] for i in range(0, len(found), seeds)]
    kinds = [{_layout(one, cell) for one in group} for group in groups]
    return sum(map(len, kinds)) / len(found)


def _layout(one: Score, cell: float) -> tuple:
    return tuple(sorted((str(o.shape), str(o.color), o.x // cell, o.y // cell) for o in one.found))


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("models", nargs="+", help="Names the models: folders or packaged names.")
    parser.add_argument(
        "--ways",
        default="map:1,map:2,map:4,abm:8,fast",
        help="Generates in these ways, separated by commas: map:N (N jumps), abm:N (N unguided "
        "steps of abm), or a quality such as fast.",
    )
    parser.add_argument(
        "--prompts", type=int, default=120, help="Takes this many prompts of the six categories."
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="Generates this many images for each prompt."
    )
    parser.add_argument("--first", type=int, default=0, help="Starts at the prompt of this number.")
    parser.add_argument("--threads", type=int, help="Runs torch on this many threads.")
    parser.add_argument("--out", type=Path, help="Adds the rows to this JSON lines file.")
    args = parser.parse_args()
    use_threads(args.threads)
    for name in args.models:
        for way in args.ways.split(","):
            row = scored(name, way, args.prompts, args.seeds, args.first)
            print(json.dumps(row), flush=True)
            if args.out:
                with open(args.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
