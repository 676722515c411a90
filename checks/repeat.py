"""Measures how far images of one seed differ between batches, orders and processes.

    python -m checks.repeat

Each of eight prompts is generated alone, in a batch, in another order, and in another process. The
table has the largest difference of the latents, whose RMS is about 1.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from janusflow import JanusFlowPipeline
from samplers import command_line

COLOURS = ("red", "green", "blue", "yellow")
PROMPTS = [f"a {c} circle" for c in COLOURS] + [f"two {c} squares and a star" for c in COLOURS]


def latents(pipe, order: list[int], batch: int, dtype=torch.float32) -> torch.Tensor:
    """Returns the ends of the prompts in this order and batch, sorted back: (8, c, h, w)."""
    ends = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        seeds = [torch.Generator().manual_seed(100 + row) for row in rows]
        texts = [PROMPTS[row] for row in rows]
        out = pipe(texts, generator=seeds, num_inference_steps=10, output_type="latent")
        ends |= dict(zip(rows, out.images.to(dtype), strict=True))
    return torch.stack([ends[row] for row in range(len(PROMPTS))])


def made(order: list[int], batch: int) -> torch.Tensor:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    return latents(pipe, order, batch)


def elsewhere(order: list[int], batch: int) -> torch.Tensor:
    """Returns the same from a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        words = [sys.executable, "-m", "checks.repeat", str(path), str(batch), *map(str, order)]
        subprocess.run(words, check=True)
        return load_file(path)["x"]


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("part", nargs="*", help="Its own processes pass a file, batch and order.")
    if part := parser.parse_args().part:
        path, batch, *order = part
        return save_file({"x": made([int(i) for i in order], int(batch))}, path)
    rows = list(range(len(PROMPTS)))
    back = rows[::-1]
    alone = made(rows, 1)
    others = {
        "again, same process": made(rows, 1),
        "another process": elsewhere(rows, 1),
        "backwards, alone": made(back, 1),
        "batch of 8": made(rows, 8),
        "batch of 8, backwards": made(back, 8),
        "batches of 3": made(rows, 3),
    }
    print("| against each alone | largest difference | bitwise |\n|---|---|---|")
    for name, found in others.items():
        same = "yes" if torch.equal(found, alone) else "no"
        print(f"| {name} | {float((found - alone).abs().max()):.1e} | {same} |")


if __name__ == "__main__":
    main()
