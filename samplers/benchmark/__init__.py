"""Compares solvers with those of other libraries on fields with known solutions."""

from importlib import import_module

_NAMES = ("OWN", "main", "run")


def __getattr__(name: str):
    """Imports names of the former single-file module on first use."""
    if name in _NAMES:
        return getattr(import_module("samplers.benchmark.equal_calls"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
