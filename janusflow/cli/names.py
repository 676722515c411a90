"""Shell completion of option values, and suggestions for mistyped ones.

The names come from the registries; completing a name of `samplers` imports it.
"""

from collections.abc import Callable, Iterable
from importlib import import_module

HUB = (
    "deepseek-ai/JanusFlow-1.3B",
    "deepseek-ai/Janus-Pro-1B",
    "deepseek-ai/Janus-Pro-7B",
    "deepseek-ai/Janus-1.3B",
)


def _starting(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]


def folders(incomplete: str) -> list[str]:
    """Returns folders in the working directory, which a custom completion would otherwise hide."""
    from pathlib import Path

    base = Path(incomplete) if incomplete.endswith("/") else Path(incomplete or ".").parent
    try:
        found = sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []
    return _starting(incomplete, [f"{p}/" for p in found])


def models(incomplete: str) -> list[str]:
    """Completes packaged models, published ones and folders."""
    from janusflow.utils.packaged import PACKAGED

    return [*_starting(incomplete, [*PACKAGED, *HUB]), *folders(incomplete)]


def _registry(module: str, registry: str, ending: str = "") -> Callable[[str], list[str]]:
    """Returns a completion of a registry's names; the module is imported when it is needed."""

    def complete(incomplete: str) -> list[str]:
        known = getattr(import_module(module), registry)
        return _starting(incomplete, [name + ending for name in known])

    return complete


def _fixed(*known: str) -> Callable[[str], list[str]]:
    """Returns a completion of these names."""

    def complete(incomplete: str) -> list[str]:
        return _starting(incomplete, known)

    return complete


samplers = _registry("samplers", "SOLVERS")
grids = _registry("samplers", "GRIDS")
rules = _registry("samplers", "RULES", ending=":")  # a weight follows
tasks = _registry("janusflow.evaluation.tasks", "TASKS")
recipes = _registry("janusflow.training.recipes", "RECIPES")
rewards = _registry("janusflow.training.rewards", "REWARDS")
objectives = _registry("janusflow.training.objectives", "OBJECTIVES")
qualities = _fixed("exact", "high", "fast", "draft")
dtypes = _fixed("auto", "float32", "bfloat16", "float16", "int8")
devices = _fixed("auto", "cpu", "cuda", "mps")
collections = _fixed("stamps", "emoji", "efficientnet", "edits")
