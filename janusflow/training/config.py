"""A run's settings: sections of frozen values, changed by `section.key=value` or a YAML file.

`training`, `alignment`, `adapter` and `data` determine the result of a training; `run` holds what
depends on the machine. `later` holds changes by the step from which they apply: a run that resumed
with other settings records them there, so its settings.yaml, given as --config, repeats the whole
run at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from janusflow.data.read_options import Data
from janusflow.models.lora import Adapter
from janusflow.training import objectives
from janusflow.training.alignment.repa import PRESETS, Alignment
from janusflow.training.config_stages import STAGES, TUNE, SampleSchedule, Stage, one_of
from janusflow.training.config_values import as_hint, hints_of, parse_yaml, today, unknown
from janusflow.utils import limits
from janusflow.utils.keywords import choice
from janusflow.utils.safe_io import read_text

TRACKERS = ("tensorboard", "wandb", "trackio")
ALLOWED = ("data", "model")  # what a resumed run may find changed, where it is told so
LATER = "later"
FIXED = {  # what decides which tensors there are, and so stays for the whole run
    "training": ("trainable", "optimizer", "image_grid"),
    "alignment": (
        "kind",
        "teacher",
        "teacher_weights",
        "teacher_size",
        "tap",
        "projector",
        "teacher_tap",
        "attention",
        "attention_blocks",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings of how a training runs, which change nothing of its result but rounding."""

    accumulation: int = 1  # micro-batches of a step
    packed: bool = True  # several samples in a row of the language model
    gradient_checkpointing: bool = False
    mixed_precision: str = "auto"  # bf16 on a GPU; or no
    save_every: int = 500  # steps
    keep: int = 2  # newest checkpoints that stay
    milestone_every: int = 0  # steps between checkpoints that stay for good; 0 for none
    sharded: bool = True  # sharded weights are saved in shards; or gathered into one file
    log_every: int = 10
    watch_every: int = 0  # steps between cosines of the gradients of flow and alignment; 0 for none
    trackers: tuple[str, ...] = ()
    sample_every: int = 0  # steps between grids of samples; 0 for none
    sample_prompts: tuple[str, ...] = ()  # of them; the data's first captions unless told
    evaluate_every: int = 0  # steps between evaluations on held-out data; 0 for none
    evaluate_count: int = 16  # samples, and prompts for the scorer, of an evaluation
    evaluate_scorer: bool = False  # a stage's images are scored as scenes of the small world
    keep_best: str = ""  # held_out or strict: the best state by it stays in the folder best
    max_bad_samples: int = 100  # samples that may be unreadable before the run stops
    max_bad_steps: int = 0  # steps that may be skipped because a loss or gradient is not finite
    workers: int = 0  # processes that read or draw samples ahead of the network
    allow: tuple[str, ...] = ()  # data, model: goes on although they are not those of the start

    def __post_init__(self):
        one_of("run.trackers", self.trackers, TRACKERS)
        one_of("run.allow", self.allow, ALLOWED)
        one_of("run.mixed_precision", [self.mixed_precision], ("auto", "no", "bf16"))
        for name in ("accumulation", "save_every", "keep", "log_every"):
            limits.within(f"run.{name}", getattr(self, name), 1)
        every = ("milestone_every", "watch_every", "sample_every", "evaluate_every")
        for name in (*every, "max_bad_steps", "max_bad_samples"):
            limits.within(f"run.{name}", getattr(self, name), 0)
        if self.keep_best:
            one_of("run.keep_best", [self.keep_best], ("held_out", "strict"))
        if self.evaluate_count < 1 or (self.keep_best and not self.evaluate_every):
            raise ValueError(
                f"run.evaluate_count is {self.evaluate_count} and run.keep_best "
                f"{self.keep_best!r}; give a count of at least 1, and set run.evaluate_every with "
                "keep_best"
            )
        limits.within("run.workers", self.workers, 0, 256)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run. Raises ValueError for changes under `later` that are not possible."""

    training: Stage
    objective: dict = field(default_factory=lambda: {"name": objectives.FLOW})  # and its options
    alignment: Alignment | None = PRESETS["janusflow"]
    adapter: Adapter | None = None  # what is trained is then this, beside frozen weights
    data: Data = field(default_factory=Data)
    run: Run = field(default_factory=Run)
    later: dict[int, dict[str, object]] = field(default_factory=dict)  # by step

    def __post_init__(self):
        kind, parts = self.alignment and self.alignment.kind, self.run.accumulation
        if kind in ("dispersive", "contrastive") and self.alignment.weight and parts > 1:
            raise ValueError(
                f"the alignment {kind!r} compares the samples of a micro-batch with each other, so "
                f"run.accumulation={parts} would change the loss; set it to 1"
            )
        for step in self.later:
            if step < 1:
                raise ValueError(f"later has changes at step {step}; expected a step of at least 1")
            for name in self.later[step]:
                section, _, key = today(name).partition(".")
                if section not in FIXED or not key or key in FIXED[section]:
                    raise ValueError(
                        f"later changes {name}, which cannot change during a run; leave it out"
                    )
            self.at(step)

    def as_dict(self) -> dict:
        """Returns the settings as plain values, as in a YAML file."""
        return _plain(asdict(self))

    def at(self, step: int) -> Settings:
        """Returns the settings in force at optimizer step 0, 1, ..., without later changes."""
        changes = {}
        for first in sorted(self.later):
            if first <= step:
                changes |= self.later[first]
        return changed(replace(self, later={}), changes) if self.later else self

    @property
    def steps(self) -> int:
        """The number of steps after which the run ends."""
        return self.at(max(self.later, default=0)).training.steps

    @property
    def schedule(self) -> SampleSchedule:
        """Returns how many samples of each kind every step needs."""
        steps = [0, *self.later]
        return SampleSchedule(tuple((step, self.at(step).training) for step in steps))


def of_stage(stage: int | str) -> Settings:
    """Returns the settings of the paper's stages or "tune". Raises ValueError for another name."""
    choice("no stage named", str(stage), STAGES)
    aligned = None if stage == TUNE else PRESETS["janusflow"]
    return Settings(training=STAGES[str(stage)], alignment=aligned)


