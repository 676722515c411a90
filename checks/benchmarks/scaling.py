"""Measures how cost grows with prompts, image size and processes:

    python -m checks.benchmarks.scaling [--out docs/scaling.json --plot docs/scaling.png]


Seconds an image of the packaged model at 1 to 1,000 distinct prompts ("fast", 16 at once), of the
1.3B's widths with 2 blocks at several sizes (one guided evaluation, and one decoding by an
autoencoder of SDXL's sizes, fresh weights), and of a folder filled by 1 and 2 processes of one
thread. An exponent is the slope of log seconds against log size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from diffusers import AutoencoderKL

from janusflow import JanusFlowPipeline
from janusflow.bench.speed import wide
from janusflow.cli.commands.pilot_grid import scene_prompts
from janusflow.models.autoencoder_loading import SDXL
from janusflow.models.prompt_cache import PromptCache
from samplers import command_line
from samplers.benchmark.style import paper

BATCH = 16


def timed(way: Callable, rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - began)
    return seconds


def slope(sizes: list[float], seconds: list[float]) -> float:
    """Returns the least-squares slope of log seconds against log size."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, seconds))
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())


def over_prompts(counts: list[int], rounds: int) -> list[dict]:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    pipe.few_step = {}  # its own weights
    texts = scene_prompts(max(counts))

    def make(count: int) -> None:
        for start in range(0, count, BATCH):
            part = texts[start : min(start + BATCH, count)]
            pipe(part, quality="fast", generator=torch.Generator().manual_seed(start))

    make(BATCH)  # warms up
    return [
        {"prompts": n, "seconds": timed(lambda n=n: make(n), 1 if n > 100 else rounds)}
        for n in counts
    ]


@torch.no_grad()
def over_sizes(sides: list[int], rounds: int) -> list[dict]:
    model = wide(2)
    with torch.device("meta"):
        vae = AutoencoderKL(**SDXL).eval()
    vae = vae.to_empty(device="cpu")
    for weight in vae.parameters():
        torch.nn.init.normal_(weight, std=0.01)
    ids = torch.randint(5, 4000, (1, 20))
    both = PromptCache.cat([model.encode_prompt(ids), model.encode_prompt(ids, unconditional=True)])
    rows = []
    for side in sides:
        x = torch.randn(2, 4, side, side)
        evaluate = timed(lambda x=x: model.velocity(x, torch.full((2,), 0.5), both), rounds + 1)[1:]
        decode = timed(lambda x=x: vae.decode(x[:1]), 1)
        rows.append({"latents": side, "evaluation": evaluate, "decoding": decode})
    return rows


def over_processes(counts: list[int], prompts: int) -> list[dict]:
    """Times complete commands, with their start."""
    rows = []
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "prompts.txt"
        file.write_text("\n".join(scene_prompts(prompts)))
        for count in counts:
            out = Path(made) / str(count)
            out.mkdir()
            words = ["generate", "--prompts", file, "-o", out, "--quality=fast", "--device=cpu"]
            command = [sys.executable, "-m", "janusflow", *map(str, words)]
            seconds = timed(lambda command=command, count=count: together(command, count), 1)
            assert len(list(out.glob("*.png"))) == prompts
            rows.append({"processes": count, "prompts": prompts, "seconds": seconds})
    return rows


