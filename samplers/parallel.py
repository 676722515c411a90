"""Parallel sampling by Picard iteration, for hardware on which a batch is cheaper than a step.

Euler's states solve x_{i+1} = x_0 + sum_{j <= i} h_j v(x_j, t_j). A sweep evaluates v at all of
them together and sums again. Each sweep makes at least one more state exact, and smooth fields need
far fewer sweeps than steps. Shih et al. 2023 (ParaDiGMS).
"""

from numbers import Real

import torch
from torch import Tensor

from samplers.callables import check_velocity
from samplers.core import Times, Velocity, find, refuse_state, refuse_vmap, times
from samplers.fields import fitting, grid_dependent, jumps_of
from samplers.states import one_tensor


def picard(v: Velocity, noise: Tensor, ts: Times, *, tolerance: float = 1e-3) -> Tensor:
    """Returns the final state of Euler's method on the grid `ts`, within `tolerance`, by parallel
    sweeps.

    noise is (B, ...). A sweep calls v once with the states of all N steps as a batch of N B, steps
    first, and t of shape (N B, 1, ..., 1); `samplers.count` counts the sweeps. It stops when no
    state moved by more than `tolerance` (RMS of a sample), at the latest after N sweeps, when all
    are exact. Raises ValueError for fields that depend on the grid, and FloatingPointError if a
    velocity was not finite.
    """
    if not isinstance(tolerance, Real) or not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance!r:.60}; expected an RMS of at least 0")
    check_velocity(v)
    refuse_state(one_tensor(noise, "the noise"))
    refuse_vmap("picard ends its sweeps by", "give it all samples as one batch (B, ...)")
    if grid_dependent(v):
        raise ValueError(
            "this guided field depends on the run's time grid, which parallel sampling does not "
            "pass on; use samplers.sample with a solver such as euler"
        )
    ts = times(ts, find("euler"), jumps_of(v))
    if not noise.numel():  # no sample, no call
        return noise
    steps, ones = len(ts) - 1, [1] * (noise.ndim - 1)
    # times of a batch live where the state does, in its dtype: Apple's GPUs have no float64
    at = ts[:-1].repeat_interleave(len(noise)).to(noise.dtype).to(noise.device).reshape(-1, *ones)
    h = ts.diff().to(noise.dtype).to(noise.device).reshape(-1, *[1] * noise.ndim)
    states = noise.expand(steps + 1, *noise.shape)
    for _ in range(steps):
        batch = states[:-1].reshape(-1, *noise.shape[1:])
        slopes = fitting(v(batch, at), batch).reshape(steps, *noise.shape)
        before, states = states, torch.cat([noise[None], noise + (h * slopes).cumsum(0)])
        if float((states - before).flatten(2).square().mean(2).max().sqrt()) <= tolerance:
            break
    if not bool(states[-1].isfinite().all()):
        raise FloatingPointError("a velocity of the sweeps was not finite; correct v")
    return states[-1]
