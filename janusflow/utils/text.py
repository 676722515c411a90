"""Text of strangers on its way to a terminal, a log or a message."""

from __future__ import annotations

import unicodedata

LONGEST = 300  # characters of a message
# Cc: control; Cf: format, which turns the direction of what follows; Cs: half a character;
# Zl, Zp: line and paragraph ends that are not "\n".
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: object, longest: int = LONGEST) -> str:
    """`text` on one line: escape sequences and other unseen characters written as in Python's
    strings (`\\x1b`), white space as one blank, and the middle of what is longer cut out.

    Names from files (of tensors, columns, members of an archive) pass through here before anybody
    sees them: a terminal would obey what they hold.
    """
    text = str(text)
    if len(text) > 2 * longest:  # so that megabytes cost no time
        text = f"{text[:longest]} {text[-longest:]}"
    line = " ".join("".join(map(_seen, text)).split())
    if len(line) <= longest:
        return line
    tail = longest // 3
    return f"{line[: longest - tail - 5]} ... {line[-tail:]}"


def plain(text: str) -> str:
    """A text of several lines for a terminal: unseen characters written out, lines as they are."""
    return "".join(c if c == "\n" or c == "\t" else _seen(c) for c in text.replace("\r\n", "\n"))


def _seen(letter: str) -> str:
    if letter in "\t\n\r ":
        return " "
    if unicodedata.category(letter) not in UNSEEN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
