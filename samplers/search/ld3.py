"""Trains the times of a grid by gradients through the solver: LD3; Tong et al. 2024 (2405.15506).

The student takes few steps from noise x' and should end where an accurate teacher ends from noise
x. Few steps cannot follow the teacher exactly, so x' may differ from x within a ball and is trained
with the times; this fits the student's distribution rather than single paths.
"""

import torch
from torch import Tensor

from samplers.comparison import endpoints
from samplers.core import SOLVERS, Solver, Velocity, find, sample
from samplers.fields import per_sample
from samplers.search.learn import demand_gradient, grid_of, log_error, ramp
from samplers.states import one_tensor


def fit_times(
    v: Velocity,
    noise: Tensor,
    calls: int,
    solver: str | Solver = "heun",
    *,
    reference: Tensor | float = 1e-6,
    radius: float = 0.0,
    iterations: int = 100,
    rate: float = 0.05,
) -> Tensor:
    """Returns times (steps + 1,) from 0 to 1 for a field, fitted by gradients of the endpoint
    error.

    v must be differentiable in x and t, and the solver must support gradients of its times; use
    `learn.fit_grid` otherwise. One iteration is a run and its backward pass.

    Args:
        noise: (B, ...), some tens of samples.
        reference: the teacher's endpoints, or the tolerance of dopri8 to compute them with.
        radius: the largest RMS distance between a student's noise and the teacher's.
        rate: the learning rate of the logarithms of the steps.

    Raises ValueError if a gradient is missing.
    """
    chosen = find(solver)
    if not chosen.time_gradient or not isinstance(chosen.grid, str):
        able = ", ".join(name for name, s in SOLVERS.items() if s.time_gradient and not s.maps)
        raise ValueError(f"{chosen.name} carries no gradient to its times; choose one of {able}")
    one_tensor(noise, "the noise")
    if isinstance(reference, Tensor) and reference.shape != noise.shape:
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)} and the noise {tuple(noise.shape)}; "
            "pass the endpoint of each state"
        )
    demand_gradient(v, noise)
    if not isinstance(reference, Tensor):
        with torch.no_grad():
            reference = endpoints(v, noise, reference)
    gaps = torch.zeros(chosen.steps(calls), dtype=torch.float64, device="cpu", requires_grad=True)
    shift = torch.zeros_like(noise, requires_grad=True)
    adam = torch.optim.Adam([{"params": [gaps]}, {"params": [shift]}], lr=rate)
    best, found = float("inf"), grid_of(gaps.detach())
    for i in range(iterations):
        for group in adam.param_groups:
            group["lr"] = rate * ramp(i / iterations)
        error = log_error(sample(v, noise + ball(shift, radius), grid_of(gaps), chosen), reference)
        if (value := float(error.detach())) < best:
            best, found = value, grid_of(gaps.detach())
        adam.zero_grad()
        error.backward()
        adam.step()
    return found


def ball(shift: Tensor, radius: float) -> Tensor:
    """Returns each sample's shift, shortened to an RMS of at most `radius`."""
    rms = shift.flatten(1).square().mean(1).add(1e-20).sqrt()
    return shift * per_sample((radius / rms).clamp(max=1.0), shift)
