"""What a model can be scored on, one file a task."""

from importlib import import_module

_NAMES = ("TASKS",)


def __getattr__(name: str):
    """Names that stood in this module while it was a file, imported when first used."""
    if name in _NAMES:
        return getattr(import_module("janusflow.evaluation.tasks.registry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
