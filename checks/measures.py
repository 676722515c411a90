"""The measurements behind the documents' tables; `checks.results` writes their files."""

from __future__ import annotations

import json
import shlex
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
from janusflow.evaluation.intervals import wilson
from janusflow.scenes import world
from janusflow.utils.devices import use_threads
from janusflow.utils.hub import PACKAGED
from samplers.benchmark import suite
from studies import editing as edits
from studies import few_evaluations as few
from studies import mint
from studies import reward_algorithms as reward_curves
from studies.real_images import alignment as emoji_alignment_study
from studies.real_images import emoji as emoji_study

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


MEASURES: dict[str, Callable[[], Result]] = {}


def measure(function: Callable[[], Result]) -> Callable[[], Result]:
    """Registers a measurement; its file is docs/results/NAME.json."""
    MEASURES[function.__name__.replace("_", "-")] = function
    return function


def fingerprint(model: str) -> str:
    """Returns the fingerprint of a packaged model's weights today."""
    return provenance.fingerprint(provenance.weights(PACKAGED[model]))


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
def editing() -> Result:
    """Measures how often the shipped editor does exactly as told, 100 edits of each kind."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes-edit")
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for kind, share in edits.scores(pipe, 400).items():
        count = 400 if kind == "all" else 100
        low, high = wilson(round(share * count), count)
        rows.append({"edit": kind, "right": [round(share, 3), round(low, 3), round(high, 3)]})
    command = "python -m studies.editing janusflow/scenes-edit --count 400"
    return of_model("janusflow/scenes-edit", command, rows)


@measure
def scenes() -> Result:
    """Measures the shipped model's strict score by quality, on 600 test prompts."""
    rows = []
    for quality in ("exact", "high", "fast", "draft"):
        told = evaluated("--prompts", "100", "--seeds", "1", "--quality", quality)
        test = told["scores"]["test"]
        protocol = told["protocol"]
        row = {"quality": quality, "evaluations": protocol["network_calls"]}
        row["weights"] = protocol.get("generated_by") or "own"
        row |= scored(test["overall"], "strict")
        groups = test["groups"].items()
        rows.append(row | {name: round(g["scores"]["strict"]["score"], 2) for name, g in groups})
    command = "janusflow evaluate --prompts 100 --seeds 1 --quality QUALITY"
    return of_model("janusflow/scenes", command, rows)


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
    """Measures the shipped model's answers by template, on 900 questions."""
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
        told = evaluated("--split", split, "--prompts", "100", "--seeds", "1")
        rows.append({"split": split} | scored(told["scores"][split]["overall"], "strict"))
    command = "janusflow evaluate --split SPLIT --prompts 100 --seeds 1"
    return of_model("janusflow/scenes", command, rows)


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
    return of_model("janusflow/scenes", command, compared(found, columns))


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
    command, found = unified("soft-tifa", "--prompts", "50", "--quality", "draft")
    columns = {name: ("scores", name) for name in ("gm", "right", "am", "atoms")}
    columns |= {name.replace(" ", "_"): ("extra", name) for name in ("gm bias", "am bias")}
    columns |= {"AUROC": ("extra", "gm AUROC")}
    rows = compared(found, columns)
    for row in rows:
        if isinstance(row["AUROC"], float):
            row["AUROC"] = round(row["AUROC"], 3)
    return of_model("janusflow/scenes", command, rows)


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
    return of_model("janusflow/scenes-few", command, rows)


@measure
def few_speed() -> Result:
    """Times the few-step model and the published sampler, alternating on one core."""
    use_threads(1)
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes-few")
    pipe.set_progress_bar_config(disable=True)
    asked = [world.prompt("test", name, i).text for i in range(2) for name in world.CATEGORIES]
    rows = []
    for count in (1, 8):
        found = speed.of_pipeline(pipe, asked[:count], rounds=7)["ways"]
        for way in ("published", "exact", "draft"):
            ratios = [found[way]["faster"], *found[way]["spread"]]
            row = {"images at once": count, "evaluations": found[way]["calls"]}
            row["s an image"] = round(median(found[way]["seconds"]), 4)
            rows.append(row | {"times as fast": [round(x, 1) for x in ratios]})
    command = "janusflow bench speed --model janusflow/scenes-few (1 and 8 prompts, one thread)"
    note = "Parts of a value: the median of seven rounds, the least and the most."
    return of_model("janusflow/scenes-few", command, rows, note)


@measure
def reproduce_scenes() -> Result:
    """Measures the sweep of `janusflow reproduce` with the shipped model and the exact scorer."""
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
def fine_tuning() -> Result:
    """Measures a new colour learned from twenty images, and the old ones; draws its figure too."""
    with tempfile.TemporaryDirectory() as folder:
        found = mint.study(Path(folder))
    mint.figure(found).savefig(ROOT / "docs" / "fine-tuning.png", dpi=200)
    columns = {"shown": "six shapes shown", "unseen": "two never shown", "kept": "old colours"}
    rows = [
        {"training": name} | {title: round(shares[key], 2) for key, title in columns.items()}
        for name, (shares, _) in found.items()
    ]
    return of_model("janusflow/scenes", "python studies/mint.py study FOLDER", rows)


