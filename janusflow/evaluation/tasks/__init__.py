"""What a model can be scored on, one file a task."""

from importlib import import_module


def __getattr__(name: str):
    """Names that stood in this module while it was a file."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module("janusflow.evaluation.tasks.registry"), name)
