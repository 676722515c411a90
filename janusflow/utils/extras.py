"""Optional dependencies: libraries that `pip install janusflow` does not bring."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """A context for imports: of a missing library, ModuleNotFoundError names `what`'s extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        said = f"{what} needs {error.name}: pip install 'janusflow[{extra}]'"
        raise ModuleNotFoundError(said, name=error.name) from error
