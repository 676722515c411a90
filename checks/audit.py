"""Asks PyPI for known vulnerabilities of the packages that pyproject.toml names.

    python -m checks.audit [EXTRA ...]

`pip-audit` asks for a page of each version. A mirror may lack it, and then `pip-audit` skips the
package and still ends with "No known vulnerabilities found". This falls back to the package's page,
which describes its newest version only; an older installed version counts as unknown. Dependencies
of these packages are left to pip-audit. The exit code is 1 if something is known.
"""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import tomllib

from samplers import command_line

ROOT = Path(__file__).resolve().parent.parent
SITE = "https://pypi.org/pypi"


def named(extras: list[str]) -> list[str]:
    """Returns the names of the dependencies, and of those of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = project["dependencies"] + [
        line for extra in extras for line in project["optional-dependencies"][extra]
    ]
    return sorted({re.split(r"[\[<>=]", line)[0] for line in lines})


def advisories(name: str, version: str) -> list[str] | None:
    """Returns the identifiers of a version's known vulnerabilities, or None if nobody knows."""
    try:
        page = _page(f"{name}/{version}")
    except HTTPError:
        page = _page(name)
        if page["info"]["version"] != version:
            return None
    return [(one.get("aliases") or [one["id"]])[0] for one in page["vulnerabilities"]]


def _page(path: str) -> dict:
    with urlopen(f"{SITE}/{path}/json", timeout=60) as answer:
        return json.load(answer)


def main(*extras: str) -> None:
    counts = {"clean": 0, "known": 0, "unknown": 0}
    for name in named(list(extras)):
        version = metadata.version(name)
        found = advisories(name, version)
        kind = "unknown" if found is None else "known" if found else "clean"
        counts[kind] += 1
        print(f"{name} {version}: {', '.join(found or [kind])}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    raise SystemExit(counts["known"] > 0)


if __name__ == "__main__":
    parser = command_line.parser(__doc__)
    parser.add_argument("extras", nargs="*", help="Includes the packages of these extras.")
    main(*parser.parse_args().extras)
