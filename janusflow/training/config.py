"""A run's settings: five sections, each a frozen value, changed by `section.key=value` or a file.

What a training ends in stands in `training`, `alignment`, `adapter` and `data`; `run` holds what
depends on the machine at hand and may change when a run goes on.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from janusflow.data.options import Data
from janusflow.models.lora import Adapter
from janusflow.training import objectives
from janusflow.training.alignment.repa import PRESETS, Alignment
from janusflow.training.config_stages import STAGES, TUNE, Stage, one_of
from janusflow.utils.safe_io import read_text

TRACKERS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a training is run, which changes nothing of what it computes but the rounding."""

    accumulation: int = 1  # micro-batches of a step
    packed: bool = True  # several samples in a row of the language model
    gradient_checkpointing: bool = False
    mixed_precision: str = "auto"  # bf16 on a GPU; or no
    save_every: int = 500  # steps
    keep: int = 2  # newest checkpoints that stay
    milestone_every: int = 0  # steps between checkpoints that stay for good; 0 for none
    sharded: bool = False  # one file a process, where the weights are sharded
    log_every: int = 10
    watch_every: int = 0  # steps between cosines of the gradients of flow and alignment; 0 for none
    trackers: tuple[str, ...] = ()
    sample_every: int = 0  # steps between grids of samples; 0 for none
    sample_prompts: tuple[str, ...] = ()  # of them; the data's first captions unless told
    broken_limit: int = 100  # samples that may be unreadable before the run stops
    workers: int = 0  # processes that draw a recipe's scenes ahead

    def __post_init__(self):
        one_of("run.trackers", self.trackers, TRACKERS)
        one_of("run.mixed_precision", [self.mixed_precision], ("auto", "no", "bf16"))
        for name in ("accumulation", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.workers <= 256:
            raise ValueError(f"run.workers is {self.workers}; expected 0 to 256")


@dataclass(frozen=True, kw_only=True)
class Settings:
    training: Stage
    objective: dict = field(default_factory=lambda: {"name": objectives.FLOW})  # and its options
    alignment: Alignment | None = PRESETS["janusflow"]
    adapter: Adapter | None = None  # what is trained is then this, beside frozen weights
    data: Data = field(default_factory=Data)
    run: Run = field(default_factory=Run)

    def as_dict(self) -> dict:
        """Plain values, as a YAML file holds them."""
        return _plain(asdict(self))

    @property
    def decisive(self) -> dict:
        """All but how it is run."""
        return decisive(self.as_dict())


def decisive(plain: Mapping) -> dict:
    """Of settings as plain values, what a run ends in: where a cache lies is not, which crop it
    holds is. What an older file does not say is as it was then.
    """
    kinds = {"training": Stage, "alignment": Alignment, "adapter": Adapter, "data": Data}
    found = {name: _filled(kind, plain.get(name)) for name, kind in kinds.items()}
    found["objective"] = _plain(objectives.settled(plain.get("objective") or {}))
    data = found["data"] = found["data"] or _plain(asdict(Data()))
    data["crop"] = Data(crop=data["crop"], cache=data.pop("cache")).centered
    return found


def _filled(kind: type, section: Mapping | None) -> dict | None:
    """A section with the defaults of what it does not say."""
    if section is None:
        return None
    defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    return _plain({**defaults, **section})


def of_stage(stage: int | str) -> Settings:
    """The settings of a stage of the paper, or of "tune", which aligns nothing: its model knows
    already. ValueError for another.
    """
    if str(stage) not in STAGES:
        raise ValueError(f"no stage {stage!r}; choose one of {', '.join(STAGES)}")
    aligned = None if stage == TUNE else PRESETS["janusflow"]
    return Settings(training=STAGES[str(stage)], alignment=aligned)


def changed(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """`{"training.lr": 2e-5, "alignment": "irepa", ...}` applied; a whole section may come as a
    mapping. ValueError for a key that there is not, with those there are, or a value of another
    kind.
    """
    settings = _with_objective(settings, changes)
    for name, value in _flat(changes):
        if name.partition(".")[0] == "objective":
            continue
        section, _, key = name.partition(".")
        if section not in {f.name for f in fields(Settings)}:
            raise ValueError(_unknown(name, [f"{f.name}." for f in fields(Settings)]))
        part = getattr(settings, section)
        if section == "alignment" and key in ("", "preset"):
            part = _preset(value)
        elif section == "adapter" and key == "" and value in (None, "none"):
            part = None
        else:
            part = Adapter() if section == "adapter" and part is None else part
            part = _one(part, section, key, value)
        settings = replace(settings, **{section: part})
    return settings


def _with_objective(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """The objective named, or the one there was, with the options given."""
    own = {k: v for k, v in changes.items() if str(k).partition(".")[0] == "objective"}
    own = dict(_flat(own))
    name = own.pop("objective", own.pop("objective.name", None))
    choice = (
        dict(settings.objective) if name in (None, settings.objective["name"]) else {"name": name}
    )
    choice |= {key.removeprefix("objective."): value for key, value in own.items()}
    return replace(settings, objective=objectives.settled(choice))


def parse(items: Iterable[str]) -> dict[str, object]:
    """`["training.lr=2e-5", ...]` as a mapping; values are YAML. ValueError for another form."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ValueError(f"--set got {item!r}; expected name=value, as in training.lr=2e-5")
        found[name] = _yaml(value, f"--set {name}")
    return found


def read(path: str | Path) -> dict:
    """The sections of a YAML file; ValueError if it is none."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no settings at {str(path)!r}; give a YAML file")
    found = _yaml(read_text(path, "config_bytes"), str(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no sections; expected training: and so on")
    return found


def load(path: str | Path) -> Settings:
    """Settings as `dump` wrote them, nothing left to defaults."""
    found = read(path)
    section = found.get("training")
    if not isinstance(section, dict):
        raise ValueError(f"{path} has no section training; is this the file of a run?")
    base = Settings(training=STAGES["1"], alignment=None)
    return changed(base, found)


def dump(settings: Settings) -> str:
    return yaml.safe_dump(settings.as_dict(), sort_keys=False)


def _one(part, section: str, key: str, value):
    """A section with one field changed."""
    hints = typing.get_type_hints(type(part)) if part is not None else {}
    if key not in hints:
        if part is None:
            raise ValueError(f"{section}.{key} was set, but {section} is none; set {section} first")
        raise ValueError(_unknown(f"{section}.{key}", [f"{section}.{name}" for name in hints]))
    return replace(part, **{key: _as(hints[key], value, f"{section}.{key}")})


def _preset(value) -> Alignment | None:
    if value in (None, "none"):
        return None
    if value not in PRESETS:
        raise ValueError(f"no alignment named {value!r}; choose none, {', '.join(PRESETS)}")
    return PRESETS[value]


def _unknown(name: str, known: list[str]) -> str:
    return f"no setting named {name!r}; there are {', '.join(known)}"


def _flat(changes: Mapping[str, object]):
    for name, value in changes.items():
        if not isinstance(name, str):
            raise ValueError(f"a setting is named {name!r:.80}; expected a text as training.lr")
        if "." in name or not isinstance(value, Mapping):
            yield name, value
            continue
        if name == "alignment" and "preset" not in value:
            yield name, "janusflow"  # what a file does not say is the paper's
        for key in sorted(value, key=lambda k: k != "preset"):
            yield f"{name}.{key}", value[key]


def _as(hint, value, name: str):
    """The value as the field's type; numbers may come as text, because YAML reads 2e-5 as one."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        try:
            return _cast(option, value)
        except (TypeError, ValueError, OverflowError):
            continue
    raise ValueError(f"{name} is {value!r:.80}; expected {_named(hint)}")


def _cast(kind, value):
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if isinstance(value, str):
            value = [part for part in value.split(",") if part]
        return tuple(_cast(inner[0], part) for part in _only(value, list | tuple))
    if origin is dict:
        return {_cast(inner[0], k): _cast(inner[1], v) for k, v in _only(value, dict).items()}
    if kind is float and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    if kind is int and isinstance(value, str | float) and float(value).is_integer():
        return int(float(value))
    if kind is int and isinstance(value, bool):
        raise TypeError
    return _only(value, kind)


def _only(value, kind):
    if not isinstance(value, kind):
        raise TypeError
    return value


def _named(hint) -> str:
    return "float (finite)" if hint is float else getattr(hint, "__name__", str(hint))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which a short file says a value of any size."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a value by an alias; write it out")
        return super().compose_node(parent, index)


def _yaml(text: str, name: str):
    try:
        return _Plain(text).get_single_data()  # safe: no tag makes an object
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no YAML ({' '.join(str(error).split())[:160]})") from error
