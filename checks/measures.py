"""The measurements behind the documents' tables; `checks.results` writes their files."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from checks import shipped_fields as shipped
from janusflow import JanusFlowPipeline
from janusflow.bench import speed
from janusflow.evaluation import provenance
from janusflow.scenes import world
from janusflow.utils.devices import use_threads
from janusflow.utils.hub import PACKAGED
from samplers.benchmark import suite
from studies import best_of_n as best
from studies import few_evaluations as few

ROOT = Path(__file__).resolve().parent.parent


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
    probe: list[float] | None = None  # what `suite.probe` said then


FAST = "janusflow/scenes + janusflow/scenes-few"  # which generates the first one's fast images
MEASURES: dict[str, Callable[[], Result]] = {}


def measure(function: Callable[[], Result]) -> Callable[[], Result]:
    """Registers a measurement; its file is docs/results/NAME.json."""
    MEASURES[function.__name__.replace("_", "-")] = function
    return function


def fingerprint(models: str) -> str:
    """Returns the fingerprint of today's weights of a packaged model, or of several: "A + B"."""
    first, *others = models.split(" + ")
    found = provenance.weights(PACKAGED[first])
    for model in others:
        told = provenance.weights(PACKAGED[model])
        found |= {f"{model}/{name}": digest for name, digest in told.items()}
    return provenance.fingerprint(found)


def evaluated(*words: str) -> dict:
    """Returns what `janusflow evaluate WORDS --json` prints."""
    return reported("evaluate", *words)


def reported(*words: str) -> dict:
    """Returns what a command of janusflow prints with --json, in a folder that is deleted."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "janusflow", *words, "--json", "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def scored(values: dict, measure: str) -> dict:
    """Returns a score with its interval, rounded."""
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
    """Measures the packaged model's strict score by quality, on 600 test prompts."""
    rows = []
    for quality, n in (("exact", 1), ("high", 1), ("fast", 1), ("draft", 1), ("fast", 4)):
        words = ("--prompts", "100", "--seeds", "1", "--quality", quality, "--best-of", str(n))
        told = evaluated(*words)
        test = told["scores"]["test"]
        protocol = told["protocol"]
        row = {"quality": quality, "best of": n, "evaluations": protocol["network_calls"]}
        row["weights"] = protocol.get("generated_by") or "own"
        row |= scored(test["overall"], "strict")
        groups = test["groups"].items()
        rows.append(row | {name: round(g["scores"]["strict"]["score"], 2) for name, g in groups})
    command = "janusflow evaluate --prompts 100 --seeds 1 --quality QUALITY --best-of N"
    return of_model(FAST, command, rows)


@measure
def best_of_n() -> Result:
    """Measures best-of-n sampling by the model's own verifiers, on 600 test prompts."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    names = ("own", "caption")
    rows = best.table(*best.candidates(pipe, "fast", best.asked(600), 8, names))
    command = "python -m studies.best_of_n janusflow/scenes --verifiers own caption"
    return of_model(FAST, command, rows)


@measure
def scenes_pro() -> Result:
    """Measures the small Janus-Pro's strict score by guidance, on 120 test prompts."""
    rows = []
    for scale in ("1", "1.5", "2", "5"):
        words = ("--model", "janusflow/scenes-pro", "--prompts", "20", "--seeds", "1")
        told = evaluated(*words, "--guidance-scale", scale)
        test = told["scores"]["test"]
        row = {"guidance": scale} | scored(test["overall"], "strict")
        groups = test["groups"].items()
        rows.append(row | {name: round(g["scores"]["strict"]["score"], 2) for name, g in groups})
    command = "janusflow evaluate --model janusflow/scenes-pro --prompts 20 --seeds 1"
    return of_model("janusflow/scenes-pro", f"{command} --guidance-scale SCALE", rows)


@measure
def questions() -> Result:
    """Measures the packaged model's answers by template, on 900 questions."""
    words = ("--task", "scenes-vqa", "--prompts", "100", "--batch-size", "64")
    test = evaluated(*words)["scores"]["test"]
    parts = {"overall": test["overall"], **test["groups"]}
    rows = [{"template": name} | scored(part, "exact") for name, part in parts.items()]
    return of_model("janusflow/scenes", f"janusflow evaluate {' '.join(words)}", rows)


@measure
def held_out_splits() -> Result:
    """Measures the strict score on the splits that training never shows."""
    rows = []
    for split in ("pairs", "counts", "relations", "long", "paraphrases"):
        words = ("--split", split, "--prompts", "100", "--seeds", "1")
        row = {"split": split} | scored(evaluated(*words)["scores"][split]["overall"], "strict")
        told = evaluated(*words, "--quality", "fast", "--best-of", "4")["scores"][split]
        rows.append(row | {"best of 4": bracketed(told["overall"]["scores"]["strict"])})
    command = (
        "janusflow evaluate --split SPLIT --prompts 100 --seeds 1 (--quality fast --best-of 4)"
    )
    return of_model(FAST, command, rows)


def unified(task: str, *words: str) -> tuple[str, dict]:
    """Returns the command of a task of unification, and its results by group and overall."""
    words = ("--task", task, "--seeds", "1", *words)
    test = evaluated(*words)["scores"]["test"]
    return f"janusflow evaluate {' '.join(words)}", {**test["groups"], "all": test["overall"]}


