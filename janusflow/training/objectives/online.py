"""The common part of reward objectives: images from a lagged copy of the model, and their
rewards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import samplers
from janusflow.data.samples import Sample
from janusflow.training import rewards, rollouts, timestep_sampling
from janusflow.training.encoding import latents_of
from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.map_losses import squared
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective

NOISE, TESTED = 7, 8  # streams of random numbers, apart from those of training


class Online(Objective):
    """Base class: `prepare` adds generated images, rewards and advantages to the samples of each
    prompt.

    Images come from the policy, a copy that follows the model by policy <- lag policy + (1 - lag)
    model after each update; `lag` rises linearly from `lag_first` to `lag_last` over `lag_steps`.
    The advantage is (reward - mean of the prompt's rewards) / standard deviation over the step.
    """

    def __init__(
        self,
        context: Context,
        *,
        reward: str = "0.65*strict + 0.35*lenient",
        watch: tuple = (),  # rewards that are logged and not learnt from
        group: int = 16,  # images of a prompt
        sampler: str = "abm",
        steps: int = 8,
        times: str = "",  # of the sampler as "0 0.1 0.4 1"; its own grid unless given
        guidance: float = 1.0,
        guided_until: float = 1.0,
        lag_first: float = 0.5,
        lag_last: float = 0.95,
        lag_steps: int = 100,
        kl: float = 0.0,  # weight of the squared distance to the base model's velocity
        test_every: int = 0,  # steps between scores of test prompts; 0 for none
        test_prompts: int = 96,
    ):
        super().__init__(context)
        context.need_vae("janusflow reward")
        self.reward, self.group, self.kl = rewards.find(reward), group, kl
        self.watched = {name: rewards.find(name) for name in watch}
        self.solver = samplers.core.find(sampler)
        self.ts = times_of(times, steps, self.solver)
        rule = samplers.guidance_interval(guidance, 0, guided_until)
        self.guidance = 1.0 if guidance == 1 else rule
        self.lag = (lag_first, lag_last, max(1, lag_steps))
        self.test_every, self.test_prompts = test_every, test_prompts
        self.policy = self.keep(Copy(context.model, "policy"))
        self.base = self.keep(Copy(context.model, "base")) if kl else None
        self.tests: Sequence[Sample] = ()  # set by the run, as the processor is
        self.processor: object | None = None

    def noise(self, keys: Sequence[tuple[int, ...]]) -> Tensor:
        """Returns normal noise of a latent's shape, a function of the keys alone."""
        return noise_of(self.context, keys)

    def generate(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        seed = self.context.stage.seed
        latents, told = self.rollout(samples, [(seed, step, NOISE, row) for row in rows])
        graded = self.graded(samples, latents)
        found = self.reward(graded).cpu()
        advantage = self.advantages(found)
        self._measure(found, graded, step)
        told |= {"advantage": advantage} | self.extras(found, advantage)
        return [
            replace(s, latents=x, extra=dict(s.extra) | {n: v[i] for n, v in told.items()})
            for i, (s, x) in enumerate(zip(samples, latents, strict=True))
        ]

    def rollout(self, samples: Sequence[Sample], keys: Sequence[tuple[int, ...]]):
        """Returns the generated latents, and tensors (B, ...) to keep with them, by name."""
        return self.images(samples, keys), {}

    def extras(self, rewards: Tensor, advantage: Tensor) -> dict[str, Tensor]:
        """Returns the numbers (B,) that an algorithm stores with each image, by name."""
        return {}

    def images(self, samples: Sequence[Sample], keys: Sequence[tuple[int, ...]]) -> Tensor:
        """Generates latents (B, c, h, w) by the policy, from noise of the keys alone."""
        noise = self.noise(keys)
        model = self.policy.model
        path = rollouts.paths(model, samples, noise, self.ts, self.solver, self.guidance)
        return path[:, -1].cpu()

    def graded(self, samples: Sequence[Sample], latents: Tensor) -> rewards.Graded:
        """Decodes the latents to images that are ready for rewards."""
        judge = dict(model=self.policy.model, processor=self.processor)
        return rewards.graded(self.context.vae, samples, latents, **judge)

    def advantages(self, found: Tensor) -> Tensor:
        """Returns rewards (B,) minus their group's mean, over the step's standard deviation."""
        groups = found.view(-1, self.group)
        centred = (groups - groups.mean(dim=1, keepdim=True)).flatten()
        return centred / found.std(correction=0).clamp(min=1e-4)

    def _measure(self, found: Tensor, graded: rewards.Graded, step: int) -> None:
        self._measured["reward"] = float(found.mean())
        for name, watched in self.watched.items():
            self._measured[f"watched_{name}"] = float(watched(graded).mean())
        groups = found.view(-1, self.group)
        self._measured["undecided"] = float((groups.std(dim=1, correction=0) > 0).float().mean())
        if self.test_every and self.tests and step % self.test_every == 0:
            tests = list(self.tests)
            keys = [(self.context.stage.seed, 0, TESTED, i) for i in range(len(tests))]
            scores = self.graded(tests, self.images(tests, keys)).scores
            self._measured["test_strict"] = sum(s.strict for s in scores) / len(scores)
            self._measured["test_lenient"] = sum(s.lenient for s in scores) / len(scores)

    def weights(self, step: int) -> dict[str, float]:
        return dict.fromkeys(self.losses, 1.0) | {"kl": self.kl}

    def to_base(self, net: Network, batch: Batch, velocity: Tensor) -> dict[str, Tensor]:
        """Returns {"kl": mean squared distance (G,) to the initial velocity}, if weighted."""
        if self.base is None:
            return {}
        return {"kl": squared(velocity - self.base.velocity(net, batch))}

    def updated(self, step: int) -> None:
        first, last, steps = self.lag
        self.policy.follow(first + (last - first) * min(1.0, step / steps))


def shape_of(model: nn.Module, vae: nn.Module) -> tuple[int, int, int]:
    """Returns a latent's shape for an image of the model's size."""
    side = model.config.vision.image_size
    return tuple(latents_of(vae, torch.zeros(1, 3, side, side)).shape[1:])


def noise_of(context: Context, keys: Iterable[tuple[int, ...]]) -> Tensor:
    """Returns normal noise (B, c, h, w); each image's noise is a function of its key alone."""
    shape = shape_of(context.model, context.vae)
    each = [torch.randn(shape, generator=timestep_sampling.generator(*key)) for key in keys]
    return torch.stack(each)


def worth_of(reward: rewards.Reward, images: rewards.Graded) -> Tensor:
    """Returns rewards (B,) as weights. Raises ValueError for a reward outside [0, 1]."""
    found = reward(images).cpu()
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(
            f"objective.reward gave {float(found.min()):.3g} to {float(found.max()):.3g}; expected "
            "0 to 1, so choose weights that sum to 1 at most"
        )
    return found


def times_of(text: str, steps: int, solver: samplers.Solver) -> Tensor:
    """Returns the times written in `text`, or a solver's own grid of so many steps."""
    if not text:
        place = samplers.GRIDS[solver.grid] if isinstance(solver.grid, str) else solver.grid
        return place(steps)
    try:
        return samplers.core.times([float(t) for t in text.split()], solver)
    except ValueError as error:
        raise ValueError(
            f"objective.times is {text!r:.80}; expected times that rise from 0 to 1, such as '0 "
            "0.5 1'"
        ) from error
