"""Names from files reach a terminal as text and not as commands."""

import time

import pytest

from janusflow.utils.text import LONGEST, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red circle", "a red circle"),
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("a\n\tb\r", "a b"),
        ("\0", "\\x00"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\ud800", "\\ud800"),
        ("<｜begin▁of▁sentence｜> ü 圆", "<｜begin▁of▁sentence｜> ü 圆"),
        (7, "7"),
    ],
)
def test_what_is_unseen_is_written_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["a" * 10**8, "\x1b" * 500, "a b " * 10**4])
def test_a_message_stays_short_and_costs_nothing(text):
    started = time.process_time()
    shown = printable(text)
    assert len(shown) <= LONGEST and " ... " in shown
    assert time.process_time() - started < 0.1
