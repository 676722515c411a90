"""The common part of objectives that distil a frozen guided teacher into few jumps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import samplers
from janusflow.data.samples import Sample
from janusflow.training import rewards
from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.objective import Context, Objective
from janusflow.training.objectives.online import times_of, worth_of


class Distilled(Objective):
    """Base class: `generate` makes the samples of a step, starting from the teacher's time grid.

    `solver` has the default grid. With a `reward` between 0 and 1 images count by their reward.
    """

    draws = True

    def __init__(
        self,
        context: Context,
        solver: str = "abm",
        *,
        evaluations: tuple = (4, 2, 1),
        steps: int = 8,
        times: str = "",  # of the teacher as "0 0.1 0.4 1"; the solver's own grid unless given
        guidance: float = 2.0,
        guided_until: float = 1.0,
        reward: str = "",
    ):
        super().__init__(context)
        context.need_vae("janusflow distill")
        self.solver = samplers.core.find(solver)
        self.ts = times_of(times, steps, self.solver)
        self.evaluations, self.guidance, self.guided_until = evaluations, guidance, guided_until
        self.teacher = self.keep(Copy(context.model, "teacher"))
        self.reward = rewards.find(reward) if reward else None
        self.processor: object | None = None  # for rewards that read images; set by the run

    def teach(self, teacher: nn.Module) -> None:
        """Sets the teacher, which is otherwise the model at the start."""
        for one in self.copies:
            one.become(teacher)

    def jumps(self) -> dict[str, list]:
        """Returns the times of the trained map and the supported numbers of evaluations."""
        return {"times": self.ts.tolist(), "evaluations": list(dict.fromkeys(self.evaluations))}

    def worth(self, samples: Sequence[Sample], latents: Tensor, name: str = "reward") -> Tensor:
        """Returns the weight (G,) of each image: its reward, logged as `name`, or 1 without one."""
        if self.reward is None:
            return torch.ones(len(samples))
        judge = dict(model=self.teacher.model, processor=self.processor)
        images = rewards.graded(self.context.vae, samples, latents, **judge)
        found = worth_of(self.reward, images)
        self._measured[name] = float(found.mean())
        return found
