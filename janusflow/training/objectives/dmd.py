"""Distribution matching distillation: few-step images whose distribution matches the teacher's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.training import checkpoints, losses, timestep_sampling
from janusflow.training.objectives.answer_loss import answer_loss
from janusflow.training.objectives.copies import Learner
from janusflow.training.objectives.discriminator import (
    Discriminator,
    discriminator_loss,
    generator_loss,
    noised,
)
from janusflow.training.objectives.distilled import Distilled
from janusflow.training.objectives.flow_map import segments
from janusflow.training.objectives.map_losses import column
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import KEPT, Context, objective
from janusflow.training.objectives.online import noise_of, shape_of
from janusflow.utils.cpu.onednn_linear import repeating

NOISE, AGAIN, TIMES, ASKED = 10, 11, 12, 13  # streams of random numbers


def dmd(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of x to x - (fake - real) / mean |x - real|, (B,).

    `real` and `fake` are the clean images that two velocities predict for a noised x; they get no
    gradient. So the gradient is (fake - real): towards where the teacher's data are denser, away
    from where the generated images are. Yin et al. 2024, arXiv 2311.18828, eqs. 7 and 8.
    """
    with torch.no_grad():
        size = (x - real).abs().flatten(1).mean(dim=1).clamp(min=1e-5)
        aim = x - (fake - real) / column(size, x)
    return 0.5 * (x - aim).square().flatten(1).mean(dim=1)


