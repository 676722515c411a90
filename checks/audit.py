"""Known vulnerabilities of the packages that pyproject names: python -m checks.audit [EXTRA ...]

`pip-audit` asks PyPI for a page of each version. Mirrors may have none, and then it skips a package
and still ends with "No known vulnerabilities found". This falls back to the page of the project,
which speaks of its newest version alone: an older one that is installed is counted as unknown.
What these packages depend on in turn is left to pip-audit. Ends with 1 where something is known.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import tomllib

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
    main(*sys.argv[1:])