def together(command: list[str], count: int) -> None:
    """Runs the command in several processes, as `torchrun` would start it."""
    about = os.environ | {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started = [
        subprocess.Popen(command, env=about | {"RANK": str(r)}, **quiet) for r in range(count)
    ]
    if any([process.wait() for process in started]):
        raise SystemExit(f"{' '.join(command)} failed")


def table(report: dict) -> str:
    prompts, sizes, processes = (report[k] for k in ("prompts", "sizes", "processes"))
    each = [median(r["seconds"]) / r["prompts"] for r in prompts]
    many = [(r["prompts"], s) for r, s in zip(prompts, each, strict=True) if r["prompts"] >= BATCH]
    counts, costs = zip(*many, strict=True)
    tokens = [(r["latents"] / 2) ** 2 for r in sizes]
    lines = ["| prompts | seconds an image |", "|---|---|"]
    lines += [f"| {r['prompts']:,} | {s:.4f} |" for r, s in zip(prompts, each, strict=True)]
    lines += [f"exponent from {counts[0]} prompts on: {slope(counts, costs):+.3f}", ""]
    lines += [
        "| latents | image tokens | guided evaluation, s | decoding, s |",
        "|---|---|---|---|",
    ]
    for row, n in zip(sizes, tokens, strict=True):
        a, b = median(row["evaluation"]), median(row["decoding"])
        lines.append(f"| {row['latents']} | {n:,.0f} | {a:.2f} | {b:.1f} |")
    for name in ("evaluation", "decoding"):
        grows = slope(tokens, [median(row[name]) for row in sizes])
        lines.append(f"exponent of {name} in the tokens: {grows:.2f}")
    lines += ["", "| processes | images | seconds, start included |", "|---|---|---|"]
    lines += [f"| {r['processes']} | {r['prompts']} | {r['seconds'][0]:.1f} |" for r in processes]
    return "\n".join(lines)


@paper
def plot(report: dict):
    """Draws milliseconds per image against prompts, and seconds against image tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    prompts, sizes = report["prompts"], report["sizes"]
    costs = [1000 * median(r["seconds"]) / r["prompts"] for r in prompts]
    left.plot([r["prompts"] for r in prompts], costs, "o-")
    left.set(xscale="log", xlabel="number of prompts", ylabel="milliseconds per image")
    left.set_ylim(0, max(costs) * 1.1)
    left.set_title("(a) packaged model, 16 images at once", loc="left")
    left.set_xticks([r["prompts"] for r in prompts], [f"{r['prompts']:,}" for r in prompts])
    tokens = [(r["latents"] / 2) ** 2 for r in sizes]
    names = {"evaluation": "one guided evaluation", "decoding": "decoding by the autoencoder"}
    for name, label in names.items():
        right.loglog(tokens, [median(r[name]) for r in sizes], "o-", label=label)
    right.set_xticks(tokens, [f"{n:,.0f}" for n in tokens])
    right.yaxis.set_major_formatter("{x:g}")
    right.set(xlabel="image tokens", ylabel="seconds", ylim=(1, 100))
    right.set_title("(b) widths of the 1.3B, 2 blocks", loc="left")
    right.legend()
    for ax in (left, right):
        ax.minorticks_off()
        ax.grid()
    return figure


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--prompts",
        type=int,
        nargs="+",
        default=[1, 10, 100, 1000],
        help="Measures these numbers of prompts.",
    )
    parser.add_argument(
        "--latents",
        type=int,
        nargs="+",
        default=[48, 64, 96],
        help="Measures images with these numbers of latents per side.",
    )
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[1, 2],
        help="Measures with these numbers of processes.",
    )
    parser.add_argument(
        "--images",
        "--pictures",
        type=int,
        default=1000,
        help="Divides this many images between processes.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="Measures each size this many times.")
    parser.add_argument("--out", type=Path, help="Writes the numbers to this .json file.")
    parser.add_argument("--plot", type=Path, help="Draws them into this .png, .svg or .pdf file.")
    asked = parser.parse_args()
    report = dict(
        prompts=over_prompts(asked.prompts, asked.rounds),
        sizes=over_sizes(asked.latents, asked.rounds),
        processes=over_processes(asked.processes, asked.images),
    )
    report |= dict(torch=torch.__version__, threads=torch.get_num_threads())
    print(table(report))
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=1) + "\n")
    if asked.plot:
        plot(report).savefig(asked.plot, dpi=200)


if __name__ == "__main__":
    main()
