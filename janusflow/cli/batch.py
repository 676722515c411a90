"""Generates many images: chooses the batch size, and fills a folder with one file per image.

Existing files are kept. Images that cannot be written are reported at the end, and the others are
generated.
"""

import sys
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from janusflow.cli.terminal import tell
from janusflow.pipelines import image_io, memory
from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.utils import processes

MOST = {"cpu": 16, "cuda": 64}  # images at once beyond which no hardware seen here gains
UNKNOWN = 4  # images at once where nobody tells what memory is free
SHARE = 0.9  # of free memory that a batch may fill, since libraries take some for themselves
TOLD = ("calls", "skipped", "generated_by", "software")  # of an image's text, beside its order


def fill(
    pipe, rows: list[str], seed: int, batch: int, settings: dict, about: dict, out: Path
) -> list[Path]:
    """Generates the images that `out` lacks and returns all paths of this process, in order.

    Row i has seed `seed + i` and file 0000i.png, in whatever batch or process it is generated. An
    existing file is kept if its metadata match the request. The processes of `torchrun` or
    `accelerate launch` share the rows. Raises OSError at the end if images could not be written.
    """
    rank, world = processes.share()
    orders = {
        out / f"{i:05d}.png": {"prompt": text, "seed": seed + i, **about}
        for i, text in enumerate(rows)
        if i % world == rank
    }
    missing = [path for path, order in orders.items() if not holds(path, order)]
    failed = []
    with tqdm(total=len(missing), desc="images", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            failed += _make(pipe, {path: orders[path] for path in part}, settings)
            bar.update(len(part))
    if failed:
        path, why = failed[0]
        raise OSError(
            f"{len(failed)} of {len(missing)} images were not written, the first {path.name!r} "
            f"({why}); correct that and run the same command again, which generates only the "
            "missing ones"
        )
    return list(orders)


def make(pipe, rows: list[str], seed: int, batch: int, request) -> tuple[list, list[dict]]:
    """Returns an image and its metadata for each row; row i has seed `seed + i` in any batch."""
    images, notes = [], []
    with tqdm(total=len(rows), desc="images", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            seeds = range(seed + start, seed + start + len(part))
            generators = [torch.Generator().manual_seed(s) for s in seeds]
            out = pipe(part, generator=generators, **request.settings)
            images += out.images
            for i, (text, own) in enumerate(zip(part, seeds, strict=True)):
                notes.append(
                    {"prompt": text, "seed": own, **request.about, **image_io.cost(out, i)}
                )
            bar.update(len(part))
    return images, notes


def size(pipe, rows: list[str], options) -> int:
    """Returns the batch size: the requested one, within `--memory` if that is given."""
    if options.batch_size is not None and options.memory is None:
        return options.batch_size
    most = at_once(pipe, rows, options.memory, options.height, options.width)
    return min(most, options.batch_size or most)


def at_once(
    pipe, rows: list[str], gigabytes: float | None, height: int | None, width: int | None
) -> int:
    """Returns how many images at once fit into so many gigabytes, weights included.

    Without a number it is `SHARE` of the free memory, and at most `MOST` for the device. If a batch
    can be sampled but not decoded at once, decoding is limited. Raises ValueError if not one image
    fits.
    """
    device = pipe._execution_device
    most = min(MOST.get(device.type, MOST["cpu"]), len(rows))
    if not isinstance(pipe, JanusFlowPipeline) or (most == 1 and gigabytes is None):
        return most
    height, width = (pipe.default_size if side is None else side for side in (height, width))
    pipe.check_sides(height, width)
    weights = memory.held(pipe.model) + memory.held(pipe.vae)
    spare = memory.free(device) if gigabytes is None else int(gigabytes * 1e9) - weights
    if spare is None:
        return min(most, UNKNOWN)
    limit = int(spare * SHARE) if gigabytes is None else spare
    tokens = len(pipe.processor.prompt([max(rows, key=len)])["input_ids"][0])
    setting = dict(height=height, width=width, tokens=tokens)
    known = cache(lambda n: pipe.forecast(n, **setting))
    count = memory.fitting(lambda n: known(n).sampling, limit, most)
    if count == 0 and gigabytes is None:
        return 1  # what is free is a guess, and no reason to refuse
    if count == 0:
        raise ValueError(
            f"one image takes {known(1).sampling / 1e9:.2g} GB beside weights of "
            f"{weights / 1e9:.2g} GB, and {max(limit, 0) / 1e9:.2g} GB are free "
            "for it; choose a smaller size, or --dtype bfloat16 or int8"
        )
    pipe.limit_memory(limit if known(count).decoding > limit else None)
    return count


def holds(path: Path, order: dict) -> bool:
    """Returns whether the file is a complete image of this request."""
    try:
        with Image.open(path) as image:
            image.load()
            told = {k: v for k, v in image_io.story(image).items() if k not in TOLD}
    except (OSError, SyntaxError, ValueError, AttributeError):
        return False
    return told == {key: str(value) for key, value in order.items()}


def _make(pipe, orders: dict[Path, dict], settings: dict) -> list[tuple[Path, str]]:
    """Generates and writes one batch; returns what could not be written and why."""
    generators = [torch.Generator().manual_seed(order["seed"]) for order in orders.values()]
    texts = [order["prompt"] for order in orders.values()]
    out = pipe(texts, generator=generators, **settings)
    failed = []
    for i, (path, order) in enumerate(orders.items()):
        try:
            image_io.save(out.images[i], order | image_io.cost(out, i), path)
        except OSError as error:
            failed.append((path, str(error)))
            tell(f"{path} was not written ({error})")
    return failed
