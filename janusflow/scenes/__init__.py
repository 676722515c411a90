"""The small world: shapes, scenes, captions, questions and an exact scorer."""

from importlib import import_module

_HOMES = {"score": "scorer", "question": "questions"}


def __getattr__(name: str):
    """Names of `scene` and of its neighbours, imported when first used."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module(f"janusflow.scenes.{_HOMES.get(name, 'scene')}"), name)
