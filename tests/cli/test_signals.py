"""Ctrl+C ends with 130, SIGTERM with 143 and SIGHUP with 129, and one line is said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from janusflow.cli import signals
from janusflow.training import stopping
from janusflow.utils import atomic_io, locked_dir

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SLOW = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"


def kill(number, *_args, **_kwargs):
    os.kill(os.getpid(), number)
    signal.pause()


@pytest.mark.parametrize("number", CODES)
def test_a_command_that_is_stopped_ends_with_the_signals_code(
    number, janusflow, tiny_folder, tmp_path, monkeypatch
):
    from janusflow import JanusFlowPipeline

    before = [signal.getsignal(n) for n in CODES]
    monkeypatch.setattr(JanusFlowPipeline, "__call__", lambda *_a, **_k: kill(number))
    code, out, err = janusflow("generate", "x", "--model", tiny_folder, "-o", tmp_path / "a.png")
    assert (code, out) == (CODES[number], "") and err == f"janusflow: {signals.KEPT}\n"
    assert [signal.getsignal(n) for n in CODES] == before and not list(tmp_path.iterdir())


def test_a_signal_that_a_library_makes_an_error_of_keeps_its_code(
    janusflow, tiny_folder, monkeypatch
):
    from janusflow import JanusFlowPipeline

    def swallow(*_args, **_kwargs):
        try:
            kill(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("something else") from None

    monkeypatch.setattr(JanusFlowPipeline, "from_pretrained", swallow)
    code, _, err = janusflow("chat", tiny_folder / "none.png", "what?")
    assert code == 2 and "cannot be opened" in err
    code, _, err = janusflow("generate", "x", "--model", tiny_folder)
    assert code == 143 and err.count("\n") == 1


def test_what_holds_a_folder_has_said_what_stays(janusflow, tmp_path, monkeypatch):
    from janusflow.cli.commands import evaluate_actions

    def run(*_args):
        with locked_dir.alone(tmp_path):
            kill(signal.SIGINT)

    monkeypatch.setattr(evaluate_actions, "plan", lambda _: None)
    monkeypatch.setattr(evaluate_actions, "run", run)
    code, _, err = janusflow("evaluate", "-o", tmp_path)
    assert code == 130 and err.count("\n") == 1 and "same command resumes" in err


def test_a_file_that_is_being_written_is_taken_away(tmp_path):
    before = signals.install()
    try:
        with pytest.raises(signals.Stopped), atomic_io.replacing(tmp_path / "a.png") as part:
            part.write_bytes(b"half")
            kill(signal.SIGTERM)
    finally:
        signals.restore(before)
    assert not list(tmp_path.iterdir())


def test_a_closed_terminal_ends_a_run_after_its_step_without_writing_to_it(tmp_path):
    leader, follower = os.openpty()
    child = os.fork()
    if child == 0:
        os.setsid()
        for stream in range(3):
            os.dup2(follower, stream)
        os.close(leader)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stopping.asked_to_stop() as asked:
            (tmp_path / "ready").touch()
            while not asked():
                time.sleep(0.01)
        os.write(2, b"to nowhere")
        os._exit(asked())
    os.close(follower)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.close(leader)
    os.kill(child, signal.SIGHUP)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == signal.SIGHUP


def test_nohup_is_obeyed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals.restore(signals.install())
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_that_was_stopped_does_not_go_on_to_its_export(janusflow, tmp_path, monkeypatch):
    from janusflow.training import job, loop

    class Job:
        def run(self):
            return loop.RunEnd(None, False, signal.SIGINT)

    monkeypatch.setattr(job, "of_recipe", lambda *_, **__: Job())
    monkeypatch.setattr(loop, "export", lambda *_: pytest.fail("exported"))
    words = ["train", "--recipe", "scenes-smoke", "-o", tmp_path, "--export", tmp_path / "e"]
    assert janusflow(*words)[0] == 130


@pytest.mark.parametrize("number", CODES)
def test_imports_are_left_at_once(number, tmp_path):
    (tmp_path / "slow_plugin.py").write_text(SLOW)
    command = [sys.executable, "-m", "janusflow", "samplers", "--plugin", "slow_plugin"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child = subprocess.Popen(command, cwd=tmp_path, env=env, **pipes)
    _until_busy(child)
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert child.returncode == CODES[number] and err == f"janusflow: {signals.NOTHING}\n"


def _until_busy(child) -> None:
    """Waits until the child has used some time and sleeps in the import."""
    stat = f"/proc/{child.pid}/stat"
    used = -1
    while child.poll() is None:
        time.sleep(0.3)
        now = sum(map(int, open(stat).read().rsplit(")", 1)[1].split()[11:13]))
        if now == used and now > 5:
            return
        used = now
