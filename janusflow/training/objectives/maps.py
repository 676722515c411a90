"""Flow maps u(x, t, s) trained without trajectories: MeanFlow, alpha-Flow, shortcuts, consistency.

Only the decoder sees s. A share of the samples has s = t and trains the velocity. The target
velocity is data - noise, optionally guided, or the guided velocity of a frozen copy of the model.
"""

import torch
from torch import Tensor, nn

from janusflow.training.objectives import map_losses
from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective, objective


class TwoTimes(Objective):
    """Base class: `loss(u, x, t, s, v)` over the samples, with s uniform between t and 1.

    With `guidance` w, v is uncond + w (v - uncond) until t = `guided_until`, where uncond is the
    model's own velocity without the prompt. With `distil`, v is the guided velocity of the initial
    model.
    """

    at_t = False

    def __init__(
        self,
        context: Context,
        *,
        at_t_share: float = 0.5,  # of samples that are held to the velocity, s = t
        guidance: float = 1.0,
        guided_until: float = 1.0,
        distil: bool = False,
        adaptive: float = 1.0,  # power by which a loss is divided by itself; 0 for none
    ):
        super().__init__(context)
        self.at_t_share, self.adaptive = at_t_share, adaptive
        self.guidance, self.guided_until = guidance, guided_until
        self.teacher = self.keep(Copy(context.model, "teacher")) if distil else None

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        x, t = batch.x, batch.t
        share = self.at_t_share
        reach = ((batch.uniform - share) / max(1 - share, 1e-6)).clamp(min=0)
        s = t + (1 - t) * reach
        each = self.loss(net.velocity, x, t, s, self.velocity(net, batch))
        return {self.losses[0]: map_losses.adaptive(each, self.adaptive)}

    def loss(self, u: map_losses.Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor) -> Tensor:
        """Returns the loss (B,); at s = t it is the flow matching loss."""
        raise NotImplementedError

    def teach(self, teacher: nn.Module) -> None:
        """Sets the teacher, which is otherwise the model at the start."""
        if self.teacher is None:
            raise ValueError(
                "distil is False, and a student learns only from its teacher's velocity; set "
                "objective.distil=true"
            )
        self.teacher.become(teacher)

    def jumps(self) -> dict[str, list]:
        """Returns jump times and the supported numbers of evaluations; any time is trained."""
        return {"times": [0, 0.25, 0.5, 0.75, 1], "evaluations": [4, 2, 1]}

    @torch.no_grad()
    def velocity(self, net: Network, batch: Batch) -> Tensor:
        """Returns the target velocity of the map's derivative, (G, c, h, w)."""
        x, t, v = batch.x, batch.t, batch.data - batch.noise
        model = self.teacher.model if self.teacher is not None else None
        if model is not None:
            v = net.velocity(x, t, model=model, dropped=torch.zeros_like(batch.dropped))
        s = t if model is None else None
        return net.guide(v, x, t, self.guidance, self.guided_until, s=s, model=model)


@objective(name="mean_flow")
class MeanFlow(TwoTimes):
    """|u - (v + (s - t) du/dt)|^2; `derivative` is "forward" or "finite". arXiv 2505.13447."""

    losses = ("mean_flow",)

    def __init__(self, context: Context, *, derivative: str = "finite", **shared):
        super().__init__(context, **shared)
        self.derivative = derivative

    def loss(self, u, x, t, s, v):
        return map_losses.mean_flow(u, x, t, s, v, self.derivative)


@objective(name="improved_mean_flow")
class ImprovedMeanFlow(MeanFlow):
    """|u - (s - t) du/dt - v|^2 with du/dt along the network's own velocity. arXiv 2512.02012."""

    losses = ("improved_mean_flow",)

    def loss(self, u, x, t, s, v):
        return map_losses.improved_mean_flow(u, x, t, s, v, self.derivative)


@objective(name="alpha_flow")
class AlphaFlow(TwoTimes):
    """Moves from flow matching (alpha 1) towards MeanFlow (alpha_last). arXiv 2510.20771."""

    losses = ("alpha_flow",)

    def __init__(
        self, context: Context, *, alpha_last: float = 0.05, until: float = 2 / 3, **shared
    ):
        super().__init__(context, **shared)
        self.alpha_last, self.until = alpha_last, until
        self.alpha = 1.0

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        progress = batch.step / max(1, self.until * self.context.stage.steps)
        self.alpha = max(self.alpha_last, 1 - progress)
        return super().__call__(net, batch)

    def loss(self, u, x, t, s, v):
        return self.alpha * map_losses.alpha_flow(u, x, t, s, v, self.alpha)


@objective(name="shortcut")
class Shortcut(TwoTimes):
    """Trains one jump to equal two jumps of half its length by a lagged copy. arXiv 2410.12557."""

    losses = ("shortcut",)

    def __init__(self, context: Context, *, lag: float = 0.95, **shared):
        super().__init__(context, **shared)
        self.lag, self.old = lag, self.keep(Copy(context.model, "lagged"))

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        self.lagged = lambda x, t, s: net.velocity(x, t, s, model=self.old.model)
        return super().__call__(net, batch)

    def loss(self, u, x, t, s, v):
        jump = map_losses.shortcut(u, x, t, s, self.lagged)
        return torch.where(s > t, jump, map_losses.flow_matching(u, x, t, v))

    def updated(self, step: int) -> None:
        self.old.follow(self.lag)


@objective(name="consistency")
class Consistency(Shortcut):
    """Trains jumps to t = 1 from neighbouring times to end at the same point. arXiv 2303.01469.

    `step` is the distance of the times at the start and `step_last` at the end, with geometric
    decay.
    """

    losses = ("consistency",)

    def __init__(
        self, context: Context, *, step: float = 1 / 8, step_last: float = 1 / 64, **shared
    ):
        super().__init__(context, **shared)
        self.step, self.ends = step, (step, step_last)

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        first, last = self.ends
        progress = min(1.0, batch.step / max(1, self.context.stage.steps))
        self.step = first * (last / first) ** progress
        return super().__call__(net, batch)

    def loss(self, u, x, t, s, v):
        held = map_losses.consistency(u, x, t, v, self.step, self.lagged)
        return torch.where(s > t, held, map_losses.flow_matching(u, x, t, v))


@objective(name="reflow")
class Reflow(Objective):
    """|v(x_t, t) - (data - noise)|^2 on pairs whose data were generated from their noise.

    The pairs come from `janusflow pairs`. Times are concentrated at both ends (density u_shaped;
    Lee et al. 2024, arXiv 2405.20320). Liu et al. 2022, arXiv 2209.03003, section 2.2. Raises
    ValueError for data without noise of their own.
    """

    losses = ("reflow",)

    def generate(self, samples, rows, step):
        for sample in samples:
            if "noise" not in sample.extra:
                raise ValueError(
                    f"{sample.name!r:.80} has no noise; generate pairs by janusflow pairs and pass "
                    "their folder as janusflow distill --pairs"
                )
        return list(samples)

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"reflow": map_losses.squared(net.out.velocity - (batch.data - batch.noise))}
