"""Averages of weights: of a model in training, and of two models.

The mean of two models' weights, as the model that ships for few evaluations was made:

    python -m studies.average_weights FIRST SECOND --share 0.8 --out FOLDER

Everything else in FOLDER is SECOND's. Both are folders or hub ids with weights of the same names.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from janusflow.training.ema import move
from janusflow.utils.hub import locate

FILE = "model.safetensors"


def move_module(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Applies `ema.move` to the trainable parameters of a model and its average."""
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    ours, theirs = zip(*((a, p.detach()) for a, p in pairs if p.requires_grad), strict=True)
    move(ours, theirs, decay, step)


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Writes (1 - share) first + share second. Raises ValueError if names differ."""
    ours, theirs = load_file(first / FILE), load_file(second / FILE)
    if ours.keys() != theirs.keys():
        raise ValueError(f"{first} and {second} have weights of other names; give two of one model")
    shutil.copytree(second, out)
    mean = {k: (1 - share) * ours[k] + share * v for k, v in theirs.items()}
    save_file(mean, out / FILE, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the mean of two models' weights.")
    parser.add_argument("first", help="Names the first model: a folder or a packaged name.")
    parser.add_argument("second", help="Names the second model.")
    parser.add_argument(
        "--share", type=float, default=0.5, help="Weighs the second model by this share."
    )
    parser.add_argument("--out", type=Path, required=True, help="Writes to this new folder.")
    args = parser.parse_args()
    average(locate(args.first), locate(args.second), args.share, args.out)


if __name__ == "__main__":
    main()
