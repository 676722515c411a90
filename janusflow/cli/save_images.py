"""Where images are saved: one file, a grid of several in one file, or a folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from janusflow.cli.shared_options import OUTPUT
from janusflow.utils import limits

Out = Annotated[
    str,
    OUTPUT.info(
        "Writes to this .png, .jpg or .webp file, where several images form a grid, or to this "
        "folder; a path that ends in / is created as a folder.",
        "--out",
        "-o",
        metavar="PATH",
    ),
]
Seed = Annotated[
    int,
    OUTPUT.info(
        "Seeds the first image's noise with this whole number, at least 0; each further image has "
        "the next seed."
    ),
]
MOST_SEED = 2**63 - 1
FIGURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Output:
    """An output path that was checked before any work is done."""

    path: Path
    folder: bool

    def write(self, images: list, notes: list[dict]) -> dict:
        """Saves the images with their metadata, prints the files, and returns both."""
        from janusflow.pipelines import image_io
        from janusflow.utils.images import grid

        self.prepare()
        paths, told = self.files(len(images)), notes
        if len(paths) < len(images):
            told = [dict(notes[0], prompt="\n".join(note["prompt"] for note in notes))]
            images = [grid(images)]
        files = [image_io.save(*row) for row in zip(images, told, paths, strict=True)]
        print(*files, sep="\n")
        return dict(files=files, images=notes, pictures=notes)

    def files(self, count: int) -> list[Path]:
        """Returns the files that so many images are written to."""
        if not self.folder:
            return [self.path]
        return [self.path / f"{i:05d}.png" for i in range(count)]

    def check_inputs(self, *inputs: Path | None) -> None:
        """Raises ValueError if an image would be written over one of the files that are read."""
        for path in self.files(1):
            for given in inputs:
                if given is not None and path.exists() and path.samefile(given):
                    raise ValueError(
                        f"--out would replace {str(given)!r:.200}, which is read; choose another "
                        "file or folder"
                    )

    def prepare(self) -> None:
        """Creates the folder if it is missing."""
        if self.folder:
            from janusflow.utils import locked_dir

            locked_dir.make_folder(self.path)


def output(text: str) -> Output:
    """Returns the output of `--out`. Raises ValueError unless it is writable and an image file."""
    from janusflow.pipelines.image_io import FORMATS

    if not text.strip():
        raise ValueError("--out is empty; name an image file or a folder")
    path = Path(text)
    check_name(path)
    if path.is_dir() or text.endswith(("/", os.sep)):
        check_folder(_existing(path))
        return Output(path, True)
    check_folder(path.parent)
    if path.suffix.lower() not in FORMATS:
        wanted = ", ".join(FORMATS)
        raise ValueError(
            f"--out is {text!r:.200}; expected a file that ends in {wanted}, or a folder that "
            "exists or ends in /"
        )
    check_file(path)
    return Output(path, False)


def check_name(path: Path) -> None:
    """Raises ValueError for a file name that the file system cannot hold."""
    try:
        path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"--out is {str(path)!r:.80}; the file system refuses this name ({reason})"
        ) from error


def _existing(folder: Path) -> Path:
    """Returns the folder, or its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_folder(folder: Path) -> None:
    """Raises ValueError unless files can be written there."""
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r:.200} does not exist; make it or choose another")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"folder {str(folder)!r:.200} cannot be written; choose another")


def check_new(folder: Path) -> None:
    """Raises ValueError unless the folder of `--out` is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--out {str(folder)!r:.200} is not an empty folder; choose another")


def check_file(path: Path) -> None:
    """Raises ValueError for an existing path that must not be replaced."""
    if not path.exists():
        return
    if not path.is_file():
        raise ValueError(f"{str(path)!r:.200} is not a file that can be replaced; choose another")
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
        raise ValueError(f"{str(path)!r:.200} is read-only; make it writable or choose another")


def check_figure(path: Path, option: str) -> None:
    """Raises ValueError for a figure's file of another kind than matplotlib writes here."""
    if path.suffix.lower() not in FIGURES:
        expected = ", ".join(FIGURES)
        raise ValueError(f"{option} is {str(path)!r:.200}; expected a file that ends in {expected}")


def check_seed(first: int, count: int = 1) -> None:
    """Raises ValueError unless `first` and the seeds after it are valid for torch."""
    limits.within("--seed", first, 0, MOST_SEED - (count - 1))
