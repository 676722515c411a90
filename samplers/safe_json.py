"""Reads untrusted JSON files within limits."""

import json
from pathlib import Path

LARGEST = 4 * 2**20  # bytes


def read_json(path: str | Path) -> object:
    """Reads a JSON file. Raises ValueError if it is no file, too large, too deep or no JSON."""
    path = Path(path)
    if not path.is_file():  # a device or a pipe may never end
        raise ValueError(f"there is no file {str(path)!r}; check the path")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST} bytes; check that it is the right file")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON; correct it: {error}") from error
