"""Help texts of the modules that run as programs."""

import sys
from pathlib import Path

import pytest

from samplers import command_line

ROOT = Path(__file__).parent.parent.parent


def test_help_states_every_default_once():
    parser = command_line.parser("Measures this: python -m this\n\nMore about it.")
    parser.add_argument("--steps", type=int, default=0, help="Takes this many steps.")
    parser.add_argument("--sizes", nargs="+", default=[1, 2], help="Measures these sizes.")
    parser.add_argument("--calls", default=4, help="Takes so many calls. The default is four.")
    parser.add_argument("--out", help="Writes to this file.")
    parser.add_argument("--share", default="50%", help="Takes 50 %% or less.")
    parser.add_argument("--fast", action="store_true", help="Hurries.")
    text = parser.format_help()
    assert "Measures this.\n" in text and "More about it" not in text
    for line in ("steps. [default: 0]", "sizes. [default: 1 2]", "50 % or less. [default: 50%]"):
        assert line in text
    assert text.count("default") == 4 and "None" not in text


def test_every_program_takes_its_parser_from_here():
    folders = ("checks", "studies", "samplers", "janusflow")
    files = [file for name in folders for file in (ROOT / name).rglob("*.py")]
    own = [file for file in files if "ArgumentParser(" in file.read_text(encoding="utf-8")]
    assert own == [Path(command_line.__file__)]


def test_positional_arguments_have_a_default_or_are_required(monkeypatch, capsys):
    each = dict(count=(int, ..., "Counts to this."), seed=(int, 3, "Seeds it."))
    monkeypatch.setattr(sys, "argv", ["count", "5"])
    assert command_line.positionals("Counts.", **each) == {"count": 5, "seed": 3}
    monkeypatch.setattr(sys, "argv", ["count"])
    with pytest.raises(SystemExit):
        command_line.positionals("Counts.", **each)
    assert "required: count" in capsys.readouterr().err


def test_every_program_answers_help():
    files = [file for name in ("checks", "studies") for file in (ROOT / name).rglob("*.py")]
    programs = [file for file in files if '__name__ == "__main__"' in file.read_text("utf-8")]
    silent = [file for file in programs if "command_line.p" not in file.read_text("utf-8")]
    assert len(programs) > 30 and not silent
