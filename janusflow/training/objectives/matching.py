"""Reward objectives based on the flow matching loss: advantage-weighted, best of N, and
preferences.
"""

from dataclasses import replace

import torch
from torch import Tensor

from janusflow.training import timestep_sampling
from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.map_losses import squared
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, objective
from janusflow.training.objectives.online import Online

SHARED = 10  # stream of the noise that a pair shares


def _uniform(seed: int, step: int, row: int) -> Tensor:
    return torch.rand((), generator=timestep_sampling.generator(seed, step, SHARED, row, 1))


def flow_loss(velocity: Tensor, batch: Batch) -> Tensor:
    """|v - (data - noise)|^2 of each sample, (B,)."""
    return squared(velocity - (batch.data - batch.noise))


def clipped(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - c, 1 + c) A), (B,) each; Schulman et al. 2017 (PPO), eq. 7."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


@objective
class AWM(Online):
    """Advantage-weighted matching: a policy gradient in which the flow matching loss L stands for
    -log p.

    ratio = exp(L_policy - L) at the same noise and time, clipped as in PPO; `scale` multiplies
    L_policy - L. Xue et al. 2025, arXiv 2509.25050.
    """

    losses = ("awm", "kl")

    def __init__(self, context: Context, *, ratio_clip: float = 0.2, scale: float = 1.0, **shared):
        super().__init__(context, **shared)
        self.ratio_clip, self.scale = ratio_clip, scale

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        v = net.out.velocity
        old = self.policy.velocity(net, batch)
        ratio = (self.scale * (flow_loss(old, batch) - flow_loss(v, batch))).exp()
        advantage = batch.extra["advantage"].clamp(-5, 5)
        return {"awm": clipped(ratio, advantage, self.ratio_clip)} | self.to_base(net, batch, v)


@objective(name="best_of_n")
class BestOfN(Online):
    """Flow matching on the image with the best reward of each prompt, if it is above the prompt's
    mean.

    This is online rejection sampling, the baseline of the other objectives.
    """

    losses = ("best_of_n", "kl")

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        v = net.out.velocity
        chosen = batch.extra["chosen"] * self.group  # the mean is over all images
        return {"best_of_n": chosen * flow_loss(v, batch)} | self.to_base(net, batch, v)

    def extras(self, rewards: Tensor, advantage: Tensor) -> dict[str, Tensor]:
        groups = rewards.view(-1, self.group)
        best = torch.nn.functional.one_hot(groups.argmax(dim=1), self.group).flatten()
        return {"chosen": best * (advantage > 0).float()}


@objective
class DPO(Online):
    """Diffusion-DPO on pairs made online: each prompt's best image is preferred to its worst.

    -log sigmoid(-beta ((L+ - L+_base) - (L- - L-_base))) with the flow matching loss L, both images
    at the same noise and time. Wallace et al. 2023, arXiv 2311.12908, eq. 14. Raises ValueError if
    gradient accumulation separates a pair.
    """

    losses = ("dpo", "kl")

    def __init__(self, context: Context, *, beta: float = 50.0, **shared):
        super().__init__(context, **{"kl": 0.0} | shared)
        self.beta = beta
        self.base = self.base or self.keep(Copy(context.model, "base"))

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        sign = batch.extra["sign"]
        if len(sign) % self.group:
            raise ValueError(
                f"run.accumulation splits groups of {self.group} images; lower it so that each "
                "micro-batch has complete groups"
            )
        v = net.out.velocity
        theirs = self.base.velocity(net, batch)
        gain = sign * (flow_loss(v, batch) - flow_loss(theirs, batch))  # 0 for all others
        margins = gain.view(-1, self.group).sum(dim=1)
        decided = (sign.view(-1, self.group).abs().sum(dim=1) > 0).float()
        each = -torch.nn.functional.logsigmoid(-self.beta * margins) * decided
        return {"dpo": each.repeat_interleave(self.group)} | self.to_base(net, batch, v)

    def generate(self, samples, rows, step):
        made = super().generate(samples, rows, step)
        stage, first = self.context.stage, list(rows)[:: self.group]
        noise = self.noise([(stage.seed, step, SHARED, row) for row in first])
        u = torch.stack([_uniform(stage.seed, step, row) for row in first])
        t = timestep_sampling.at(u, stage.density, shift=stage.shift, **stage.time_options)
        pairs = [
            {"noise": noise[i // self.group], "t": t[i // self.group]} for i in range(len(made))
        ]
        return [replace(s, extra={**s.extra, **p}) for s, p in zip(made, pairs, strict=True)]

    def extras(self, rewards: Tensor, advantage: Tensor) -> dict[str, Tensor]:
        groups = rewards.view(-1, self.group)
        best, worst = groups.argmax(dim=1, keepdim=True), groups.argmin(dim=1, keepdim=True)
        sign = torch.zeros_like(groups)
        sign.scatter_(1, best, 1.0)
        sign.scatter_(1, worst, -1.0)
        decided = groups.amax(dim=1, keepdim=True) > groups.amin(dim=1, keepdim=True)
        return {"sign": (sign * decided).flatten()}