HACKED = (  # of `janusflow reward`
    *("--threads", "1", "--plugin", "studies.weak_rewards", "--reward", "colourful"),
    *("--set", "training.steps=120", "--set", "training.lr=1e-4", "--set", "training.batch=72"),
    *("--set", "training.mixture={generation: 64, understanding: 8}", "--set", "objective.group=8"),
    *("--set", "objective.watch=[strict, second_reader, clean]"),
)


@measure
def reward_hacking() -> Result:
    """Measures what learning from a weak reward does to the requested images."""
    with tempfile.TemporaryDirectory() as out:
        asked = ("reward", "janusflow/scenes", "-o", out, *HACKED)
        subprocess.run([sys.executable, "-m", "janusflow", *asked], check=True, cwd=ROOT)
        return hacking_of(Path(out))


def hacking_of(run: Path) -> Result:
    """Returns means of ten steps of the trained and the watched reward, from the run's log."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rows = []
    for start in range(0, len(log) - 9, 10):
        part = log[start : start + 10]
        row = {"step": start + 10, "colourful": sum(one["reward"] for one in part) / 10}
        for told in ("strict", "second_reader", "clean"):
            row[told] = sum(one[f"watched_{told}"] for one in part) / 10
        rows.append({k: v if k == "step" else round(v, 3) for k, v in row.items()})
    command = f"janusflow reward janusflow/scenes -o RUN {shlex.join(HACKED)}"
    return Result(command=command, rows=rows, note="One seed; 64 images a step.")


EMOJI = ROOT / "runs" / "emoji-data", ROOT / "runs" / "lite0"  # fetched once, never committed


def fetched() -> tuple[Path, Path]:
    """Returns the folders of emoji and of EfficientNet, downloaded if they are not there."""
    data, lite0 = EMOJI
    fetch = [sys.executable, "-m", "janusflow", "data"]
    subprocess.run([*fetch, "emoji", "-o", data, "--size", "64", "--keywords"], check=True)
    subprocess.run([*fetch, "efficientnet", "-o", lite0], check=True)
    return EMOJI


@measure
def emoji() -> Result:
    """Measures what the shipped model of emoji learned and memorised; draws its sheets."""
    data, lite0 = fetched()
    found = emoji_study.measure(
        emoji_study.arguments(
            *("--model", "janusflow/emoji", "--data", str(data), "--features", str(lite0)),
            *("--figures", str(ROOT / "docs" / "emoji")),
        )
    )
    command = (
        "python -m studies.real_images.emoji --model janusflow/emoji --data emoji --features lite0"
    )
    return of_model("janusflow/emoji", command, emoji_study.table(found), found["note"])


@measure
def emoji_alignment() -> Result:
    """Measures alignment on emoji; an hour of a core unless the runs exist."""
    data, lite0 = fetched()
    words = ("--steps", "300", "--seeds", "2", "--out", str(ROOT / "runs" / "emoji-alignment"))
    asked = emoji_alignment_study.arguments("--data", str(data), "--features", str(lite0), *words)
    study = "python -m studies.real_images.alignment --data emoji --features lite0"
    command = f"{study} --steps 300 --seeds 2"
    note = "64 images a step; a difference's interval is Student's over the seeds."
    return Result(command=command, rows=emoji_alignment_study.table(asked), note=note)


@measure
def reward_algorithms() -> Result:
    """Measures every algorithm on points in the plane, three seeds at equal samples."""
    command = "python -m studies.reward_algorithms --out FILE"
    return Result(command=command, rows=reward_curves.curves())


@measure
def samplers_suite() -> Result:
    """Measures `auto` against the best peer of every cell, on fields that no choice was made on."""
    page = suite.run(halves=["held-out"])
    command = "python -m samplers.benchmark --suite held-out"
    return Result(command=command, rows=page.rows(), probe=suite.probe())


@measure
def shipped_fields() -> Result:
    """`auto` over the best peer at 8 evaluations, on fields of the shipped model."""
    rows = [row for row in shipped.page([8]).rows() if row["grid"] == "own"]
    command = "python -m checks.shipped_fields 8"
    return of_model(shipped.MODEL, command, [r for r in rows if "guided" in r["family"]])


def stored(name: str) -> dict:
    """Returns a summary that a study or a check wrote into docs/."""
    return json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))


ALIGNMENT = dict(command="python -m studies.alignment.run --out runs/alignment", date="2026-11-23")


@measure
def alignment() -> Result:
    """Returns the last point of every arm of docs/alignment.json, with differences to `none`."""
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
    """Returns CKNNA with the vision encoder at t = 0.5 by block, of docs/alignment.json."""
    rows = []
    for arm, entry in stored("alignment")["arms"].items():
        blocks = {f"block {k}": round(v, 3) for k, v in enumerate(entry["cknna"], 1)}
        rows.append({"arm": arm} | blocks)
    return Result(rows=rows, **ALIGNMENT)


@measure
def scaling() -> Result:
    """Returns milliseconds per image by number of prompts, of docs/scaling.json."""
    rows = [
        {"prompts": r["prompts"], "ms an image": round(1000 * median(r["seconds"]) / r["prompts"])}
        for r in stored("scaling")["prompts"]
    ]
    command = "python -m checks.benchmarks.scaling --out docs/scaling.json"
    return Result(command=command, rows=rows, date="2026-11-24")
