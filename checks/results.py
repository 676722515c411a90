"""Every number of the documents: measured into files, and tables rendered from these files.

    python -m checks.results measure                 # all of them, some minutes on two cores
    python -m checks.results measure scenes questions
    python -m checks.results render                  # README, cards and pages from the files

A page asks for a table or one value with comments that stay in its source:

    <!-- table: scenes [columns: quality, evaluations, strict] [where: quality=fast] -->
    <!-- /table -->
    <!-- value: scenes strict where: quality=fast -->0.777<!-- /value -->

A file names the command, machine, versions and, where a model was measured, the fingerprint of its
weights; `tests/docs/test_results.py` fails for tables and files that today's weights left behind.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from janusflow.evaluation import provenance
from janusflow.utils.hub import PACKAGED
from samplers.benchmark import suite
from studies import few_evaluations as few

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
    r"<!-- value: (?P<name>[\w-]+) (?P<column>\S+)(?: where: (?P<where>.*?))? -->"
    r"(?P<body>.*?)<!-- /value -->",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured table: `rows` are dictionaries; `low` and `high` columns are a 95 % interval,
    as are the last two of a value in three parts."""

    command: str
    rows: list[dict]
    model: str | None = None
    fingerprint: str | None = None
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
    note: str = ""


MEASURES: dict[str, Callable[[], Result]] = {}


def measure(function: Callable[[], Result]) -> Callable[[], Result]:
    """Registers a measurement; its file is docs/results/NAME.json."""
    MEASURES[function.__name__.replace("_", "-")] = function
    return function


def fingerprint(model: str) -> str:
    """Of a packaged model's weights today."""
    return provenance.fingerprint(provenance.weights(PACKAGED[model]))


def evaluated(*words: str) -> dict:
    """What `janusflow evaluate WORDS --json` says."""
    return reported("evaluate", *words)


def reported(*words: str) -> dict:
    """What a command of janusflow says with --json, in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "janusflow", *words, "--json", "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def scored(values: dict, measure: str) -> dict:
    """A score with its interval, rounded."""
    found = values["scores"][measure]
    return {
        measure: round(found["score"], 3),
        "low": round(found["low"], 3),
        "high": round(found["high"], 3),
    }


def of_model(model: str, command: str, rows: list[dict], note: str = "") -> Result:
    return Result(
        command=command, rows=rows, model=model, fingerprint=fingerprint(model), note=note
    )


@measure
def scenes() -> Result:
    """Strict score of the shipped model by quality, 600 test prompts."""
    rows = []
    for quality in ("exact", "high", "fast", "draft"):
        told = evaluated("--prompts", "100", "--seeds", "1", "--quality", quality)
        test = told["scores"]["test"]
        row = {"quality": quality, "evaluations": told["protocol"]["network_calls"]}
        row |= scored(test["overall"], "strict")
        groups = test["groups"].items()
        rows.append(row | {name: round(g["scores"]["strict"]["score"], 2) for name, g in groups})
    command = "janusflow evaluate --prompts 100 --seeds 1 --quality QUALITY"
    return of_model("janusflow/scenes", command, rows)


@measure
def questions() -> Result:
    """Answers of the shipped model by template, 900 questions."""
    words = ("--task", "scenes-vqa", "--prompts", "100", "--batch-size", "64")
    test = evaluated(*words)["scores"]["test"]
    parts = {"overall": test["overall"], **test["groups"]}
    rows = [{"template": name} | scored(part, "exact") for name, part in parts.items()]
    return of_model("janusflow/scenes", f"janusflow evaluate {' '.join(words)}", rows)


@measure
def held_out_splits() -> Result:
    """Strict score on the splits that training never shows."""
    rows = []
    for split in ("pairs", "counts", "relations", "long", "paraphrases"):
        told = evaluated("--split", split, "--prompts", "100", "--seeds", "1")
        rows.append({"split": split} | scored(told["scores"][split]["overall"], "strict"))
    command = "janusflow evaluate --split SPLIT --prompts 100 --seeds 1"
    return of_model("janusflow/scenes", command, rows)


def unified(task: str, *words: str) -> tuple[str, dict]:
    """The command of a task of unification, and what it found: groups, and all of them."""
    words = ("--task", task, "--seeds", "1", *words)
    test = evaluated(*words)["scores"]["test"]
    return f"janusflow evaluate {' '.join(words)}", {**test["groups"], "all": test["overall"]}


def bracketed(entry: dict) -> list[float]:
    return [round(entry[name], 3) for name in ("score", "low", "high")]


def compared(found: dict, columns: dict[str, tuple[str, str]]) -> list[dict]:
    """A row a group: `columns` names an entry by the part of the group it stands in."""
    rows = []
    for group, entry in found.items():
        known = {c: entry[part].get(name) for c, (part, name) in columns.items()}
        cells = {c: bracketed(e) if isinstance(e, dict) else e for c, e in known.items()}
        rows.append({"group": group} | {c: "-" if e is None else e for c, e in cells.items()})
    return rows


@measure
def telephone() -> Result:
    """What is left of a prompt after each cycle, and what the model's captions say is left."""
    command, found = unified("telephone", "--prompts", "25", "--quality", "fast")
    columns = {name: ("scores", name) for name in ("kept", "said")} | {"bias": ("extra", "bias")}
    return of_model("janusflow/scenes", command, compared(found, columns))


