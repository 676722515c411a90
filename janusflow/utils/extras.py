"""Parts of the package that need libraries which `pip install janusflow` leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Around imports: ModuleNotFoundError says which extra to install for `what`."""
    try:
        yield
    except ModuleNotFoundError as error:
        said = f"{what} needs {error.name}: pip install 'janusflow[{extra}]'"
        raise ModuleNotFoundError(said, name=error.name) from error
