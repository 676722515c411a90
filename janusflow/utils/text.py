"""Makes untrusted text and other libraries' errors safe to print, in a terminal, a log or a
message.
"""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 300  # characters of a message
# Cc: control; Cf: format, which turns the direction of what follows; Cs: half a character;
# Zl, Zp: line and paragraph ends that are not "\n".
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: object, longest: int = LONGEST) -> str:
    """Returns `text` on one line that is safe to print.

    Escape sequences and other unseen characters are written as in Python's strings (`\\x1b`), white
    space becomes one blank, and the middle of a longer text is cut out. Names from untrusted files
    (tensors, columns, archive members) pass through here, which a terminal would obey.
    """
    text = str(text)
    if len(text) > 2 * longest:  # so that megabytes cost no time
        text = f"{text[:longest]} {text[-longest:]}"
    line = " ".join("".join(map(_seen, text)).split())
    if len(line) <= longest:
        return line
    tail = longest // 3
    return f"{line[: longest - tail - 5]} ... {line[-tail:]}"


@contextmanager
def explained(what: str, advice: str, *errors: type[Exception]) -> Iterator[None]:
    """A context in which these errors become a ValueError: what is wrong, the reason, the advice.

    By default they are whatever a library raises for a stranger's file. Example: `with
    explained(f"{path} is damaged", "download it again"): ...`.
    """
    kinds = errors or (Exception,)
    try:
        yield
    except MemoryError:
        raise
    except kinds as error:
        bare = isinstance(error, LookupError) or not str(error)  # a name alone, or nothing
        reason = repr(error) if bare else error
        raise ValueError(f"{what} ({printable(reason, 200)}); {advice}") from error


def _seen(letter: str) -> str:
    if letter in "\t\n\r ":
        return " "
    if unicodedata.category(letter) not in UNSEEN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
