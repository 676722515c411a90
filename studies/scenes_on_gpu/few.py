"""Distribution matching to one, two and four evaluations, on prompts of the pool.

The losses are those of `janusflow.training.objectives.dmd` (Yin et al. 2024, arXiv 2311.18828), and
`critic_updates` of the critic to one of the student are as in DMD2 (arXiv 2405.14867).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from janusflow.training import losses
from janusflow.training.config_stages import ALL_BUT_VISION
from janusflow.training.ema import freeze_all_but, trained
from janusflow.training.objectives.dmd import dmd
from janusflow.training.objectives.map_losses import column
from studies.scenes_on_gpu import fixed_shapes
from studies.scenes_on_gpu.graphs import Captured
from studies.scenes_on_gpu.joint import RENEWED, asked
from studies.scenes_on_gpu.pool import Pool
from studies.scenes_on_gpu.timed import Timed


@dataclass(frozen=True, kw_only=True)
class Few:
    """Numbers of the distillation; `times` are the teacher's, of which n jumps take every 8 / n."""

    times: tuple[float, ...]
    guidance: float = 2.0
    guided_until: float = 0.25
    evaluations: tuple[int, ...] = (1, 2, 1, 4)  # of the steps, in turn
    critic_updates: int = 1
    images: int = 128
    questions: int = 24
    lr: float = 4e-4
    betas: tuple[float, float] = (0.0, 0.99)
    critic_lr: float = 8e-4
    warmup: int = 50
    decay_from: float = 0.35
    mean: float = -1.2
    std: float = 1.3
    ema: tuple[float, ...] = (0.99, 0.998, 0.9995)


class Distiller(Timed):
    """Trains `student` towards the guided `teacher`; every number of evaluations has its critic.

    `shape` is that of one image's latents, `place` that of an image in a conversation.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        shape: tuple[int, ...],
        pool: Pool,
        settings: Few,
        place: tuple[int, int],
    ):
        self.settings, self.pool, self.place = settings, pool, place
        self.shape, self.device = (settings.images, *shape), pool.device
        self.teacher = copy.deepcopy(teacher).requires_grad_(False)
        freeze_all_but(student, ALL_BUT_VISION)
        self.begin(student, settings.ema)
        self.optimizer = _adam(self.parameters, settings.lr, settings.betas)
        self.critics = {n: self._critic() for n in dict.fromkeys(settings.evaluations)}
        self.learning = {n: [p for _, p in trained(one)] for n, one in self.critics.items()}
        rates = settings.critic_lr, (0.9, 0.99)
        self.critic_optimizers = {n: _adam(p, *rates) for n, p in self.learning.items()}
        self.gradients = {
            n: Captured(lambda n=n: self._gradients(n), [*self.parameters, *own])
            for n, own in self.learning.items()
        }
        again = self.learning if settings.critic_updates > 1 else {}
        self.critic_gradients = {
            n: Captured(lambda n=n: self._critic_gradients(n), own) for n, own in again.items()
        }

    def update(self, past: float) -> dict[str, Tensor]:
        own = self.settings
        turn = own.evaluations[self.step % len(own.evaluations)]
        found = self.gradients[turn]()
        rate = own.lr * self.rate_share(past, own.warmup, own.decay_from)
        _update(self.optimizer, self.parameters, rate)
        _update(self.critic_optimizers[turn], self.learning[turn], own.critic_lr)
        for _ in range(1, own.critic_updates):
            self.critic_gradients[turn]()
            _update(self.critic_optimizers[turn], self.learning[turn], own.critic_lr)
        if self.step % RENEWED == 0:
            self.pool.renew(ahead=2 * self.pool.processes)
        return dict(zip(("matching", "answers", "critic"), found, strict=True))

    def _critic(self) -> nn.Module:
        made = copy.deepcopy(self.teacher)
        freeze_all_but(made, ALL_BUT_VISION)
        return made

    def _gradients(self, turn: int) -> tuple[Tensor, Tensor, Tensor]:
        prompts, own, critic = self._prompts(), self.settings, self.critics[turn]
        x, seen = self._generate(prompts, turn)
        t = fixed_shapes.logit_normal(own.images, own.mean, own.std, self.device)
        with torch.no_grad():
            noised = losses.interpolate(torch.randn_like(x), x, t)
            fake = fixed_shapes.velocity(critic, prompts, noised, t, seen)
            real = self._guided(prompts, noised, t, seen)
            real, fake = (noised + column(1 - t, x) * v for v in (real, fake))
        matched = dmd(x, real, fake).mean()
        answered = asked(self.model, self.pool, own.questions, self.place)
        (matched + answered).backward()
        return matched.detach(), answered.detach(), self._learn(critic, prompts, x.detach(), seen)

    def _critic_gradients(self, turn: int) -> tuple[Tensor]:
        prompts = self._prompts()
        with torch.no_grad():
            x, seen = self._generate(prompts, turn)
        return (self._learn(self.critics[turn], prompts, x, seen),)

    def _generate(self, prompts: fixed_shapes.Prompts, turn: int) -> tuple[Tensor, Tensor]:
        """Returns images of `turn` jumps, and which prompts are dropped: none."""
        count = self.settings.images
        seen = torch.zeros(count, dtype=torch.bool, device=self.device)
        x, times = torch.randn(self.shape, device=self.device), self.settings.times
        for t, s in pairwise(times[:: (len(times) - 1) // turn]):
            at, to = (torch.full((count,), z, device=self.device) for z in (t, s))
            x = x + (s - t) * fixed_shapes.velocity(self.model, prompts, x, at, seen, to)
        return x, seen

    def _guided(self, prompts: fixed_shapes.Prompts, x: Tensor, t: Tensor, seen: Tensor) -> Tensor:
        cond = fixed_shapes.velocity(self.teacher, prompts, x, t, seen)
        blind = fixed_shapes.velocity(self.teacher, prompts, x, t, ~seen)
        inside = column(t <= self.settings.guided_until, x).bool()
        return torch.where(inside, blind.lerp(cond, self.settings.guidance), cond)

    def _learn(self, critic: nn.Module, prompts, data: Tensor, seen: Tensor) -> Tensor:
        """Flow matching of a critic on generated images, at uniform times."""
        noise, t = torch.randn_like(data), torch.rand(len(data), device=self.device)
        v = fixed_shapes.velocity(critic, prompts, losses.interpolate(noise, data, t), t, seen)
        loss = losses.flow(v, noise, data).mean()
        loss.backward()
        return loss.detach()

    def _prompts(self) -> fixed_shapes.Prompts:
        samples = self.pool.tensors
        chosen = torch.randint(len(samples["prompts"]), (self.settings.images,), device=self.device)
        return fixed_shapes.Prompts(samples["prompts"][chosen].long(), samples["lengths"][chosen])


def _adam(parameters: Sequence[nn.Parameter], lr: float, betas) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=0.0)


def _update(optimizer, parameters: Sequence[nn.Parameter], rate: float) -> None:
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
