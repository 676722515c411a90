"""Memory that is freed stays with the process that said so."""

import subprocess
import sys

import pytest

from janusflow.allocation import SETTINGS, keep_freed

# Page faults of asking for eight times 8 MiB, filling and giving them back, over and over.
FAULTS = """
import resource, torch
from janusflow.allocation import keep_freed
if {keep}: assert keep_freed({{}})
def step(): [torch.ones(2**21) for _ in range(8)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed({}), reason="this libc has no mallopt")
def test_freed_memory_is_used_again_without_a_page_fault():
    assert faults(FAULTS.format(keep=True)) < faults(FAULTS.format(keep=False)) / 10


def test_what_the_environment_sets_is_left_alone():
    """mallopt is not called for it: with all three set, the faults are those of no call at all."""
    kept = dict.fromkeys(SETTINGS, "1")
    code = FAULTS.format(keep=True).replace("keep_freed({})", f"keep_freed({kept})")
    assert faults(code) > 10 * faults(FAULTS.format(keep=True))