@measure
def symmetric() -> Result:
    """How often answers fit each other, and how often they are right."""
    command, found = unified("symmetric", "--prompts", "100", "--batch-size", "64")
    columns = {name: ("scores", name) for name in ("consistent", "right")}
    columns |= {name: ("extra", name) for name in ("bias", "false+")}
    return of_model("janusflow/scenes", command, compared(found, columns))


@measure
def soft_tifa() -> Result:
    """Soft-TIFA by the model itself beside the exact scorer."""
    command, found = unified("soft-tifa", "--prompts", "50", "--quality", "draft")
    columns = {name: ("scores", name) for name in ("gm", "right", "am", "atoms")}
    columns |= {name: ("extra", name) for name in ("gm bias", "am bias", "gm AUROC")}
    rows = compared(found, columns)
    for row in rows:
        if isinstance(row["gm AUROC"], float):
            row["gm AUROC"] = round(row["gm AUROC"], 3)
    return of_model("janusflow/scenes", command, rows)


@measure
def few_evaluations() -> Result:
    """The few-step model and its teacher on equal prompts, with distinct layouts of a prompt."""
    rows = []
    for model, ways in (
        ("janusflow/scenes-few", ("map:4", "map:2", "map:1")),
        ("janusflow/scenes", ("fast", "abm:8", "abm:4")),
    ):
        for way in ways:
            told = few.scored(model, way, 600, 1)
            low, high = told["interval"]
            strict = {"strict": round(told["strict"], 3), "low": round(low, 3)}
            strict["high"] = round(high, 3)
            various = few.scored(model, way, 60, 8)["layouts"]
            row = {"model": model, "way": way, "evaluations": round(told["evaluations"])}
            row |= strict | {"layouts": round(various, 3)}
            rows.append(row | {n: round(v, 2) for n, v in told["by_category"].items()})
    command = (
        "python -m studies.few_evaluations MODEL --ways WAYS --prompts 600 (layouts: --prompts 60 "
        "--seeds 8)"
    )
    return of_model("janusflow/scenes-few", command, rows)


