"""Measures every number of the documents into files, and renders the tables from these files.

    python -m checks.results measure                 # all of them, some minutes on two cores
    python -m checks.results measure scenes questions
    python -m checks.results render                  # README, cards and pages from the files

A page asks for a table or one value with comments that stay in its source:

    <!-- table: scenes [columns: quality, evaluations, strict] [where: quality=exact] -->
    <!-- /table -->
    <!-- value: scenes strict where: quality=exact -->0.865<!-- /value -->

A file names the command, machine, versions and, where a model was measured, the fingerprint of its
weights; `tests/docs/test_results.py` fails for tables and files that today's weights left behind.
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from dataclasses import asdict
from pathlib import Path

from checks import measured_studies  # noqa: F401 (registers its measurements)
from checks.measures import MEASURES, Result, fingerprint
from janusflow.evaluation import provenance
from samplers import command_line
from samplers.benchmark import suite

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "janusflow" / "weights").glob("*/README.md")),
)
TABLE = re.compile(
    r"<!-- table: (?P<name>[\w-]+)"
    r"(?: columns: (?P<columns>[^:]*?))?(?: where: (?P<where>.*?))? -->\n"
    r"(?P<body>.*?)<!-- /table -->",
    re.DOTALL,
)
VALUE = re.compile(
    r"<!-- value: (?P<name>[\w-]+) (?P<column>[^>]+?)(?: where: (?P<where>.*?))? -->"
    r"(?P<body>.*?)<!-- /value -->",
    re.DOTALL,
)


def write(name: str, result: Result) -> None:
    """Writes a results file; a result that has a date already was read, not measured here."""
    now = {
        "machine": f"{platform.machine()}, {processor()}",
        "versions": provenance.versions() | {"python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
    }
    stamped = asdict(result) | ({} if result.date else now)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(stamped, indent=1) + "\n", encoding="utf-8")


def processor() -> str:
    """Returns the processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def load(name: str) -> dict:
    """Returns a results file's content. Raises ValueError if there is none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RESULTS.glob("*.json")))
        raise ValueError(f"no results named {name!r}; there are {known}")
    return json.loads(path.read_text(encoding="utf-8"))


def select(rows: list[dict], where: str | None) -> list[dict]:
    """Returns the rows whose values are those of "column=value, column=value"."""
    wanted = [part.split("=", 1) for part in (where or "").split(",") if part.strip()]
    return [r for r in rows if all(str(r.get(k.strip())) == v.strip() for k, v in wanted)]


def cell(row: dict, column: str) -> str:
    """Returns a value as the documents write it, with its interval if the row has one."""
    value = row.get(column, "")
    if "low" in row and column == next((k for k in row if k in ("strict", "exact")), None):
        return f"{value:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    if isinstance(value, list):
        score, low, high = value
        return f"{score:g} [{low:g}, {high:g}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(name: str, columns: str | None, where: str | None) -> str:
    """Returns a Markdown table of a results file, and the command behind it."""
    told = load(name)
    rows = select(told["rows"], where)
    if not rows:
        raise ValueError(f"{name} has no row where {where}")
    shown = [c.strip() for c in columns.split(",")] if columns else list(rows[0])
    shown = [c for c in shown if c not in ("low", "high")]
    if missing := [c for c in shown if not any(c in row for row in rows)]:
        raise ValueError(f"{name} has no column {missing[0]!r}; it has {', '.join(rows[0])}")
    lines = ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    lines += ["| " + " | ".join(cell(row, c) for c in shown) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n`{told['command']}`\n"


def rendered(text: str) -> str:
    """Returns a page with the files' tables and values. Raises ValueError for a missing one."""

    def new_table(match: re.Match) -> str:
        head = match[0][: match[0].index("-->") + 3]
        return f"{head}\n{table(match['name'], match['columns'], match['where'])}<!-- /table -->"

    def new_value(match: re.Match) -> str:
        rows = select(load(match["name"])["rows"], match["where"])
        if len(rows) != 1 or match["column"] not in rows[0]:
            raise ValueError(
                f"{match['name']} has not one {match['column']} where {match['where']}"
            )
        head = match[0][: match[0].index("-->") + 3]
        return f"{head}{cell(rows[0], match['column'])}<!-- /value -->"

    return VALUE.sub(new_value, TABLE.sub(new_table, text))


def stale(name: str) -> str | None:
    """Returns why a results file no longer holds, or None."""
    told = load(name)
    model = told.get("model")
    if model and told["fingerprint"] != fingerprint(model):
        return f"{name} was measured on other weights of {model}; measure it again"
    if (before := told.get("probe")) and not _near(before, suite.probe()):
        return f"{name} was measured with another solver; measure it again"
    return None


def _near(before: list[float], now: list[float]) -> bool:
    """Returns whether values are equal to a thousandth, which is more than machines differ by."""
    return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(before, now, strict=True))


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "what",
        choices=["measure", "render"],
        help="Measures the results, or renders the tables of the documents from them.",
    )
    parser.add_argument(
        "names", nargs="*", help=f"Measures these of {', '.join(MEASURES)}; by default all."
    )
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in MEASURES]:
        parser.error(f"no measurement named {unknown[0]!r}; choose from {', '.join(MEASURES)}")
    if args.what == "measure":
        for name in args.names or MEASURES:
            write(name, MEASURES[name]())
            print(f"docs/results/{name}.json", flush=True)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := rendered(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
