"""Many pictures into a folder: one file a row, what is there already is left, what cannot be
written is named and the rest goes on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from janusflow import pictures

TOLD = ("calls", "skipped", "software")  # what a picture's text holds beside its order


def fill(
    pipe, rows: list[str], seed: int, batch: int, settings: dict, about: dict, out: Path
) -> list[Path]:
    """Makes the pictures that `out` lacks and returns all paths of this process, in order.

    Row i has the seed `seed + i` and the file 0000i.png, in whatever batch or process it is made;
    a file there is kept if its text chunks tell of the same order. The processes of `torchrun` or
    `accelerate launch` share the rows. OSError at the end if pictures could not be written.
    """
    rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    orders = {
        out / f"{i:05d}.png": {"prompt": text, "seed": seed + i, **about}
        for i, text in enumerate(rows)
        if i % world == rank
    }
    missing = [path for path, order in orders.items() if not holds(path, order)]
    failed = []
    with tqdm(total=len(missing), desc="pictures", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            failed += _make(pipe, {path: orders[path] for path in part}, settings)
            bar.update(len(part))
    if failed:
        path, why = failed[0]
        raise OSError(
            f"{len(failed)} of {len(missing)} pictures were not written, the first {path.name!r} "
            f"({why}); mend that and run the same command again, which makes only what is missing"
        )
    return list(orders)


def holds(path: Path, order: dict) -> bool:
    """Whether the file is a whole picture made to this order."""
    try:
        with Image.open(path) as image:
            image.load()
            told = {k: v for k, v in image.text.items() if k not in TOLD}
    except (OSError, SyntaxError, ValueError, AttributeError):
        return False
    return told == {key: str(value) for key, value in order.items()}


def _make(pipe, orders: dict[Path, dict], settings: dict) -> list[tuple[Path, str]]:
    """Makes and writes one batch; returns what could not be written and why."""
    generators = [torch.Generator().manual_seed(order["seed"]) for order in orders.values()]
    texts = [order["prompt"] for order in orders.values()]
    out = pipe(texts, generator=generators, **settings)
    failed = []
    for i, (path, order) in enumerate(orders.items()):
        try:
            pictures.save(out.images[i], order | pictures.cost(out, i), path)
        except OSError as error:
            failed.append((path, str(error)))
            tqdm.write(f"janusflow: {path} was not written ({error})", file=sys.stderr)
    return failed
