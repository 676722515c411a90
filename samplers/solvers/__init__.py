"""The solvers, one file per family; importing a file registers them."""

from importlib import import_module

FAMILIES = (
    "runge_kutta",
    "multistep",
    "exponential",
    "auto",
    "adaptive",
    "adaptive_per_sample",
    "stochastic",
    "sa_solver",
    "restart",
    "inversion",
    "jump",
)


def register() -> None:
    """Imports every family, so that `SOLVERS` is complete."""
    for family in FAMILIES:
        import_module(f"samplers.solvers.{family}")
