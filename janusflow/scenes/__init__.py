"""A synthetic world of coloured shapes: scenes, captions, questions and an exact scorer."""

from importlib import import_module

_HOMES = {"score": "scorer", "question": "questions"}  # others stand in world


def __getattr__(name: str):
    """Imports the room's names on first use, as in `from janusflow.scenes import render, scene`."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module(f"janusflow.scenes.{_HOMES.get(name, 'world')}"), name)
