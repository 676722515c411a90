"""What glibc is told, so that freed memory stays with the process."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from janusflow.allocation import SETTINGS, keep_freed


@pytest.fixture
def told(monkeypatch):
    """(parameter, value) of each call of mallopt, which succeeds."""
    calls = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    return calls


def test_glibc_is_told_to_trim_late_grow_far_and_map_little(told):
    assert keep_freed({})
    assert dict(told) == {-1: 2**31 - 1, -2: 2**26, -3: 2**25}  # malloc.h: M_TRIM_THRESHOLD, ...


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_environment_sets_is_left_alone(told, name):
    assert keep_freed({name: "4096"})
    assert SETTINGS[name] not in told and len(told) == len(SETTINGS) - 1


def test_another_libc_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert not keep_freed({})


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_this_glibc_takes_the_settings():
    assert keep_freed({})
