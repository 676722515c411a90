"""A flow map u(x, t, s) from the guided teacher's trajectories, for one, two or four
evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

import samplers
from janusflow.data.samples import Sample
from janusflow.training import rewards, rollouts
from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective, objective
from janusflow.training.objectives.online import noise_of, times_of, worth_of

NOISE = 9  # stream of random numbers


@objective(name="flow_map")
class FlowMap(Objective):
    """Mean velocities of trajectory segments: |u(x_t, t, s) - (x_s - x_t) / (s - t)|^2.

    Each prompt's trajectory is generated from new noise by a frozen copy of the initial model with
    its guidance. `evaluations` lists the numbers of segments into which it is cut; each cut gives
    training rows. Only the decoder sees s (decoupled MeanFlow, arXiv 2510.24474), so there are no
    new weights and u(x, t, t) starts as v(x, t). `stretch` p weights a segment's loss by (s - t)^p.
    With a `reward` between 0 and 1 a trajectory is weighted by the reward of its image.
    """

    losses = ("flow_map",)
    draws = True

    def __init__(
        self,
        context: Context,
        *,
        evaluations: tuple = (4, 2, 1),
        sampler: str = "abm",
        steps: int = 8,
        times: str = "",  # of the teacher as "0 0.1 0.4 1"; the sampler's own grid unless given
        guidance: float = 2.0,
        guided_until: float = 1.0,
        stretch: float = 0.0,
        reward: str = "",
    ):
        super().__init__(context)
        context.need_vae("janusflow distill")
        self.solver = samplers.core.find(sampler)
        self.ts = times_of(times, steps, self.solver)
        self.guidance = (
            samplers.guidance_interval(guidance, 0, guided_until) if guidance != 1 else 1.0
        )
        self.evaluations = evaluations
        self.segments = segments(len(self.ts) - 1, evaluations)
        self.factor, self.stretch = len(self.segments), stretch
        self.teacher = Copy(context.model, "teacher")
        self.reward = rewards.find(reward) if reward else None
        self.processor: object | None = None  # for rewards that read images; set by the run
        self._measured: dict[str, float] = {}

    def prepare(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        teacher, seed = self.teacher.model, self.context.stage.seed
        made = [s for s in samples if s.kind == "generation"]
        if not made:
            return list(samples)
        noise = noise_of(self.context, [(seed, step, NOISE, row) for row in rows])
        how = (self.ts, self.solver, self.guidance)
        paths = rollouts.paths(teacher, made, noise, *how).cpu()
        worth = self.worth(made, paths[:, -1])
        made = [replace(s, extra={"worth": w}) for s, w in zip(made, worth, strict=True)]
        found = [one for s, path in zip(made, paths, strict=True) for one in self._cut(s, path)]
        return found + [s for s in samples if s.kind != "generation"]

    def teach(self, teacher: nn.Module) -> None:
        """Sets the teacher, which is otherwise the model at the start."""
        self.teacher.become(teacher)

    def jumps(self) -> dict[str, list]:
        """Returns the times of the trained map and the supported numbers of evaluations."""
        return {"times": self.ts.tolist(), "evaluations": list(self.evaluations)}

    def worth(self, samples: Sequence[Sample], latents: Tensor) -> Tensor:
        """Returns the weight of each trajectory, (G,): 1, or the reward of its image."""
        if self.reward is None:
            return torch.ones(len(samples))
        judge = dict(model=self.teacher.model, processor=self.processor)
        images = rewards.graded(self.context.vae, samples, latents, **judge)
        found = worth_of(self.reward, images)
        self._measured["reward"] = float(found.mean())
        return found

    def measured(self) -> dict[str, float]:
        return self._measured

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
        each = (net.out.velocity - batch.extra["mean"]).square().flatten(1).mean(dim=1)
        return {"flow_map": batch.extra["worth"] * each * (batch.s - batch.t) ** self.stretch}

    def state(self) -> dict[str, Tensor]:
        return self.teacher.state()

    def load(self, found: Mapping[str, Tensor]) -> None:
        self.teacher.load(found)


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
