"""Flow-GRPO: policy gradients through stochastic sampling, with the density of each step."""

from collections.abc import Sequence

import torch
from torch import Tensor

import samplers
from janusflow.data.samples import Sample
from janusflow.training import rollouts, timestep_sampling
from janusflow.training.objectives.matching import clipped
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, objective
from janusflow.training.objectives.online import Online
from janusflow.utils.keywords import choice
from samplers.solvers.transitions import TRANSITIONS


@objective
class GRPO(Online):
    """-min(r A, clip(r) A) with r = p(y | x) / p_policy(y | x) of a sampling step x -> y.

    Of each image one step is trained, drawn from the first `window` steps. These add noise by
    `noise_steps` (flow_grpo, cps, euler_maruyama); the others are Euler steps (MixGRPO's window).
    log p is averaged over the latent's numbers. Liu et al. 2025, arXiv 2505.05470; Wang and Yu 2025
    (CPS), arXiv 2509.05952; Li et al. 2025 (MixGRPO), arXiv 2507.21802.
    """

    losses = ("grpo", "kl")

    def __init__(
        self,
        context: Context,
        *,
        noise_steps: str = "cps",
        strength: float = 0.5,
        window: int = 4,
        ratio_clip: float = 0.01,
        **shared,
    ):
        super().__init__(context, **{"sampler": "euler"} | shared)
        choice("objective.noise_steps is", noise_steps, TRANSITIONS)
        self.kind, self.options = noise_steps, {"strength": strength}
        self.window = min(window, len(self.ts) - 2)  # the last step may have no noise
        self.ratio_clip = ratio_clip

    def rollout(self, samples: Sequence[Sample], keys: Sequence[tuple[int, ...]]):
        model, generators = self.policy.model, [timestep_sampling.generator(*k, 1) for k in keys]
        picked = torch.stack([torch.randint(self.window, (), generator=g) for g in generators])
        found = []
        for start in range(0, len(samples), rollouts.AT_ONCE):
            part = slice(start, start + rollouts.AT_ONCE)
            x = self.noise(keys[part])
            found.append(self._walk(model, samples[part], x, picked[part], generators[part]))
        told = {name: torch.cat([one[name] for one in found]) for name in found[0]}
        return told.pop("latents"), told

    @torch.no_grad()
    def _walk(self, model, samples, x: Tensor, picked: Tensor, generators) -> dict[str, Tensor]:
        """Returns the ends of a batch's trajectories, and the selected step of each."""
        with rollouts.evaluating(model):
            v, place = (
                rollouts.field(model, samples, self.guidance),
                next(model.parameters()).device,
            )
            states, x = [x], x.to(place)
            for i, (t, s) in enumerate(zip(self.ts[:-1], self.ts[1:], strict=True)):
                mean, deviation = self._step(i, x, v(x, t), t, s)
                fresh = torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators])
                x = mean + deviation.to(x) * fresh.to(x)
                states.append(x.cpu())
        rows, path = torch.arange(len(picked)), torch.stack(states, dim=1)
        ts = self.ts.float()
        return {
            "latents": path[:, -1],
            "x": path[rows, picked],
            "next": path[rows, picked + 1],
            "t": ts[picked],
            "next_t": ts[picked + 1],
        }

    def _step(self, i: int, x: Tensor, k: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and deviation of a step: stochastic inside the window, Euler's outside."""
        if i < self.window:
            return TRANSITIONS[self.kind](x, k, t, s, **self.options)
        return x + float(s - t) * k, torch.zeros(())

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        v = net.out.velocity
        old = self.policy.velocity(net, batch)
        ratio = (self._log_prob(v, batch) - self._log_prob(old, batch)).exp()
        advantage = batch.extra["advantage"].clamp(-5, 5)
        found = {"grpo": clipped(ratio, advantage, self.ratio_clip)}
        return found | self.to_base(net, batch, v)

    def _log_prob(self, velocity: Tensor, batch: Batch) -> Tensor:
        """Returns the mean log-density of the step's numbers, (G,)."""
        way = (batch.x, batch.extra["next"], velocity, batch.t, batch.extra["next_t"])
        total = samplers.step_log_prob(*way, self.kind, **self.options)
        return total.to(velocity.dtype) / velocity[0].numel()
