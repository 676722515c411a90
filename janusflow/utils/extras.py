"""Optional dependencies: libraries that `pip install janusflow` does not bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """A context for imports: a missing library raises ModuleNotFoundError naming the extra that
    `what` needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        said = f"{what} needs {error.name}: pip install 'janusflow[{extra}]'"
        raise ModuleNotFoundError(said, name=error.name) from error
