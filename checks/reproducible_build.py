"""Builds sdist and wheel twice from the commit and compares them.

    python -m checks.reproducible_build [OUT]

Times come from the commit (SOURCE_DATE_EPOCH). The sdist is packed again in one order, because
setuptools writes the clock into it. Prints the SHA-256 of both; the exit code is 1 if two builds
differ.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from samplers import command_line

ROOT = Path(__file__).parent.parent


def build(out: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file that one build writes, by name."""
    epoch = git("log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:
            archive.extractall(folder, filter="data")
        for kind in ("build_sdist", "build_wheel"):  # setuptools ends the process after one
            code = f"import sys; from setuptools import build_meta as b; b.{kind}(sys.argv[1])"
            subprocess.run(
                [sys.executable, "-c", code, str(out.resolve())],
                cwd=folder,
                env=os.environ | {"SOURCE_DATE_EPOCH": epoch},
                check=True,
                stdout=subprocess.DEVNULL,
            )
    for path in out.glob("*.tar.gz"):
        repack(path, int(epoch))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def repack(path: Path, epoch: int) -> None:
    """Writes the same files in the order of their names, with one time and no owner."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))


def main() -> None:
    told = "Writes the builds to this folder. The default is a temporary one."
    out = command_line.positionals(__doc__, out=(Path, None, told))["out"]
    out = out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    first = build(out)
    with tempfile.TemporaryDirectory() as again:
        second = build(Path(again))
    for name, digest in first.items():
        print(f"{digest}  {out / name}  {'same twice' if second[name] == digest else 'DIFFERS'}")
    raise SystemExit(first != second)


if __name__ == "__main__":
    main()
