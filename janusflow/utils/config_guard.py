"""Checks an untrusted config.json, of JanusFlow or Janus-Pro, before any library reads it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from janusflow.utils import limits
from janusflow.utils.checkpoint_files import check_setting
from janusflow.utils.safe_io import read_object
from janusflow.utils.text import printable

DEEPEST = 8  # blocks inside each other


def read_config(path: Path) -> dict:
    """Reads and checks a configuration file. Raises ValueError as `check_config` does."""
    content = read_object(path)
    check_config(content, path.name)
    return content


def check_config(content: dict, name: str) -> None:
    """Raises ValueError for an unsafe setting in any block of a configuration.

    Unsafe are settings that load code or files from elsewhere, that change the type of the model's
    outputs, and sizes that no real network has.
    """
    rows = [block.get("vocab_size") for _, block in _blocks(content, name)]
    rows = [n for n in rows if type(n) is int] or [limits.most("vocabulary")]
    for place, block in _blocks(content, name):
        for key, value in block.items():
            _check(key, value, place, max(rows))


def _blocks(content: dict, name: str, depth: int = 0) -> Iterator[tuple[str, dict]]:
    if depth > DEEPEST:
        raise ValueError(f"{name} has more than {DEEPEST} blocks inside each other; shorten it")
    yield name, content
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _blocks(value, printable(key, 60), depth + 1)


def _check(key: str, value, place: str, rows: int) -> None:
    plain, shown = check_setting(key, value, place)
    if plain.endswith("token_id") and not _is_token(value, rows):
        raise ValueError(f"{shown} {value!r:.60}; expected a whole number from 0 to {rows - 1}")
    expected = FORMS.get(plain)
    if expected and not expected[0](value):
        raise ValueError(f"{shown} {value!r:.60}; expected {expected[1]}")


def _is_token(value, rows: int) -> bool:
    values = value if isinstance(value, list) else [value]
    numbers = (v for v in values if v is not None)
    return len(values) <= 64 and all(type(v) is int and -1 <= v < rows for v in numbers)


def _is_count(value) -> bool:
    return value is None or (type(value) is int and 0 <= value <= limits.most("labels"))


def _is_table(value) -> bool:
    return value is None or (isinstance(value, dict) and len(value) <= limits.most("labels"))


# settings that every transformers configuration has, and what they may be
FORMS: dict[str, tuple[Callable, str]] = {
    "num_labels": (_is_count, "a small whole number"),
    "id2label": (_is_table, "a table of labels"),
    "label2id": (_is_table, "a table of labels"),
    "return_dict": (lambda v: v in (True, None), "true: outputs are read by name"),
    "use_return_dict": (lambda v: v in (True, None), "true: outputs are read by name"),
    "torchscript": (lambda v: v in (False, None), "false: outputs are read by name"),
    "is_encoder_decoder": (lambda v: v in (False, None), "false"),
}
