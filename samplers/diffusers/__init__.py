"""Bridges to diffusers: its flow schedulers as solvers, and our solvers as schedulers.

diffusers uses sigma from 1 (noise) to 0 (data) and its models predict -v, so t = 1 - sigma and
output = -v. The conversion happens in this folder only.
"""

from samplers.diffusers.as_scheduler import SolverScheduler
from samplers.diffusers.as_solver import as_shipped, drive, from_diffusers, place, placed
from samplers.diffusers.replay import call_times, replay

__all__ = [
    "SolverScheduler",
    "as_shipped",
    "call_times",
    "drive",
    "from_diffusers",
    "place",
    "placed",
    "replay",
]
