"""Runs evaluations: a plan, a folder with the generated answers, and a report.

A task writes its answers into the folder piece by piece and scores the folder. Anyone with the
folder can score it again, and an interrupted run resumes with what is missing.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache
from pathlib import Path

from janusflow.evaluation import intervals, provenance
from janusflow.evaluation import plan as plans
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import share, wait
from janusflow.evaluation.task import Item, Task
from janusflow.evaluation.tasks import find
from janusflow.utils.locked_dir import alone, drop


def run(load: Callable, plan: Plan, folder: Path, settings: dict) -> dict | None:
    """Generates what the folder lacks and returns the report, in the first process only.

    `load()` returns the pipeline and is called only if something is missing; `settings` go to the
    pipeline's call. Raises ValueError if the folder has answers of other weights or settings, or is
    in use.
    """
    started, kind, first = time.time(), find(plan.task), share()[0] == 0
    plans.check_folder(folder)
    with alone(folder) if first else nullcontext():
        if first:
            plans.claim(plan, folder, kind.fields)
            for part in folder.rglob(".*.part"):  # of a run that was killed while it wrote
                drop(part)
        wait()
        kind.make(cache(load), plan, folder, settings)
        wait()
        return report(plan, folder, started) if first else None


def rescore(folder: Path) -> dict:
    """Returns a folder's report without the model. Raises ValueError if answers are missing."""
    return report(plans.read(folder), folder, time.time())


def report(plan: Plan, folder: Path, started: float) -> dict:
    """Returns protocol, scores with intervals and all items; equal runs differ only in `times`."""
    kind = find(plan.task)
    sources, made = kind.score(plan, folder)
    items = sources.get("model", [])
    splits = dict.fromkeys(item.split for item in items)
    scores = {split: _summary(sources, split, kind.extra) for split in splits}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    return {
        "protocol": protocol(plan, kind) | made,
        "scores": kind.whole(plan, folder) if kind.whole else scores,
        "items": [asdict(item) for item in items],
        "times": {"started": stamp, "seconds": round(time.time() - started, 1)},
    }


def protocol(plan: Plan, kind: Task) -> dict:
    """Returns everything that others need to get the same numbers."""
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(plan).items()}
    told = {name: values[name] for name in ("task", "model", *kind.fields)}
    if "guidance" in told:
        told["guided_between"] = guided_between(plan.guidance)
    return told | {
        "weights": plan.weights,
        "fingerprint": plan.fingerprint,
        "evaluator": provenance.evaluator(),
        "packages": provenance.versions(),
    }


def guided_between(guidance: str) -> list[float]:
    """Returns between which times a rule guides: [0, 1], or the interval of `guidance_interval`."""
    name, _, numbers = guidance.partition(":")
    if name not in ("guidance_interval", "within"):
        return [0.0, 1.0]
    given = [float(number) for number in numbers.split(",")[1:3]]
    return given + [0.1, 0.9][len(given) :]


def _summary(sources: dict[str, list[Item]], split: str, extra) -> dict:
    """Returns the model's scores and intervals, overall and per group, and other sources'."""
    here = {name: [i for i in items if i.split == split] for name, items in sources.items()}
    names = list(dict.fromkeys(item.group for item in here["model"]))
    groups = {
        source: {name: [i for i in items if i.group == name] for name in names}
        for source, items in here.items()
    }
    measures = list(here["model"][0].scores)
    return {
        "overall": _overall(groups, measures) | {"extra": extra(here["model"])},
        "groups": {name: _group({s: g[name] for s, g in groups.items()}, extra) for name in names},
    }


def _mean(items: Sequence[Item], measure: str) -> float:
    return sum(item.scores[measure] for item in items) / len(items)


def _group(sources: dict[str, list[Item]], extra) -> dict:
    items = sources["model"]
    clusters = [item.cluster for item in items]
    scores = {}
    for measure in items[0].scores:
        low, high = intervals.share([i.scores[measure] for i in items], clusters)
        scores[measure] = {"score": _mean(items, measure), "low": low, "high": high}
    beside = {
        source: {measure: _mean(own, measure) for measure in own[0].scores}
        for source, own in sources.items()
        if source != "model" and own
    }
    counts = {"items": len(items), "texts": len(set(clusters))}
    return {"scores": scores, "beside": beside, "extra": extra(items)} | counts


def _overall(groups: dict[str, dict[str, list[Item]]], measures: list[str]) -> dict:
    """Returns the mean of the groups' means, with a bootstrap interval over whole texts."""
    own = groups["model"].values()
    scores = {}
    for measure in measures:
        low, high = intervals.overall(
            [([i.scores[measure] for i in g], [i.cluster for i in g]) for g in own]
        )
        mean = sum(_mean(g, measure) for g in own) / len(own)
        scores[measure] = {"score": mean, "low": low, "high": high}
    beside = {
        source: {
            measure: sum(_mean(g, measure) for g in parts.values()) / len(parts)
            for measure in measures
        }
        for source, parts in groups.items()
        if source != "model" and all(parts.values())
    }
    return {"scores": scores, "beside": beside, "items": sum(len(g) for g in own)}
