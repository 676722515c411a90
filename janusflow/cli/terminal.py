"""Terminal output. Names from untrusted files are made safe here before they are printed."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from janusflow.utils import safe_io
from janusflow.utils.text import UNSEEN, printable

LONGEST_WRITE = 2_000  # characters of one write to stderr; whatever is longer is no sentence
MOVES = set("\r\n\x1b[A")  # what progress bars write to go up and down between their lines


class Plain(io.TextIOBase):
    """A stream that makes untrusted text safe to print.

    Escape sequences, and letters that the terminal cannot show, are written as in Python's strings
    (`\\x1b`). With `longest`, a write of more characters becomes one line of about 300.
    """

    def __init__(self, stream: TextIO, longest: int | None = None):
        self.stream, self.longest = stream, longest

    def write(self, text: str) -> int:
        """Writes, and returns the number of characters received."""
        self.stream.write(text if set(text) <= MOVES else self._plain(text))
        return len(text)

    def _plain(self, text: str) -> str:
        if self.longest is not None and len(text) > self.longest:
            text = printable(text) + "\n" * text.endswith("\n")
        if not text.isprintable():
            text = "".join(map(_seen, text))
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"


def _seen(letter: str) -> str:
    import unicodedata

    if letter.isprintable() or letter in "\n\r\t" or unicodedata.category(letter) not in UNSEEN:
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def tell(message: object) -> None:
    """Prints one line to stderr: `janusflow: ` and the message, at most about 300 characters."""
    print(f"janusflow: {printable(message)}", file=sys.stderr, flush=True)


def with_stdin(texts: list[str]) -> list[str]:
    """Returns texts with the lines of standard input in the place of `-`."""
    if "-" in texts and sys.stdin.isatty():
        tell("reading lines from the terminal; end with Ctrl+D")
    lines = safe_io.read_prompts(Path("-")) if "-" in texts else []
    return [line for text in texts for line in (lines if text == "-" else [text])]


def warn_of_loose_words(texts: list[str], what: str, command: str) -> None:
    """Warns about several texts of one word, which a text without quotes becomes in a shell."""
    if len(texts) > 1 and all(len(text.split()) == 1 for text in texts):
        whole = " ".join(texts)
        tell(
            f"warning: these are {len(texts)} {what} of one word each; for a single one put the "
            f"text in quotes: {command} {whole!r:.120}"
        )


def warn(message, *_args, **_kwargs) -> None:
    """Replaces `warnings.showwarning`: prints one line without the source code that caused it."""
    tell(f"warning: {message}")


@contextmanager
def importing(word: str = "importing torch, diffusers and transformers") -> Iterator[None]:
    """A context that shows a note on a terminal's stderr while libraries are imported.

    Elsewhere it turns off the progress bars that transformers draws when it loads weights.
    """
    shown = sys.stderr.isatty() and "transformers" not in sys.modules
    if shown:
        print(f"{word} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(f"\r{' ' * (len(word) + 4)}\r", end="", file=sys.stderr, flush=True)
        logging = sys.modules.get("transformers.utils.logging")
        if logging is not None and not sys.stderr.isatty():
            logging.disable_progress_bar()
