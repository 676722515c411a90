"""What people see at a terminal: progress while they wait, completion while they type."""

import io
import os
import re
import subprocess
import sys

import pytest
from transformers.utils import logging

LEFT = re.compile(r"\d+%\|.*\| \d+/\d+ \[\d\d:\d\d<[\d:?]+")  # done of all, time gone < time left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def long_ones(folder):
    prompts = folder / "prompts.txt"
    prompts.write_text("a red circle\ntwo blue squares\na green star\n")
    few = ["--prompts=1", "--seeds=1", "--steps=1", f"--out={folder / 'scores'}"]
    return {
        "generate": ["generate", f"--prompts={prompts}", "--steps=1", "--batch-size=1"],
        "evaluate": ["evaluate", *few],
        "pilot": ["pilot", "--quality=draft", "--samples=3", "--max-trials=3"],
        "pairs": ["pairs", "janusflow/scenes", "--count=1", "--steps=1"],
        "train": ["train", "--recipe=scenes-smoke", "--threads=1", "--set", "steps=2"],
    }


def command(name, folder):
    out = {"generate": "a.png", "pilot": "pilot.json", "pairs": "pairs", "train": "run"}
    ends = ["--out", str(folder / out[name])] if name in out else []
    device = [] if name in ("pairs", "train") else ["--device=cpu"]
    return [*long_ones(folder)[name], *ends, *device]


@pytest.mark.parametrize("name", ["generate", "evaluate", "pilot", "train"])
def test_a_long_command_shows_how_far_it_is_and_the_time_left(
    name, janusflow, tmp_path, monkeypatch
):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert janusflow(*command(name, tmp_path))[0] == 0
    assert LEFT.search(screen.getvalue()), screen.getvalue()


@pytest.mark.parametrize("name", ["generate", "evaluate", "pilot", "pairs"])
def test_a_long_command_is_silent_where_nobody_looks(name, janusflow, tmp_path):
    logging.enable_progress_bar()
    code, _, err = janusflow(*command(name, tmp_path))
    assert (code, err) == (0, "")


SHELLS = {
    "bash": dict(COMP_WORDS="janusflow gen", COMP_CWORD="1"),
    "zsh": dict(_TYPER_COMPLETE_ARGS="janusflow gen"),
    "fish": dict(_TYPER_COMPLETE_ARGS="janusflow gen", _TYPER_COMPLETE_FISH_ACTION="get-args"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_a_command(shell, tmp_path):
    script = tmp_path / "janusflow"  # as pip installs it
    script.write_text("from janusflow.cli.main import main\nmain()\n")
    asked = SHELLS[shell] | {"_JANUSFLOW_COMPLETE": f"complete_{shell}"}
    run = subprocess.run(
        [sys.executable, script],
        env={**os.environ, **asked, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "generate" in run.stdout and "evaluate" not in run.stdout and run.stderr == ""


@pytest.mark.slow
def test_a_command_that_is_piped_says_nothing_but_its_result(tmp_path):
    out = tmp_path / "circle.png"
    words = ["-m", "janusflow", "generate", "a red circle", "--steps", "1", "-o", str(out)]
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"{out}\n", "") and out.exists()