@measure
def reproduce_scenes() -> Result:
    """The sweep of `janusflow reproduce`, on the shipped model and the exact scorer."""
    words = ["reproduce", "scenes", "--model", "janusflow/scenes", "--prompts", "16"]
    words += ["--dtype", "float32,bfloat16", "--guidance-scale", "2,1,5", "--steps", "30,10"]
    rows = [
        {"setting": row["name"], "score": bracketed(row)}
        | {"- first": f"{row['difference']:+.3f}" if "difference" in row else "-"}
        | {"p": f"{row['p']:.3f}" if "p" in row else "-"}
        for row in reported(*words)["settings"]
    ]
    return of_model("janusflow/scenes", f"janusflow {' '.join(words)}", rows)


@measure
def samplers_suite() -> Result:
    """`auto` over the best peer of every cell, on fields that no choice was made on."""
    page = suite.run(halves=["held-out"])
    return Result(command="python -m samplers.benchmark --suite held-out", rows=page.rows())


def stored(name: str) -> dict:
    """A summary that a study or a check wrote into docs/."""
    return json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))


ALIGNMENT = dict(command="python -m studies.alignment.run --out runs/alignment", date="2026-11-23")


@measure
def alignment() -> Result:
    """The last point of every arm of docs/alignment.json, with differences to `none` by seed."""
    rows = []
    for arm, entry in stored("alignment")["arms"].items():
        curves, row = entry["curves"], {"arm": arm}
        for name, column in (("color", "colour"), ("strict", "strict score")):
            row[column] = [round(curves[name][part][-1], 2) for part in ("mean", "low", "high")]
        row["held-out loss"] = round(curves["held_out"]["mean"][-1], 4)
        row["gap of a wrong prompt"] = round(curves["gap"]["mean"][-1], 2)
        rows.append(row)
    return Result(rows=rows, **ALIGNMENT)


@measure
def alignment_blocks() -> Result:
    """CKNNA with the vision encoder at t = 0.5, by block, of docs/alignment.json."""
    rows = []
    for arm, entry in stored("alignment")["arms"].items():
        blocks = {f"block {k}": round(v, 3) for k, v in enumerate(entry["cknna"], 1)}
        rows.append({"arm": arm} | blocks)
    return Result(rows=rows, **ALIGNMENT)


@measure
def scaling() -> Result:
    """Milliseconds an image by number of prompts, of docs/scaling.json."""
    rows = [
        {"prompts": r["prompts"], "ms an image": round(1000 * median(r["seconds"]) / r["prompts"])}
        for r in stored("scaling")["prompts"]
    ]
    command = "python -m checks.benchmarks.scaling --out docs/scaling.json"
    return Result(command=command, rows=rows, date="2026-11-24")


def write(name: str, result: Result) -> None:
    """A result that has its date already is read again, not measured on this machine."""
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
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def load(name: str) -> dict:
    """A results file; ValueError if there is none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RESULTS.glob("*.json")))
        raise ValueError(f"no results named {name!r}; there are {known}")
    return json.loads(path.read_text(encoding="utf-8"))


def select(rows: list[dict], where: str | None) -> list[dict]:
    """Rows whose values are those of "column=value, column=value"."""
    wanted = [part.split("=", 1) for part in (where or "").split(",") if part.strip()]
    return [r for r in rows if all(str(r.get(k.strip())) == v.strip() for k, v in wanted)]


def cell(row: dict, column: str) -> str:
    """A value as the documents write it; with its interval where the row has one for it."""
    value = row.get(column, "")
    if "low" in row and column == next((k for k in row if k in ("strict", "exact")), None):
        return f"{value:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    if isinstance(value, list):
        score, low, high = value
        return f"{score:g} [{low:g}, {high:g}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(name: str, columns: str | None, where: str | None) -> str:
    """A Markdown table of a results file and the command behind it."""
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
    """A page with its tables and values as the files have them; ValueError says what is missing."""

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
    """Why a results file no longer holds, or None."""
    told = load(name)
    model = told.get("model")
    if model and told["fingerprint"] != fingerprint(model):
        return f"{name} was measured on other weights of {model}; measure it again"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["measure", "render"])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEASURES)}; all unless named")
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
