"""Checks what changed when a run resumes: its settings, its data, and the initial weights.

Settings that decide which tensors are trained must stay. Learning rates, schedules, shares,
densities and lengths may change; the change applies from the current step on and is recorded in the
settings.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from janusflow.data.dataset_report import first_difference
from janusflow.training.config import FIXED, Settings
from janusflow.training.recipes import BOUNDED, Recipe
from janusflow.utils.safe_io import parse_object

NETWORK = (*(n for n in BOUNDED if n != "vision_batch"), "whitening", "init_std", "alignment_depth")
SECTIONS = ("training", "alignment", "adapter", "objective")
START = "choose another --out, or begin there with these weights by --init-from"


def continued(asked: Settings, before: Settings, step: int, out: Path) -> tuple[Settings, dict]:
    """Returns the settings with which a run continues at `step`, and the changes as {"training.lr":
    (old, new)}.

    `before` are the run's settings and `asked` the requested ones. Raises ValueError for a change
    that is not allowed.
    """
    if step == 0:  # nothing was learnt yet
        return asked, {}
    now, wanted = before.at(step), asked.at(step)
    changes = dict(_differences(now, wanted))
    for name, (old, new) in changes.items():
        if not may_change(name, old, new):
            raise ValueError(
                f"{out} holds a run of other settings ({name} is {old!r} there, {new!r} here); "
                f"{START}"
            )
    later = {first: own for first, own in before.later.items() if first <= step}
    given = {name: new for name, (_, new) in changes.items() if not name.startswith("data.")}
    if given:
        later[step] = later.get(step, {}) | given
    later |= {first: own for first, own in asked.later.items() if first > step}
    return replace(before, data=asked.data, run=asked.run, later=later), changes


def may_change(name: str, old, new) -> bool:
    """Whether a run may resume after this setting changed from old to new.

    The weight of an alignment may not become 0 or rise from 0, where the run has no projector.
    """
    section, _, key = name.partition(".")
    if not key or section in ("adapter", "objective"):
        return False
    if name == "alignment.weight":
        return bool(old) == bool(new)
    return key not in FIXED.get(section, ())


def _differences(now: Settings, wanted: Settings):
    for section in SECTIONS:
        ours, theirs = (_as_dict(getattr(each, section, None)) for each in (now, wanted))
        if ours is None or theirs is None:
            if ours != theirs:
                yield section, (_short(ours), _short(theirs))
            continue
        for key in theirs:
            if ours.get(key) != theirs[key]:
                yield f"{section}.{key}", (ours.get(key), theirs[key])
    if now.data.centered != wanted.data.centered:
        yield "data.crop", (now.data.crop, wanted.data.crop)
    for key in ("weights", "streaming", "buffer", "min_side"):
        old, new = getattr(now.data, key), getattr(wanted.data, key)
        if old != new:
            yield f"data.{key}", (old, new)


def _as_dict(section) -> dict | None:
    if section is None or isinstance(section, Mapping):
        return section
    return asdict(section)


def _short(section: dict | None) -> str:
    return "none" if section is None else "set"


def guard(ours: Mapping[str, str], theirs: Mapping[str, str], allow: tuple[str, ...], out: Path):
    """Raises ValueError if initial weights or data differ from those that the run started with.

    `run.allow` permits differences. What an older checkpoint does not record is not compared.
    """
    both = ours.keys() & theirs.keys()
    if "recipe" in both:
        mine, before = (asdict(Recipe.from_json(x["recipe"])) for x in (ours, theirs))
        for name in NETWORK:
            if mine[name] != before[name]:
                raise ValueError(
                    f"{out} holds a run of another network ({name} is {before[name]} there, "
                    f"{mine[name]} here); choose another --out"
                )
    if "base" in both and ours["base"] != theirs["base"] and "model" not in allow:
        raise ValueError(
            f"{out} holds a run that began with other weights than this model has; give the same "
            f"--model, {START}, or resume anyway with --set run.allow=model"
        )
    if "teacher" in both and ours["teacher"] != theirs["teacher"]:
        raise ValueError(f"{out} holds a run of another teacher; give the same model, {START}")
    if "prompts" in both and ours["prompts"] != theirs["prompts"] and "data" not in allow:
        raise ValueError(
            f"{out} holds a run on prompts in the shares {theirs['prompts']!r}, not "
            f"{ours['prompts']!r}; give the same --categories, or resume anyway with --set "
            "run.allow=data"
        )
    if "data" in both and "data" not in allow:
        read = (
            parse_object(x, Path("a checkpoint's data")) for x in (ours["data"], theirs["data"])
        )
        if wrong := first_difference(*read):
            raise ValueError(
                f"{out} holds a run on other data ({wrong}); give the same --data, {START}, or "
                "resume anyway with --set run.allow=data"
            )
