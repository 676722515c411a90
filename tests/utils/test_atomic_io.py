"""What is written is complete or absent, wherever the name leads."""

import os
import stat

import pytest
import torch

from janusflow.utils import atomic_io, digests


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    atomic_io.write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert os.listdir(tmp_path / "far") == ["a.txt"]


def test_a_read_only_file_is_refused_and_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(OSError, match=r"a\.txt cannot be written \(it is read-only\); .*same comm"):
        atomic_io.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    with pytest.raises(OSError, match="it is a folder"):
        atomic_io.write_text(tmp_path, "new")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_whatever_ends_the_writing_leaves_the_old_file_alone(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        with atomic_io.replacing(path) as part:
            part.write_text("half")
            raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_umasks_mode_whatever_its_writer_did(tmp_path):
    with atomic_io.replacing(tmp_path / "a") as part:
        part.write_text("x")
        part.chmod(0o600)
    assert mode(tmp_path / "a") == 0o644


@pytest.mark.usefixtures("umask")
def test_an_old_file_keeps_its_mode(tmp_path):
    (tmp_path / "a").touch(0o600)
    (tmp_path / "a").chmod(0o600)
    atomic_io.write_text(tmp_path / "a", "secret")
    assert mode(tmp_path / "a") == 0o600


def test_what_a_killed_run_left_does_not_stand_in_the_way(tmp_path):
    part = atomic_io.part_of(tmp_path / "a")
    part.write_text("half of something longer")
    part.chmod(0o400)
    atomic_io.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127])
def test_the_longest_name_of_a_file_can_be_written(name, tmp_path):
    atomic_io.write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.usefixtures("umask")
def test_weights_of_a_saved_pipeline_can_be_read_by_others(tiny_pipe, tmp_path):
    tiny_pipe.save_pretrained(tmp_path / "m")
    modes = {str(p): mode(p) for p in (tmp_path / "m").rglob("*") if p.is_file()}
    assert set(modes.values()) == {0o644}, modes


def test_tensors_and_files_have_one_digest(tmp_path):
    (tmp_path / "a").write_text("x")
    assert digests.of_file(tmp_path / "a") == digests.of_bytes("x") == digests.of_bytes(b"x")
    a, b = torch.zeros(2), torch.ones(2)
    assert digests.of_tensors({"a": a, "b": b}) == digests.of_tensors({"b": b, "a": a})
    assert digests.of_tensors({"a": a, "b": b}) != digests.of_tensors({"a": b, "b": a})