def bracketed(entry: dict) -> list[float]:
    return [round(entry[name], 3) for name in ("score", "low", "high")]


def compared(found: dict, columns: dict[str, tuple[str, str]]) -> list[dict]:
    """Returns a row for each group; `columns` names an entry by its part of the group."""
    rows = []
    for group, entry in found.items():
        known = {c: entry[part].get(name) for c, (part, name) in columns.items()}
        cells = {c: bracketed(e) if isinstance(e, dict) else e for c, e in known.items()}
        rows.append({"group": group} | {c: "-" if e is None else e for c, e in cells.items()})
    return rows


@measure
def telephone() -> Result:
    """Measures what is left of a prompt after each cycle, by the scorer and by the captions."""
    command, found = unified("telephone", "--prompts", "25", "--quality", "fast")
    columns = {name: ("scores", name) for name in ("kept", "said")} | {"bias": ("extra", "bias")}
    return of_model(FAST, command, compared(found, columns))


@measure
def symmetric() -> Result:
    """Measures how often answers are consistent, and how often they are right."""
    command, found = unified("symmetric", "--prompts", "100", "--batch-size", "64")
    columns = {name: ("scores", name) for name in ("consistent", "right")}
    columns |= {name: ("extra", name) for name in ("bias", "false+")}
    return of_model("janusflow/scenes", command, compared(found, columns))


@measure
def soft_tifa() -> Result:
    """Measures Soft-TIFA by the model itself and by the exact scorer."""
    command, found = unified("soft-tifa", "--prompts", "50", "--quality", "fast")
    columns = {name: ("scores", name) for name in ("gm", "right", "am", "atoms")}
    columns |= {name.replace(" ", "_"): ("extra", name) for name in ("gm bias", "am bias")}
    columns |= {"AUROC": ("extra", "gm AUROC")}
    rows = compared(found, columns)
    for row in rows:
        if isinstance(row["AUROC"], float):
            row["AUROC"] = round(row["AUROC"], 3)
    return of_model(FAST, command, rows)


@measure
def few_evaluations() -> Result:
    """Measures the few-step model and its teacher on equal prompts, with distinct layouts."""
    rows = []
    for model, ways in (
        ("janusflow/scenes-few", ("map:4", "map:2", "map:1")),
        ("janusflow/scenes", ("exact", "fast", "abm:8", "abm:4")),
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
    return of_model(FAST, command, rows)


ROUNDS = "Parts of a value: the median of seven rounds, the least and the most."


def timed(model: str, **how) -> list[dict]:
    """Returns a row for each way of generating 1 and 8 images at once, alternating on one core."""
    use_threads(1)
    pipe = JanusFlowPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    asked = [world.prompt("test", name, i).text for i in range(2) for name in world.CATEGORIES]
    rows = []
    for count in (1, 8):
        found = speed.of_pipeline(pipe, asked[:count], rounds=7, **how)["ways"]
        for way, told in found.items():
            row = {"images at once": count, "way": way, "evaluations": told["calls"]}
            row["seconds per image"] = round(median(told["seconds"]), 4)
            row["times as fast"] = [round(x, 1) for x in (told["faster"], *told["spread"])]
            rows.append(row | {"error": round(told["error"], 3)})
    return rows


@measure
def few_speed() -> Result:
    """Times the few-step model and the published sampler, alternating on one core."""
    rows = []
    for row in timed("janusflow/scenes-few", compile=True):
        way, _, compiled = row.pop("way").partition(", ")
        del row["error"]
        if way in ("published", "exact", "draft"):
            told = {"images at once": row.pop("images at once"), "evaluations": row["evaluations"]}
            rows.append(told | {"compiled": "yes" if compiled else "no"} | row)
    command = (
        "janusflow bench speed --model janusflow/scenes-few --compile (1 and 8 prompts, one thread)"
    )
    return of_model("janusflow/scenes-few", command, rows, ROUNDS)


@measure
def quality_speed() -> Result:
    """Times the qualities of the packaged model and the published sampler, alternating on one core.

    Three are also measured compiled.
    """
    rows = timed("janusflow/scenes", compile=True)
    command = "janusflow bench speed --compile (1 and 8 prompts, one thread)"
    return of_model(FAST, command, rows, ROUNDS)


@measure
def reproduce_scenes() -> Result:
    """Measures the sweep of `janusflow reproduce` with the packaged model and the exact scorer."""
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
    """Measures `auto` against the best peer of every cell, on fields that no choice was made on."""
    page = suite.run(halves=["held-out"])
    command = "python -m samplers.benchmark --suite held-out"
    return Result(command=command, rows=page.rows(), probe=suite.probe())


@measure
def shipped_fields() -> Result:
    """`auto` over the best peer at 8 evaluations, on fields of the packaged model."""
    rows = [row for row in shipped.page([8]).rows() if row["grid"] == "own"]
    command = "python -m checks.shipped_fields 8"
    return of_model(shipped.MODEL, command, [r for r in rows if "guided" in r["family"]])
