"""What the command line does with pictures: read, make, and write them with their story."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin

from janusflow.pipelines import auto
from janusflow.pipelines.time_grid import time_grid
from janusflow.utils import atomic_io, limits
from janusflow.utils.devices import EIGHT_BIT, describe, pick_device, pick_dtype, written
from janusflow.utils.images import grid
from janusflow.utils.safe_io import check_prompt
from janusflow.utils.version import VERSION
from samplers.core import find


def check_output(out: Path) -> None:
    """ValueError unless `out` is a folder, or a .png in one, that can be written."""
    check_folder(out if out.is_dir() else out.parent)
    if not out.is_dir() and out.suffix.lower() != ".png":
        raise ValueError(f"--out is {str(out)!r}; expected a .png or a folder that exists")


def check_folder(folder: Path) -> None:
    """ValueError unless files can be written there."""
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r} does not exist; make it or choose another")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"folder {str(folder)!r} cannot be written; choose another")


def check(rows: list[str], seed: int, count: int, batch: int, **settings) -> None:
    """Refuses before a model is loaded what can be refused."""
    numbers = {"--count": count, "--batch": batch, "--steps": settings["num_inference_steps"]}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")
        limits.hold("number", number, f"{name} is {number}")
    for name in ("height", "width"):
        side = settings.get(name) or 0
        limits.hold("side", side, f"--{name} is {side} pixels")
    for row in rows:
        check_prompt(row, "a prompt")
    if not rows or not all(row.strip() for row in rows):
        raise ValueError("there is no prompt, or an empty one; give a text such as 'a red circle'")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed is {seed}; expected 0 or more")
    time_grid(find(settings["sampler"]), 1, settings["grid"])


def load(model: str, vae: str | None, device: str, dtype: str, lora: str | None = None):
    """The pipeline on its device, with an adapter if one is named; told on the terminal."""
    from transformers.utils import logging

    place = pick_device(device)
    kind = pick_dtype(dtype, place)
    coded = auto.eight_bit() if dtype == EIGHT_BIT else None
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    pipe = auto.load(model, kind, vae, coded).to(place)
    pipe.set_progress_bar_config(disable=True)
    if lora:
        pipe.load_lora_weights(lora)
    if sys.stderr.isatty():
        print(f"{model} on {describe(place)} in {written(kind, dtype)}", file=sys.stderr)
    return pipe


def make(pipe, rows: list[str], seed: int, batch: int, settings: dict, about: dict):
    """A picture a row and its notes; the seed of row i is seed + i, in whatever batch it runs."""
    from tqdm import tqdm

    images, notes = [], []
    with tqdm(total=len(rows), desc="pictures", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            seeds = range(seed + start, seed + start + len(part))
            generators = [torch.Generator().manual_seed(s) for s in seeds]
            out = pipe(part, generator=generators, **settings)
            images += out.images
            for i, (text, own) in enumerate(zip(part, seeds, strict=True)):
                notes.append({"prompt": text, "seed": own, **about, **cost(out, i)})
            bar.update(len(part))
    return images, notes


def cost(out, index: int) -> dict[str, int]:
    """What a picture of a pipeline's output took, for its text."""
    skipped = getattr(out, "skipped", None)
    return {"calls": out.calls} | ({} if skipped is None else {"skipped": skipped[index]})


def write(images: list[Image.Image], notes: list[dict], out: Path) -> Iterator[Path]:
    """Each picture into a folder, or all into one file as a grid; yields what was written."""
    if out.is_dir():
        for index, (image, note) in enumerate(zip(images, notes, strict=True)):
            yield save(image, note, out / f"{index:05d}.png")
    elif len(images) == 1:
        yield save(images[0], notes[0], out)
    else:
        joint = dict(notes[0], prompt="\n".join(note["prompt"] for note in notes))
        yield save(grid(images), joint, out)


def save(image: Image.Image, note: dict, path: Path) -> Path:
    """Writes a PNG with text chunks, complete or not at all."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (note | {"software": f"janusflow {VERSION}"}).items():
        chunks.add_itxt(key, str(value))
    with atomic_io.replacing(path, sync=False) as part:
        image.save(part, format="PNG", pnginfo=chunks)
    return path
