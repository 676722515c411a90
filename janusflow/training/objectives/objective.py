"""The interface of training objectives, and their registry.

An objective gets a batch and the model as `Network`, and returns named losses, one value per
sample. The trainer weights, averages, logs and accumulates them. `--set objective.name=NAME`
selects it and `--set objective.OPTION=VALUE` sets its options. A simple objective is a function:

    @objective
    def huber(net, batch, *, delta: float = 0.1):
        error = net.out.velocity - (batch.data - batch.noise)
        loss = torch.nn.functional.huber_loss(error, 0 * error, reduction="none", delta=delta)
        return loss.flatten(1).mean(dim=1)
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.training.config_stages import Stage
from janusflow.training.config_values import as_hint
from janusflow.training.objectives.copies import Copy
from janusflow.utils.keywords import choice

if typing.TYPE_CHECKING:
    from janusflow.training.objectives.network import Batch, Network

Kept = typing.TypeVar("Kept", bound=Copy)
OBJECTIVES: dict[str, type[Objective]] = {}
FLOW = "flow"  # the objective unless another is named
KEPT = "objective."  # the prefix of what checkpoints store for objectives


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an objective may keep when it is made: the model in training, and parts of the run."""

    model: nn.Module
    stage: Stage
    vae: nn.Module | None = None  # the autoencoder, where the run has it at hand

    def need_vae(self, command: str) -> nn.Module:
        """Returns the autoencoder. Raises ValueError naming the command that provides one."""
        if self.vae is None:
            raise ValueError(
                "this objective generates images in training and needs the autoencoder; train by "
                f"{command}"
            )
        return self.vae


class Objective:
    """Base class of objectives that need state, copies of the model, or other samples.

    Options are the keyword-only parameters of `__init__`, with defaults and types; those of a base
    class are passed on by `**shared`.
    """

    losses: tuple[str, ...] = ()  # the names that it may return
    rows = "generation"  # whose count the means are over; or "answers", the other kinds
    at_t = True  # whether it reads `net.out`, the pass at each sample's own t
    draws = False  # whether it draws its own images, of prompts alone
    factor = 1  # samples that `prepare` makes of one

    def __init__(self, context: Context):
        self.context = context
        self.copies: list[Copy] = []  # of the model
        self._measured: dict[str, float] = {}

    def keep(self, copy: Kept) -> Kept:
        """Makes the copy before the first update, and stores it in checkpoints."""
        self.copies.append(copy)
        return copy

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Returns named losses, each with one value per sample."""
        raise NotImplementedError

    def weights(self, step: int) -> dict[str, float]:
        """Returns the weight of each loss's mean in the total loss."""
        return dict.fromkeys(self.losses, 1.0)

    def begin(self, folder: Path) -> None:
        """Called once before the first step, with the folder of the initial model."""

    def prepare(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        """Returns the samples that a step trains on, made from those of the data.

        `rows` are the numbers of the generation samples in the global batch. The result must be a
        function of the arguments, the weights and `state()` alone, so that a resumed run is bitwise
        identical.
        """
        self._measured = {}
        for one in self.copies:
            one.model  # noqa: B018 (copied before the first update)
        made = [s for s in samples if s.kind == "generation"]
        if not made:
            return list(samples)
        return self.generate(made, rows, step) + [s for s in samples if s.kind != "generation"]

    def generate(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        """Returns the generation samples of a step; `prepare` leaves the others as they are."""
        return list(samples)

    def updated(self, step: int) -> None:
        """Called after each update of the weights; `step` is the number of updates so far."""

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors that a checkpoint must store for this objective."""
        return {k: v for one in self.copies for k, v in one.state().items()}

    def load(self, found: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        for one in self.copies:
            one.load(found)

    def measured(self) -> dict[str, float]:
        """Returns numbers about the last step for the log."""
        return self._measured


def objective(made=None, *, name: str | None = None, losses: Sequence[str] | None = None):
    """A decorator that registers a class, or a function (net, batch, *, options), under its name.

    A function returns one value per generation sample (G,), or a mapping of several such, whose
    names are given as `losses`.
    """
    if made is None:
        return lambda made: objective(made, name=name, losses=losses)
    known = name or made.__name__.lower()
    kind = made if inspect.isclass(made) else _of_function(made, tuple(losses or (known,)))
    OBJECTIVES[known] = kind
    return made


def _of_function(made: Callable, names: tuple[str, ...]) -> type[Objective]:
    class Function(Objective):
        __doc__ = made.__doc__
        losses = names
        function = staticmethod(made)

        def __init__(self, context: Context, **options):
            super().__init__(context)
            self.options = options

        def __call__(self, net, batch):
            found = self.function(net, batch, **self.options)
            return found if isinstance(found, Mapping) else {names[0]: found}

    return Function


def find(name: str) -> type[Objective]:
    """Returns the objective of that name. Raises ValueError, suggesting a name."""
    import janusflow.training.objectives  # noqa: F401 (whose modules register theirs)

    choice("no objective named", name, sorted(OBJECTIVES))
    return OBJECTIVES[name]


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """Returns the options of an objective by name, including those of its base classes."""
    kind = find(name)
    function = getattr(kind, "function", None)
    makers = [c.__init__ for c in reversed(kind.__mro__) if "__init__" in vars(c)]
    return {k: p for made in ([function] if function else makers) for k, p in _own(made).items()}


def _own(made: Callable) -> dict[str, inspect.Parameter]:
    if not inspect.isfunction(made):
        return {}
    hints = typing.get_type_hints(made)
    return {
        p.name: p.replace(annotation=hints.get(p.name, type(p.default)))
        for p in inspect.signature(made).parameters.values()
        if p.kind == inspect.Parameter.KEYWORD_ONLY
    }


def settled(choice: Mapping[str, object]) -> dict[str, object]:
    """Returns a choice {"name": ..., option: ...} with all options filled in and converted.

    Raises ValueError for an unknown option or a value of another type.
    """
    name = str(choice.get("name", FLOW))
    known = options_of(name)
    if unknown := [key for key in choice if key != "name" and key not in known]:
        raise ValueError(
            f"the objective {name!r} has no option {unknown[0]!r}; it has "
            f"{', '.join(known) or 'none'}"
        )
    options = {key: p.default for key, p in known.items()}
    for key, value in choice.items():
        if key != "name":
            options[key] = as_hint(known[key].annotation, value, f"objective.{key}")
    return {"name": name} | options


def make(choice: Mapping[str, object], context: Context) -> Objective:
    """Creates the objective that a run chose, with its options."""
    found = settled(choice)
    return find(found.pop("name"))(context, **found)
