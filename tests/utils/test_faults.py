"""Nothing that was complete is lost, and the message says what to do."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from janusflow.cli import command_tree as commands
from janusflow.cli import main
from janusflow.data.feature_cache import Cache
from janusflow.pipelines import image_io
from janusflow.training import checkpoints, loop
from janusflow.utils import locked_dir

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def small_disk(size):
    """No file may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(seed):
    return torch.randn(9000, generator=torch.Generator().manual_seed(seed))


def picture(path, seed):
    content = noise(seed).view(torch.uint8).numpy().tobytes()
    image_io.save(Image.frombytes("RGB", (100, 120), content), {"prompt": "x"}, path)


def shelf(path, seed):
    Cache(path.parent, {}).add({path.stem: {"latents": noise(seed)}})


WRITERS = {
    "a text": ("report.json", lambda path, seed: locked_dir.write(path, str(seed) * 9000)),
    "an image": ("p.png", picture),
    "a checkpoint": (
        "step-00000001.safetensors",
        lambda path, seed: checkpoints.write(path, {"a": noise(seed)}, {}),
    ),
    "a cache": ("0.safetensors", shelf),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_on_a_full_disk_what_was_whole_stays_and_nothing_half_is_left(kind, tmp_path):
    name, write = WRITERS[kind]
    path = tmp_path / name
    write(path, 1)
    whole = path.read_bytes()
    with small_disk(5000), pytest.raises(OSError, match=r"same command|free some space") as caught:
        write(path, 2)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == whole and os.listdir(tmp_path) == [name]
    write(path, 2)
    assert path.read_bytes() != whole


def test_one_run_holds_a_folder_and_the_processes_of_that_run_share_it(tmp_path, monkeypatch):
    with locked_dir.alone(tmp_path):
        with pytest.raises(
            ValueError, match=r"another run is at work in .*; wait for it, or choose"
        ):
            with locked_dir.alone(tmp_path):
                pass
        monkeypatch.setenv("RANK", "1")
        with locked_dir.alone(tmp_path):
            pass
    monkeypatch.delenv("RANK")
    with locked_dir.alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    for make in (lambda: locked_dir.make_folder(out), lambda: locked_dir.alone(out).__enter__()):
        with pytest.raises(OSError, match=r"file/out cannot be written \(.*\); .*same command"):
            make()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_says_what_stays_and_how_to_go_on(number, tmp_path, monkeypatch, capsys):
    def work(*_, **__):
        with locked_dir.alone(tmp_path):
            os.kill(os.getpid(), number)
            signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(commands, "app", work)
    monkeypatch.setattr(sys, "argv", ["janusflow", "evaluate"])
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            main.main()
    finally:
        signal.signal(signal.SIGINT, ours)
    said = capsys.readouterr().err
    assert left.value.code == 128 + number and said.startswith(
        "janusflow: stopped; complete files are kept in"
    )
    assert "same command" in said and said.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/x/y"),
        PermissionError(errno.EPERM, "Operation not permitted", "/x/y"),
        OSError(errno.EROFS, "Read-only file system"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=str,
)
def test_whatever_cannot_be_written_is_said_with_what_to_do(error, monkeypatch, capsys):
    def work(*_, **__):
        raise error

    monkeypatch.setattr(commands, "app", work)
    monkeypatch.setattr(sys, "argv", ["janusflow", "train"])
    with pytest.raises(SystemExit) as left:
        main.main()
    said = capsys.readouterr().err
    assert left.value.code == 2 and "same command" in said and said.count("\n") == 1


def test_a_process_that_is_gone_is_not_taken_for_a_mistake_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    closed = RuntimeError("[/pytorch/third_party/gloo/pair.cc:534] Connection closed by peer")
    with pytest.raises(OSError, match=r"another process of this run ended .*same command"):
        with loop.together(tmp_path):
            raise closed
    with pytest.raises(RuntimeError, match="shape"):
        with loop.together(tmp_path):
            raise RuntimeError("a shape does not fit")


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "job"), [("worker death", "train")])
def test_a_fault_of_the_command_loses_nothing(fault, job):
    words = [sys.executable, "-m", "checks.faults", fault, job, "1", "5"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"| {fault} | {job} | 1 | 0 | 0 | 0 | 0 | 0 |" in done.stdout
