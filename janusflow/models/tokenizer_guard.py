"""Checks an untrusted tokenizer.json for settings that hang, crash, or tokenize a text
inconsistently.
"""

import json
import math
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from threading import Lock

from tokenizers import Tokenizer

from janusflow.utils import limits
from janusflow.utils.text import printable

NORMALIZERS = (  # no set, as a file may hold what has no hash
    "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Replace",
    "Prepend", "ByteLevel", "BertNormalizer", "Nmt",
)  # fmt: skip
USUAL = ("BPE", "ByteLevel", "Split", "Digits", "Lowercase", "NFC")
STEPS = 32  # of a normalizer
GROWTH = 64.0  # times that a normalizer may lengthen a text
PREFIX = 64  # letters that it may put before a text
WORDS = "User: a red circle left of two blue squares"
PROBE = "A red circle, 0 é 圆 🙂\n  two blue squares"


def check_tokenizer(content: Mapping) -> None:
    """Raises ValueError for a setting of tokenizer.json that is unsafe or unsupported."""
    model = content.get("model")
    if isinstance(model, Mapping) and model.get("dropout"):
        raise _refused(
            f"sets dropout {printable(model['dropout'], 20)}, which cuts a text in other tokens "
            "each time; set it to null"
        )
    _check_normalizer(content.get("normalizer"))
    if (growth := _growth(_steps(content.get("decoder"), "decoders"))) > GROWTH:
        raise _refused(
            f"has a decoder that makes a text {growth:.0f} times as long; at most {GROWTH:.0f}"
        )
    for part in _steps(content.get("pre_tokenizer"), "pretokenizers"):
        length = part.get("length")
        if part.get("type") == "FixedLength" and not (_is_number(length) and length):
            raise _refused("has a pre-tokenizer FixedLength without a length of at least 1")
    _check_ids(model, content.get("added_tokens"))


def check_probe(tokenizer: Tokenizer) -> None:
    """Raises ValueError for a tokenizer that fails on plain words, other scripts or white space.

    Warns of one that does not give plain words back, see `kept`.
    """
    with tokenizing(quiet=True):
        tokenizer.decode(tokenizer.encode(PROBE).ids)
        back = tokenizer.decode(tokenizer.encode(WORDS, add_special_tokens=False).ids)
    if not kept(back):
        warnings.warn(
            f"tokenizer.json makes {printable(back, 60)!r} of {WORDS!r}, so prompts and answers "
            "are other texts than they seem; take it from the published checkpoint, and run "
            "`janusflow doctor`",
            stacklevel=2,
        )


def kept(back: str) -> bool:
    """Returns whether WORDS came back; a tokenizer may write them in lower case."""
    return back.strip().casefold() == WORDS.casefold()


def is_usual(tokenizer: Tokenizer) -> bool:
    """Returns whether all parts, those inside of sequences too, are of kinds in which no text is
    known to panic, so that nothing has to be kept from stderr.
    """
    parts = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder
    settings = [json.loads(part.__getstate__()) for part in parts if part is not None]
    return type(tokenizer.model).__name__ in USUAL and all(map(_is_usual, settings))


def _is_usual(part: Mapping) -> bool:
    if part.get("type") == "Sequence":
        inner = (own for own in part.values() if isinstance(own, list))
        return all(_is_usual(one) for own in inner for one in own)
    if part.get("type") == "Replace":  # a regular expression that matches nothing panics
        return "String" in part["pattern"]
    return part.get("type") in USUAL


@contextmanager
def tokenizing(quiet: bool = False) -> Iterator[None]:
    """A context that converts the library's exceptions, including panics of Rust, to ValueError.

    With `quiet` a panic prints no line of its own.
    """
    try:
        with quietly() if quiet else nullcontext():
            yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a PanicException is no Exception
        if isinstance(error, Exception) and type(error) is not Exception:
            raise
        raise ValueError(
            f"the tokenizer cannot read or write this text ({printable(error, 160)}); take "
            "tokenizer.json from the published checkpoint"
        ) from None


_ONE_AT_A_TIME = Lock()
PANIC = re.compile(rb"\n?thread '[^\n]*panicked at .*?(note: run with [^\n]*\n|\Z)", re.DOTALL)


@contextmanager
def quietly() -> Iterator[None]:
    """A context in which panics of Rust print nothing; stderr's other output comes after."""
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as written:
        try:
            kept = os.dup(2)
        except OSError:  # a program without an error stream
            yield
            return
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            if rest := PANIC.sub(b"", written.read()):
                os.write(2, rest)


def _check_normalizer(normalizer) -> None:
    steps = list(_steps(normalizer, "normalizers"))
    if len(steps) > STEPS:
        raise _refused(f"has a normalizer of {len(steps)} steps; at most {STEPS} are taken")
    for step in steps:
        if (kind := step.get("type")) not in NORMALIZERS:
            shown = printable(repr(kind), 40)
            raise _refused(f"has a normalizer {shown}, which is not taken")
    growth = _growth(steps)
    prefix = sum(len(str(s.get("prepend", ""))) for s in steps if s["type"] == "Prepend")
    if growth > GROWTH or prefix > PREFIX:
        raise _refused(
            f"has a normalizer that makes a text {growth:.0f} times as long and puts {prefix} "
            f"letters before it; at most {GROWTH:.0f} and {PREFIX} are taken"
        )


def _growth(steps: Iterable[Mapping]) -> float:
    """Returns the largest number of letters that one letter can become."""
    replaced = (_grows(step) for step in steps if step.get("type") == "Replace")
    return math.prod(max(1.0, growth) for growth in replaced)


def _grows(step: Mapping) -> float:
    """Returns how many letters a replacement puts in place of one."""
    pattern = step.get("pattern")
    found = pattern.get("String") if isinstance(pattern, Mapping) else None
    if found == "" or not isinstance(found, str | None):
        raise _refused(f"has a normalizer that replaces {printable(repr(found), 40)}")
    return len(str(step.get("content", ""))) / len(found or "x")


def _steps(node, inner: str) -> Iterator[Mapping]:
    """Returns the steps of a sequence, including nested ones, or the single step."""
    if not isinstance(node, Mapping):
        return
    yield node
    parts = node.get(inner)
    for part in parts if isinstance(parts, list) else ():
        yield from _steps(part, inner)


def _check_ids(model, added) -> None:
    """Raises ValueError if two texts share an id, or if an id is far beyond any vocabulary."""
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    tokens = set(vocab.items()) if isinstance(vocab, Mapping) and _is_plain(vocab) else set()
    for token in added if isinstance(added, list) else ():
        text, number = map(token.get, ("content", "id")) if isinstance(token, Mapping) else (0, 0)
        if isinstance(text, str) and _is_number(number):
            tokens.add((text, number))
    most = limits.most("vocabulary")
    counts = Counter(number for _, number in tokens)
    for text, number in tokens:
        if number >= most:
            raise _refused(f"gives {printable(repr(text), 40)} the id {number}; at most {most}")
        if counts[number] > 1:
            raise _refused(
                f"gives several tokens the id {number}, one of them {printable(repr(text), 40)}"
            )


def _is_plain(vocab: Mapping) -> bool:
    return all(isinstance(k, str) and _is_number(v) for k, v in vocab.items())


def _is_number(value) -> bool:
    return type(value) is int and value >= 0


def _refused(what: str) -> ValueError:
    return ValueError(f"tokenizer.json {what}; take it from the published checkpoint")
