"""Packages of Debian, npm and PyPI: downloaded by their own clients, read without executing
anything.
"""

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from janusflow.utils import limits
from janusflow.utils.safe_io import read_bytes
from janusflow.utils.text import explained

CLIENTS = {  # how each registry's client writes one package into the folder where it is run
    "debian": ("apt-get", "download", "-q"),
    "npm": ("npm", "pack", "--silent"),
    "pypi": ("pip", "download", "--no-deps", "-q", "--disable-pip-version-check"),
}
ARCHIVES = (".deb", ".tgz", ".tar.gz", ".whl")
MAGIC, HEADER = b"!<arch>\n", 60  # of ar, the format around a .deb
SECONDS = 900  # that a download may take


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package by its name in the registry; `version` pins it if the content depends on it."""

    registry: str
    name: str
    version: str | None = None

    @property
    def spec(self) -> str:
        joint = {"debian": "=", "npm": "@", "pypi": "=="}[self.registry]
        return self.name + (f"{joint}{self.version}" if self.version else "")

    def fetch(self, folder: Path) -> Path:
        """Downloads the package into `folder` and returns the file.

        Raises ValueError with the client's last line of output if the client is missing or fails.
        """
        command = [*CLIENTS[self.registry], self.spec]
        if shutil.which(command[0]) is None:
            raise ValueError(
                f"{self.spec} is fetched by {command[0]}, which is not installed; install it, or "
                "give a package file that you have with --from"
            )
        with tempfile.TemporaryDirectory(dir=folder) as place:
            done = subprocess.run(
                command, cwd=place, capture_output=True, text=True, timeout=SECONDS, check=False
            )
            found = [p for p in Path(place).iterdir() if p.name.endswith(ARCHIVES)]
            if done.returncode or len(found) != 1:
                said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
                raise ValueError(
                    f"{' '.join(command)} brought no package ({said:.200}); try it by hand, or "
                    "give a package file with --from"
                )
            return found[0].rename(folder / found[0].name)


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the regular files in a .deb, .tgz or .whl, in the archive's
    order.

    Links, devices and names that lead out of the archive are skipped; nothing is written to disk.
    Raises ValueError for another kind of file, for a damaged one, and for one beyond the limits.
    """
    limits.hold(
        "package_bytes", path.stat().st_size, f"{path.name} has {path.stat().st_size} bytes"
    )
    faults = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError)
    with explained(f"{path.name} cannot be unpacked", "download it again", *faults):
        if path.name.endswith(".whl"):
            yield from _zipped(path)
        elif path.name.endswith(".deb"):
            with _data_of(path) as file:
                yield from _tarred(file)
        elif path.name.endswith((".tgz", ".tar.gz")):
            with open(path, "rb") as file:
                yield from _tarred(file)
        else:
            raise ValueError(f"{path.name} is not a package; expected {', '.join(ARCHIVES)}")


def _tarred(file) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            if member.isfile() and (name := inside(member.name)):
                _hold(name, member.size)
                yield name, archive.extractfile(member).read()


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and (name := inside(member.filename)):
                _hold(name, member.file_size)
                yield name, archive.read(member)


def _hold(name: str, size: int) -> None:
    limits.hold("member_bytes", size, f"{name:.100} has {size} bytes")


def inside(name: str) -> str | None:
    """Returns a member's name without "./", or None if it leads out of the archive."""
    parts = PurePosixPath(name).parts
    return None if name.startswith("/") or ".." in parts else "/".join(parts)


def _data_of(path: Path):
    """Returns the data.tar of a .deb as a file: an ar archive, with headers of 60 bytes."""
    content = read_bytes(path, "package_bytes", "package")
    if not content.startswith(MAGIC):
        raise ValueError(f"{path.name} is not a Debian package; download it again")
    place = len(MAGIC)
    while place + HEADER <= len(content):
        header = content[place : place + HEADER]
        name, size = header[:16].decode("ascii", "replace").strip(" /"), header[48:58].strip()
        place += HEADER
        if not size.isdigit():
            break
        size = int(size)
        if name.startswith("data.tar"):
            whole = tempfile.SpooledTemporaryFile(max_size=2**28)
            whole.write(content[place : place + size])
            whole.seek(0)
            return whole
        place += size + size % 2
    raise ValueError(f"{path.name} holds no data.tar; download it again")