def changed(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """Returns the settings with `{"training.lr": 2e-5, "alignment": "irepa", ...}` applied.

    All keys of a section are applied at once; a section may be a mapping, the name of an alignment,
    or none. Raises ValueError for an unknown key, suggesting one, and for a value of another type.
    """
    sections = [f.name for f in fields(Settings)]
    found = {}
    for section, (given, keys) in _by_section(changes).items():
        if section not in sections:
            raise ValueError(unknown(section, sections))
        if section == LATER:
            found[section] = _later(given, keys)
        elif section == "objective":
            found[section] = _objective(settings, given, keys)
        else:
            found[section] = _section(settings, section, given, keys)
    return replace(settings, **found)


def _by_section(changes: Mapping[str, object]) -> dict[str, tuple[object, dict]]:
    """Returns (value of the whole section, single keys) by section; a missing value is MISSING."""
    found: dict[str, tuple[object, dict]] = {}
    for name, value in changes.items():
        if not isinstance(name, str):
            raise ValueError(
                f"a setting is named {name!r:.80}; expected a text such as training.lr"
            )
        section, dot, key = today(name).partition(".")
        whole, keys = found.get(section, (MISSING, {}))
        found[section] = (whole, {**keys, key: value}) if dot else (value, keys)
    return found


def _section(settings: Settings, section: str, whole, keys: dict):
    """Returns a section with all changes applied."""
    part, kind = getattr(settings, section), KINDS[section]
    if isinstance(whole, Mapping):
        keys = {today(f"{section}.{k}").partition(".")[2]: v for k, v in whole.items()} | keys
        whole = "janusflow" if section == "alignment" else MISSING
    whole = keys.pop("preset", whole) if section == "alignment" else whole
    if whole in (None, "none") and section in ("alignment", "adapter"):
        part = None
    elif section == "alignment" and whole is not MISSING:
        part = _preset(whole)
    elif whole is not MISSING:
        raise ValueError(f"{section} is {whole!r:.80}; expected {section}.key=value")
    if keys and part is None and section == "adapter" and whole is MISSING:
        part = Adapter()
    hints = hints_of(kind)
    for key in keys:
        if key not in hints:
            raise ValueError(unknown(f"{section}.{key}", [f"{section}.{name}" for name in hints]))
    if keys and part is None:
        key = next(iter(keys))
        raise ValueError(f"{section}.{key} was set, but {section} is None; set {section} first")
    values = {key: as_hint(hints[key], v, f"{section}.{key}") for key, v in keys.items()}
    if section == "training" and values.get("density", part.density) != part.density:
        values = {"density_mean": None, "density_std": None} | values  # they were the other's
    return replace(part, **values) if values else part


def _later(whole, keys: dict) -> dict[int, dict[str, object]]:
    given = dict(whole) if isinstance(whole, Mapping) else {}
    if whole not in (MISSING, None, {}) and not given:
        raise ValueError(f"later is {whole!r:.80}; expected {{step: {{name: value}}}}")
    for name, value in keys.items():  # later.500.training.lr=1e-5
        step, dot, key = name.partition(".")
        if not dot:
            raise ValueError(
                f"no setting named 'later.{name}'; write later.STEP.NAME=VALUE, such as "
                "later.500.training.lr=1e-5"
            )
        given[step] = {**given.get(step, {}), key: value}
    found: dict[int, dict[str, object]] = {}
    for step, changes in given.items():
        number = as_hint(int, step, "a step of later")
        found[number] = found.get(number, {}) | as_hint(dict, changes, f"later.{number}")
    return dict(sorted(found.items()))


def _preset(value) -> Alignment:
    if not isinstance(value, str) or value not in PRESETS:
        raise ValueError(f"no alignment named {value!r}; choose none, {', '.join(PRESETS)}")
    return PRESETS[value]


KINDS = {"training": Stage, "alignment": Alignment, "adapter": Adapter, "data": Data, "run": Run}


def _objective(settings: Settings, whole, keys: dict) -> dict:
    """Returns the named objective, or the current one, with the options given."""
    own = {**whole, **keys} if isinstance(whole, Mapping) else dict(keys)
    name = own.pop("name", whole if isinstance(whole, str) else None)
    same = name in (None, settings.objective["name"])
    choice = dict(settings.objective) if same else {"name": name}
    return objectives.settled(choice | own)


def parse(items: Iterable[str]) -> dict[str, object]:
    """Parses `["training.lr=2e-5", ...]` with YAML values. Raises ValueError for others."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ValueError(f"--set is {item!r}; expected NAME=VALUE, such as training.lr=2e-5")
        found[name] = parse_yaml(value, f"--set {name}")
    return found


def read(path: str | Path) -> dict:
    """Returns the sections of a YAML file. Raises ValueError if it is not valid."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is not a settings file; give the path of a YAML file")
    found = parse_yaml(read_text(path, "config_bytes"), str(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no sections; expected sections such as training: and data:")
    return found


def load(path: str | Path) -> Settings:
    """Returns settings as `dump` wrote them; those that an older file lacks get its release's."""
    found = read(path)
    if not isinstance(found.get("training"), dict):
        raise ValueError(f"{path} has no section training; give the settings file of a run")
    return from_dict(found)


def from_dict(found: Mapping) -> Settings:
    """Returns settings from plain values, as `as_dict` gives them."""
    return changed(Settings(training=STAGES["1"], alignment=None), found)


def dump(settings: Settings) -> str:
    return yaml.safe_dump(settings.as_dict(), sort_keys=False)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