@objective(name="dmd")
class DistributionMatching(Distilled):
    """Images of few jumps u(x, t, s) whose distribution is matched to a frozen guided teacher's.

    Each step generates with one of the numbers of `evaluations` in turn, with gradients through all
    jumps; a number that is listed twice has twice as many steps. A step compares the teacher's
    velocity at the noised images with that of a copy that learns the distribution of the generated
    images (`fake_lr`, `fake_updates` AdamW steps each); every number of jumps has its own copy,
    which continues that of the run `fakes_from` if there is one.

    With a `reward` between 0 and 1, second copies learn the generated images weighted by it, and
    the teacher's velocity is shifted by `tilt` times the difference of the two copies: the target
    distribution is p_teacher(x) r(x)^tilt, up to a constant.

    `answers` is the weight of `answer_loss`: the frozen teacher answers the questions of the prompt
    about the images, and its gradient goes through the autoencoder and all jumps.

    `adversarial` is the weight of a discriminator's -ln p(data) of small patches, so that objects
    become as sharp as those of the data; it learns at `discriminator_lr`, and the samples must
    have images. DMD2 (Yin et al. 2024, arXiv 2405.14867) has such a term on the copy's features.
    """

    losses = ("dmd", "answers", "adversarial")
    at_t = False

    def __init__(
        self,
        context: Context,
        *,
        evaluations: tuple = (1, 2, 4),
        fake_lr: float = 8e-4,
        fake_updates: int = 1,
        fakes_from: str = "",  # a run whose copies these continue; the teacher unless given
        tilt: float = 1.0,
        answers: float = 0.0,
        adversarial: float = 0.0,
        discriminator_lr: float = 5e-4,
        **shared,
    ):
        super().__init__(context, evaluations=evaluations, **shared)
        numbers = self.jumps()["evaluations"]
        self.ways = {n: segments(len(self.ts) - 1, (n,)) for n in numbers}
        self.fake_updates, self.tilt, self.answers = fake_updates, tilt, answers
        self.fakes_from = fakes_from
        self.fakes = {n: self.keep(Learner(context.model, f"fake{n}", fake_lr)) for n in numbers}
        better = numbers if self.reward else ()
        self.better = {n: self.keep(Learner(context.model, f"better{n}", fake_lr)) for n in better}
        self.adversarial, self.discriminators = adversarial, {}
        if adversarial:
            channels, seed = shape_of(context.model, context.vae)[0], context.stage.seed
            for n in numbers:
                how = (channels, f"discriminator{n}", discriminator_lr, seed)
                self.discriminators[n] = self.keep(Discriminator(context.model, *how))
        self._drawn: list[tuple[Network, Tensor]] = []

    def continue_fakes(self) -> None:
        """Loads the copies of the newest checkpoint of `fakes_from`, where it has them.

        Otherwise a copy has to learn the student's images first, and misleads it meanwhile. Raises
        ValueError for a folder without a checkpoint, or without any of these copies.
        """
        found = checkpoints.latest(Path(self.fakes_from), lambda name: name.startswith(KEPT))[1]
        found = {name.removeprefix(KEPT): value for name, value in found.items()}
        held = {name.partition(".")[0] for name in found}
        kept = [one for n, one in self.fakes.items() if f"fake{n}" in held]
        if not kept:
            raise ValueError(
                f"objective.fakes_from: {self.fakes_from!r:.200} has no copies for "
                f"objective.evaluations {list(self.fakes)}; name a run of dmd with one of these"
            )
        for one in kept:
            one.load(found)

    def load(self, found: Mapping[str, Tensor]) -> None:
        super().load(found)
        self.fakes_from = ""  # a run that goes on has its own

    def prepare(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        self._drawn.clear()
        if self.fakes_from:
            self.continue_fakes()
            self.fakes_from = ""
        return super().prepare(samples, rows, step)

    def generate(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        noise = noise_of(self.context, [(self.context.stage.seed, step, NOISE, r) for r in rows])
        told = [{"noise": x, "row": torch.tensor(row)} for x, row in zip(noise, rows, strict=True)]
        if self.adversarial:
            told = [own | {"real": s.latents} for own, s in zip(told, samples, strict=True)]
        return [
            replace(s, latents=torch.zeros_like(own["noise"]), extra=own)
            for s, own in zip(samples, told, strict=True)
        ]

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        x, t, turn = self.draw(net, batch), batch.t, self.turn(batch.step)
        self._drawn.append((net, x.detach()))
        others = {"answers": self.answered(net, batch, x)} if self.answers else {}
        if self.adversarial:
            network = self.discriminators[turn].model
            others["adversarial"] = generator_loss(network, self.slightly_noised(batch, x, 0))
        with torch.no_grad():
            at_t = losses.interpolate(self.noise(batch, 0), x, t)
            fake = net.velocity(at_t, t, model=self.fakes[turn].model)
            real = self.target(net, at_t, t)
            if self.better:
                better = net.velocity(at_t, t, model=self.better[turn].model)
                real = real + self.tilt * (better - fake)
            real, fake = (at_t + column(1 - t, x) * v for v in (real, fake))
        return {"dmd": dmd(x, real, fake)} | others

    def weights(self, step: int) -> dict[str, float]:
        return {"dmd": 1.0, "answers": self.answers, "adversarial": self.adversarial}

    def slightly_noised(self, batch: Batch, x: Tensor, part: int) -> Tensor:
        """Returns latents with the little noise at which the discriminator compares them."""
        return noised(x, self.noise(batch, 100 + part), self.times(batch, 100 + part))

    def answered(self, net: Network, batch: Batch, x: Tensor) -> Tensor:
        """Returns the teacher's `answer_loss` (G,) about images with gradients."""
        packing = dict(packed=net.packed, capacity=net.capacity)
        keys = [timestep_sampling.generator(*key) for key in self.keys(batch, ASKED, 0)]
        judge = (self.teacher.model, self.context.vae, self.processor)
        return answer_loss(*judge, x, batch.made, keys, **packing)

    def turn(self, step: int) -> int:
        """Returns the number of evaluations with which a step generates."""
        return self.evaluations[step % len(self.evaluations)]

    def draw(self, net: Network, batch: Batch) -> Tensor:
        """Generates images (G, c, h, w) with this step's number of jumps, with gradients."""
        x = batch.noise
        for i, j in self.ways[self.turn(batch.step)]:
            t, s = (torch.full_like(batch.t, float(self.ts[k])) for k in (i, j))
            x = x + column(s - t, x) * net.velocity(x, t, s)
        return x

    def target(self, net: Network, x: Tensor, t: Tensor) -> Tensor:
        """Returns the teacher's velocity, guided until t = `guided_until` with a prompt."""
        model = self.teacher.model
        cond = net.velocity(x, t, model=model)
        return net.guide(cond, x, t, self.guidance, self.guided_until, model=model)

    def keys(self, batch: Batch, stream: int, part: int) -> list[tuple[int, ...]]:
        """Returns each image's key of random numbers: seed, step, stream, part and row alone."""
        seed, rows = self.context.stage.seed, batch.extra["row"].tolist()
        return [(seed, batch.step, stream, part, row) for row in rows]

    def noise(self, batch: Batch, part: int) -> Tensor:
        """Returns normal noise for the batch's images."""
        return noise_of(self.context, self.keys(batch, AGAIN, part)).to(batch.noise)

    def times(self, batch: Batch, part: int) -> Tensor:
        """Returns uniform times (G,)."""
        keys = self.keys(batch, TIMES, part)
        each = [torch.rand(1, generator=timestep_sampling.generator(*key)) for key in keys]
        return torch.cat(each).to(batch.t)

    @repeating()
    def updated(self, step: int) -> None:
        """Trains the copies on the images just generated, by flow matching."""
        turn, count = self.turn(step - 1), len(self._drawn)
        name = f"reward_{turn}"
        worth = [self.worth(net.batch.made, data, name).to(data) for net, data in self._drawn]
        for part in range(1, 1 + self.fake_updates):
            for (net, data), share in zip(self._drawn, worth, strict=True):
                how = (net, self.noise(net.batch, part), data, self.times(net.batch, part))
                (_flow(self.fakes[turn], *how).mean() / count).backward()
                if self.better:
                    (_flow(self.better[turn], *how).mul(share).mean() / count).backward()
            if self.adversarial:
                self.discriminate(turn, part, count)
            for one in (self.fakes, self.better, self.discriminators):
                if one:
                    one[turn].step()
        self._drawn.clear()

    def discriminate(self, turn: int, part: int, count: int) -> None:
        """Adds the gradients of the discriminator on the images just generated and on data."""
        network = self.discriminators[turn].model
        for net, data in self._drawn:
            fake = self.slightly_noised(net.batch, data, 2 * part)
            real = self.slightly_noised(net.batch, net.batch.extra["real"], 2 * part + 1)
            loss = discriminator_loss(network, real, fake)
            (loss / count).backward()
            self._measured[f"discriminator_{turn}"] = float(loss.detach())


def _flow(copy: Learner, net: Network, noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """Returns a copy's flow matching loss on generated images, (G,)."""
    v = net.velocity(losses.interpolate(noise, data, t), t, model=copy.model)
    return losses.flow(v, noise, data)
