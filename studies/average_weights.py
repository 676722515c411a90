"""Averages of weights: of a model in training, and of two models.

The mean of two models' weights, as the model that ships for few evaluations was made:

    python -m studies.average_weights FIRST SECOND --share 0.8 --out FOLDER
    python -m studies.average_weights FIRST SECOND --less THIRD --out FOLDER  # the sum less THIRD

Everything else in FOLDER is SECOND's, and with `--own vision_und lm_head` all weights whose names
hold one of these words. All are folders or hub ids with weights of the same names.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janusflow.training.ema import move
from janusflow.utils.hub import SUMS, locate
from samplers import command_line

FILE = "model.safetensors"


def move_module(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Applies `ema.move` to the trainable parameters of a model and its average."""
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    ours, theirs = zip(*((a, p.detach()) for a, p in pairs if p.requires_grad), strict=True)
    move(ours, theirs, decay, step)


def average(
    first: Path,
    second: Path,
    share: float,
    out: Path,
    own: Sequence[str] = (),
    less: Path | None = None,
) -> None:
    """Writes (1 - share) first + share second, or first + second - less.

    Weights whose names hold a word of `own` are the second's. Raises ValueError if names differ.
    """
    ours, theirs, taken = (load_file(one / FILE) for one in (first, second, less or first))
    if not ours.keys() == theirs.keys() == taken.keys():
        raise ValueError(f"{first} and {second} have weights of other names; give two of one model")
    a, b, c = (1 - share, share, 0.0) if less is None else (1.0, 1.0, -1.0)
    shutil.copytree(second, out, ignore=shutil.ignore_patterns(SUMS))

    def mixed(name: str, value: Tensor) -> Tensor:
        if any(word in name for word in own):
            return value
        parts = (x.float() for x in (ours[name], value, taken[name]))
        return sum(w * x for w, x in zip((a, b, c), parts, strict=True)).to(value.dtype)

    save_file({k: mixed(k, v) for k, v in theirs.items()}, out / FILE, metadata={"format": "pt"})


def main() -> None:
    parser = command_line.parser("Writes the mean of two models' weights.")
    add = parser.add_argument
    add("first", help="Names the first model: a folder or a packaged name.")
    add("second", help="Names the second model.")
    add("--share", type=float, default=0.5, help="Weighs the second model by this share.")
    add("--less", help="Adds the two models and subtracts this one instead.")
    add(
        "--own",
        nargs="*",
        default=[],
        help="Takes weights whose names hold one of these words from SECOND.",
    )
    add("--out", type=Path, required=True, help="Writes to this new folder.")
    args = parser.parse_args()
    less = locate(args.less) if args.less else None
    average(locate(args.first), locate(args.second), args.share, args.out, args.own, less)


if __name__ == "__main__":
    main()
