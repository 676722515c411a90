"""Distribution matching distillation: jumps whose ends look like the teacher's images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

import samplers
from janusflow.data.samples import Sample
from janusflow.training import losses, rewards, timestep_sampling
from janusflow.training.objectives.copies import Copy, Learner
from janusflow.training.objectives.map_losses import column
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective, objective
from janusflow.training.objectives.online import shape_of, times_of
from janusflow.utils.cpu.onednn_linear import repeating

NOISE, AGAIN = 10, 11  # streams of random numbers


def dmd(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(B,), half the squared distance of x to x - (fake - real) / mean |x - real|.

    `real` and `fake` are what two velocities take a noised x to have been, without gradients: so
    the gradient is (fake - real), towards where the data are denser and away from where the drawn
    images are. Yin et al. 2024, arXiv 2311.18828, eqs. 7 and 8.
    """
    with torch.no_grad():
        size = (x - real).abs().flatten(1).mean(dim=1).clamp(min=1e-5)
        aim = x - (fake - real) / column(size, x)
    return 0.5 * (x - aim).square().flatten(1).mean(dim=1)


@objective(name="dmd")
class DistributionMatching(Objective):
    """Images of few jumps u(x, t, s) whose distribution is held to a frozen guided teacher's.

    Each step draws by one of the numbers of `evaluations`, in turn, with gradients through all its
    jumps, and compares the teacher's velocity at the noised images with that of a copy which learns
    the drawn images' own distribution (`fake_lr`, `fake_updates` steps of AdamW each); every number
    of jumps has its copy. Without the adversarial part of DMD2 (Yin et al. 2024, arXiv 2405.14867).

    With a `reward` between 0 and 1, second copies learn the drawn images weighted by it, and the
    teacher's velocity is moved by `tilt` times the difference of the two: the images are held to
    p_teacher(x) r(x)^tilt, up to a constant.
    """

    losses = ("dmd",)
    at_t = False
    draws = True

    def __init__(
        self,
        context: Context,
        *,
        evaluations: tuple = (1, 2, 4),
        times: str = "",  # of the teacher's grid, whose parts the jumps are; even unless given
        steps: int = 8,
        guidance: float = 2.0,
        guided_until: float = 1.0,
        fake_lr: float = 4e-4,
        fake_updates: int = 2,
        reward: str = "",
        tilt: float = 1.0,
    ):
        super().__init__(context)
        context.need_vae("janusflow distill")
        self.ts = times_of(times, steps, samplers.core.find("abm"))
        self.evaluations = evaluations
        self.grids = [parts(self.ts, count) for count in evaluations]
        self.guidance, self.guided_until = guidance, guided_until
        self.reward, self.tilt = rewards.find(reward) if reward else None, tilt
        self.teacher = Copy(context.model, "teacher")
        self.fakes = [Learner(context.model, f"fake{n}", fake_lr) for n in evaluations]
        better = evaluations if reward else ()
        self.better = [Learner(context.model, f"better{n}", fake_lr) for n in better]
        self.fake_updates = fake_updates
        self.processor: object | None = None  # for rewards that read images; set by the run
        self._drawn: list[tuple[Network, Tensor]] = []
        self._measured: dict[str, float] = {}

    @property
    def copies(self) -> list[Copy]:
        return [self.teacher, *self.fakes, *self.better]

    def prepare(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        for one in self.copies:
            one.model  # noqa: B018 (copied before the first update)
        self._drawn.clear()
        shape, seed = shape_of(self.context.model, self.context.vae), self.context.stage.seed
        found, rows = [], iter(rows)
        for sample in samples:
            if sample.kind == "generation":
                noise = torch.randn(
                    shape, generator=timestep_sampling.generator(seed, step, NOISE, next(rows))
                )
                sample = replace(sample, latents=torch.zeros(shape), extra={"noise": noise})
            found.append(sample)
        return found

    def teach(self, teacher: nn.Module) -> None:
        """Holds the images to this model's instead of those of the model at the start."""
        for one in self.copies:
            one.become(teacher)

    def jumps(self) -> dict[str, list]:
        """The times between which the map is trained, and how many evaluations cross them."""
        return {"times": self.ts.tolist(), "evaluations": list(self.evaluations)}

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        x, t, turn = self.draw(net, batch), batch.t, self.turn(batch.step)
        self._drawn.append((net, x.detach()))
        with torch.no_grad():
            noised = losses.interpolate(self.noise_like(x, batch.step), x, t)
            fake = net.velocity(noised, t, model=self.fakes[turn].model)
            real = self.target(net, noised, t)
            if self.better:
                better = net.velocity(noised, t, model=self.better[turn].model)
                real = real + self.tilt * (better - fake)
            real, fake = (noised + column(1 - t, x) * v for v in (real, fake))
        return {"dmd": dmd(x, real, fake)}

    def turn(self, step: int) -> int:
        """Which number of evaluations a step draws by."""
        return step % len(self.grids)

    def draw(self, net: Network, batch: Batch) -> Tensor:
        """Images (G, c, h, w) by this step's number of jumps, with gradients."""
        x = batch.noise
        for t, s in pairwise(self.grids[self.turn(batch.step)]):
            t, s = (torch.full_like(batch.t, float(z)) for z in (t, s))
            x = x + column(s - t, x) * net.velocity(x, t, s)
        return x

    def target(self, net: Network, x: Tensor, t: Tensor) -> Tensor:
        """The teacher's velocity, guided until t = `guided_until`."""
        model, every = self.teacher.model, torch.ones_like(t, dtype=torch.bool)
        cond = net.velocity(x, t, model=model, dropped=~every)
        if self.guidance == 1 or not bool((inside := t <= self.guided_until).any()):
            return cond
        uncond = net.velocity(x, t, model=model, dropped=every)
        return torch.where(column(inside, x).bool(), uncond.lerp(cond, self.guidance), cond)

    def rng(self, step: int, part: int) -> torch.Generator:
        return timestep_sampling.generator(self.context.stage.seed, step, AGAIN, part)

    def noise_like(self, x: Tensor, step: int, part: int = 0) -> Tensor:
        """Normal noise, a function of the run's seed, the step and the part."""
        return torch.randn(x.shape, generator=self.rng(step, 2 * part)).to(x)

    @repeating()
    def updated(self, step: int) -> None:
        """Lets the copies learn the images that were just drawn, by flow matching."""
        turn, parts = self.turn(step - 1), len(self._drawn)
        worth = [self.worth(net, data) for net, data in self._drawn]
        for part in range(1, 1 + self.fake_updates):
            for (net, data), share in zip(self._drawn, worth, strict=True):
                noise = self.noise_like(data, step, part)
                t = torch.rand(len(data), generator=self.rng(step, 2 * part + 1)).to(data)
                how = (net, noise, data, t)
                (_flow(self.fakes[turn], *how).mean() / parts).backward()
                if self.better:
                    even = share.sum().clamp(min=1e-6) * parts
                    ((_flow(self.better[turn], *how) * share).sum() / even).backward()
            for one in (self.fakes, self.better):
                if one:
                    one[turn].step()
        self._drawn.clear()

    def worth(self, net: Network, latents: Tensor) -> Tensor | None:
        """The reward (G,) of each image, where there is one."""
        if self.reward is None:
            return None
        judge = dict(model=self.teacher.model, processor=self.processor)
        images = rewards.graded(self.context.vae, net.batch.made, latents, **judge)
        found = self.reward(images).to(latents)
        evaluations = self.evaluations[self.turn(net.batch.step)]
        self._measured[f"reward_{evaluations}"] = float(found.mean())
        return found.clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        return {k: v for one in self.copies for k, v in one.state().items()}

    def load(self, found: Mapping[str, Tensor]) -> None:
        for one in self.copies:
            one.load(found)

    def measured(self) -> dict[str, float]:
        return self._measured


def _flow(copy: Learner, net: Network, noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """Of a copy on drawn images, (G,)."""
    v = net.velocity(losses.interpolate(noise, data, t), t, model=copy.model)
    return losses.flow(v, noise, data)


def parts(ts: Tensor, count: int) -> list[float]:
    """Every so many of the times (S,), `count` jumps; ValueError where they do not divide."""
    steps = len(ts) - 1
    if not isinstance(count, int) or count < 1 or steps % count:
        raise ValueError(
            f"objective.evaluations holds {count!r}; expected divisors of the {steps} steps of the "
            "teacher"
        )
    return ts[:: steps // count].tolist()
