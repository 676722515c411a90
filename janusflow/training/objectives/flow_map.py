"""A flow map u(x, t, s) from the guided teacher's trajectories, for one, two or four
evaluations.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

import samplers
from janusflow.data.samples import Sample
from janusflow.training import rollouts
from janusflow.training.objectives.distilled import Distilled
from janusflow.training.objectives.map_losses import squared
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, objective
from janusflow.training.objectives.online import noise_of

NOISE = 9  # stream of random numbers


@objective(name="flow_map")
class DistilledFlowMap(Distilled):
    """Mean velocities of trajectory segments: |u(x_t, t, s) - (x_s - x_t) / (s - t)|^2.

    Each prompt's trajectory is generated from new noise by a frozen copy of the initial model with
    its guidance. `evaluations` lists the numbers of segments into which it is cut; each cut gives
    training rows. Only the decoder sees s (decoupled MeanFlow, arXiv 2510.24474), so there are no
    new weights and u(x, t, t) starts as v(x, t). `stretch` p weights a segment's loss by (s - t)^p.
    With a `reward` between 0 and 1 a trajectory is weighted by the reward of its image.
    """

    losses = ("flow_map",)

    def __init__(self, context: Context, *, sampler: str = "abm", stretch: float = 0.0, **shared):
        super().__init__(context, sampler, **shared)
        self.segments = segments(len(self.ts) - 1, self.evaluations)
        self.factor, self.stretch = len(self.segments), stretch
        until = samplers.guidance_interval(self.guidance, 0, self.guided_until)
        self.rule = 1.0 if self.guidance == 1 else until

    def generate(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        seed = self.context.stage.seed
        noise = noise_of(self.context, [(seed, step, NOISE, row) for row in rows])
        how = (self.ts, self.solver, self.rule)
        paths = rollouts.paths(self.teacher.model, samples, noise, *how).cpu()
        worth = self.worth(samples, paths[:, -1])
        made = [replace(s, extra={"worth": w}) for s, w in zip(samples, worth, strict=True)]
        return [one for s, path in zip(made, paths, strict=True) for one in self._cut(s, path)]

    def _cut(self, sample: Sample, path: Tensor) -> list[Sample]:
        """Returns one sample for each segment of a trajectory (S, c, h, w)."""
        ts = self.ts.to(torch.float32)
        return [
            replace(
                sample,
                latents=path[-1],
                extra=dict(sample.extra)
                | {
                    "noise": path[0],
                    "x": path[i],
                    "t": ts[i],
                    "s": ts[j],
                    "mean": (path[j] - path[i]) / (ts[j] - ts[i]),
                },
            )
            for i, j in self.segments
        ]

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        each = squared(net.out.velocity - batch.extra["mean"])
        return {"flow_map": batch.extra["worth"] * each * (batch.s - batch.t) ** self.stretch}


def segments(steps: int, evaluations: Sequence[int]) -> list[tuple[int, int]]:
    """Returns (from, to) indices on a grid of so many steps, cut evenly into each number of
    segments.

    Raises ValueError for a number that does not divide the steps.
    """
    found = []
    for count in evaluations:
        if not isinstance(count, int) or count < 1 or steps % count:
            raise ValueError(
                f"objective.evaluations holds {count!r}; expected divisors of the {steps} steps of "
                "the teacher"
            )
        found += pairwise(range(0, steps + 1, steps // count))
    return list(dict.fromkeys(found))
