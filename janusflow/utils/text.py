"""Makes untrusted text safe to print in a terminal, a log or an error message."""

import unicodedata

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


def plain(text: str) -> str:
    """Returns a text that is safe to print: unseen characters are escaped, line breaks stay."""
    return "".join(c if c == "\n" or c == "\t" else _seen(c) for c in text.replace("\r\n", "\n"))


def _seen(letter: str) -> str:
    if letter in "\t\n\r ":
        return " "
    if unicodedata.category(letter) not in UNSEEN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
