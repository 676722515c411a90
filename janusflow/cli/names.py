"""Shell completion of option values, and suggestions for mistyped ones.

The names come from the registries; completing a name of `samplers` imports it.
"""

from __future__ import annotations

from collections.abc import Iterable

HUB = (
    "deepseek-ai/JanusFlow-1.3B",
    "deepseek-ai/Janus-Pro-1B",
    "deepseek-ai/Janus-Pro-7B",
    "deepseek-ai/Janus-1.3B",
)


def hint(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` for a name near a known one, otherwise ""."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


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


def samplers(incomplete: str) -> list[str]:
    """Completes names of solvers."""
    from samplers import SOLVERS

    return _starting(incomplete, SOLVERS)


def grids(incomplete: str) -> list[str]:
    """Completes names of time grids."""
    from samplers import GRIDS

    return _starting(incomplete, GRIDS)


def rules(incomplete: str) -> list[str]:
    """Completes names of guidance rules, up to the colon before the weight."""
    from samplers import RULES

    return _starting(incomplete, [f"{name}:" for name in RULES])


def qualities(incomplete: str) -> list[str]:
    """Completes names of qualities."""
    return _starting(incomplete, ("exact", "high", "fast", "draft"))


def dtypes(incomplete: str) -> list[str]:
    """Completes dtypes."""
    return _starting(incomplete, ("auto", "float32", "bfloat16", "float16", "int8"))


def devices(incomplete: str) -> list[str]:
    """Completes device types."""
    return _starting(incomplete, ("auto", "cpu", "cuda", "mps"))


def tasks(incomplete: str) -> list[str]:
    """Completes names of evaluation tasks."""
    from janusflow.evaluation.tasks import TASKS

    return _starting(incomplete, TASKS)


def recipes(incomplete: str) -> list[str]:
    """Completes names of training recipes."""
    from janusflow.training.recipes import RECIPES

    return _starting(incomplete, RECIPES)


def rewards(incomplete: str) -> list[str]:
    """Completes names of rewards."""
    from janusflow.training.rewards import REWARDS

    return _starting(incomplete, REWARDS)


def objectives(incomplete: str) -> list[str]:
    """Completes names of training objectives."""
    from janusflow.training.objectives import OBJECTIVES

    return _starting(incomplete, OBJECTIVES)


def collections(incomplete: str) -> list[str]:
    """Completes the collections of `janusflow data`."""
    return _starting(incomplete, ("stamps", "emoji", "efficientnet"))
