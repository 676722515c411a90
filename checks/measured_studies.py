"""The measurements of studies: what their own commands compute, or what they wrote into docs/."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from checks.measures import ROOT, Result, measure, of_model
from janusflow import JanusFlowPipeline
from janusflow.evaluation.intervals import wilson
from studies import editing as edits
from studies import mint
from studies import reward_algorithms as reward_curves
from studies.real_images import alignment as emoji_alignment_study
from studies.real_images import emoji as emoji_study


@measure
def editing() -> Result:
    """Measures how often the packaged editor does exactly as told, 100 edits of each kind."""
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
    """Measures what the packaged model of emoji learned and memorised; draws its sheets."""
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
    """Measures alignment on emoji; twelve runs of 300 steps unless they exist."""
    data, lite0 = fetched()
    words = ("--steps", "300", "--seeds", "3", "--out", str(ROOT / "runs" / "emoji-alignment"))
    asked = emoji_alignment_study.arguments("--data", str(data), "--features", str(lite0), *words)
    study = "python -m studies.real_images.alignment --data emoji --features lite0"
    command = f"{study} --steps 300 --seeds 3"
    note = "64 images a step; a difference's interval is Student's over the seeds."
    return Result(command=command, rows=emoji_alignment_study.table(asked), note=note)


@measure
def reward_algorithms() -> Result:
    """Measures every algorithm on points in the plane, three seeds at equal samples."""
    command = "python -m studies.reward_algorithms --out FILE"
    return Result(command=command, rows=reward_curves.curves())


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
        {"prompts": r["prompts"], "ms per image": round(1000 * median(r["seconds"]) / r["prompts"])}
        for r in stored("scaling")["prompts"]
    ]
    command = "python -m checks.benchmarks.scaling --out docs/scaling.json"
    return Result(command=command, rows=rows, date="2026-11-24")
