"""What a step of training computes: samples in, named losses out, as one module, so that DDP and
FSDP see one forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.training import losses, timestep_sampling
from janusflow.training.alignment.repa import Aligner
from janusflow.training.alignment.teachers import View
from janusflow.training.config_stages import Stage
from janusflow.training.packed_forward import forward, length


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one micro-batch with the numbers drawn for the pictures to be made (G rows)."""

    samples: tuple[Sample, ...]
    step: int
    data: Tensor | None = None  # (G, c, h, w)
    noise: Tensor | None = None
    t: Tensor | None = None  # (G,)
    dropped: Tensor | None = None  # (G,) bool
    uniform: Tensor | None = None  # (G,), for teachers that draw

    @property
    def made(self) -> list[Sample]:
        return [s for s in self.samples if s.kind == "generation"]


def draw(
    stage: Stage, samples: Sequence[Sample], step: int, rows: Sequence[int], total: int, device
) -> Batch:
    """The random numbers of these samples, functions of (seed, step, row) alone.

    `rows` are the numbers of the generation samples in the global batch, which has `total`.
    """
    made = [s for s in samples if s.kind == "generation"]
    if not made:
        return Batch(samples=tuple(samples), step=step)
    for sample in made:
        if sample.latents is None:
            raise ValueError(f"{sample.name!r} has no latents; encode its picture first")
    data = torch.stack([s.latents for s in made]).float()
    index, seed, shape = torch.tensor(list(rows)), stage.seed, tuple(data.shape[1:])
    everything = range(total)
    noise = torch.cat(
        [timestep_sampling.step_noise(seed, step, range(r, r + 1), shape) for r in rows]
    )
    if stage.coupling:
        noise = losses.couple(noise, data)
    t = timestep_sampling.step_times(
        seed, step, everything, total, stage.density, shift=stage.shift, **stage.time_options
    )
    drawn = [
        timestep_sampling.step_uniform(seed, step, everything, total, stream=k)[index]
        for k in (1, 2)
    ]
    return Batch(
        samples=tuple(samples),
        step=step,
        data=data.to(device),
        noise=noise.to(device),
        t=t[index].to(device),
        dropped=(drawn[0] < stage.prompt_drop).to(device),
        uniform=drawn[1].to(device),
    )


class Objective(nn.Module):
    """The model with what training adds to it: a batch -> losses, one value a sample."""

    def __init__(self, model: nn.Module, aligner: Aligner | None, stage: Stage, packed: bool):
        super().__init__()
        self.model, self.aligner = model, aligner
        self.stage, self.packed = stage, packed
        # FSDP may cut only where every process passes in every step
        self._no_split_modules = ["LlamaDecoderLayer"]
        self.touched = False  # True with several processes

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "flow" and the aligner's (G,), "next_token" (A,), those that the batch has."""
        step, align = batch.step, self.aligner
        tap = align.tap if align is not None and align.needs_hidden(step) else None
        x = None
        if batch.data is not None:
            x = losses.interpolate(batch.noise, batch.data, batch.t)
        attend = align.blocks if tap is not None else ()
        out = self._run(self.model, batch, x, batch.t, tap, attend=attend)
        parts = {}
        if x is not None:
            flow = losses.flow(out.velocity, batch.noise, batch.data)
            parts["flow"] = losses.weighted(flow, batch.t, self.stage.time_weight)
            if align is not None and align.protocol.strength(step):
                seen = (out.velocity, out.hidden, out.heads)
                parts |= align.losses(step, self._view(batch), *seen)
        if out.answers:
            parts["next_token"] = out.next_token()
        if self.touched:
            parts["touch"] = self._touch()
        return parts

    def tokens(self, samples: Sequence[Sample]) -> int:
        """Places that the language model reads for these samples, without padding."""
        return sum(length(s, self.model.config.generation.patch) for s in samples)

    def _touch(self) -> Tensor:
        """0, but a function of all weights outside the blocks, which not every process's samples
        need: gradients are exchanged of the same weights everywhere.
        """
        own = [p for n, p in self.named_parameters() if p.requires_grad and ".layers." not in n]
        return sum(p.reshape(-1)[0] * 0 for p in own)

    def weights(self, step: int) -> dict[str, float]:
        """By which the mean of each loss counts in the total."""
        found = {"flow": self.stage.flow, "next_token": self.stage.next_token}
        if self.aligner is not None:
            found |= self.aligner.protocol.weights(step)
        return found

    def _run(self, model, batch: Batch, x, t, tap, samples=None, attend=()):
        return forward(
            model,
            samples or batch.samples,
            x,
            t,
            batch.dropped,
            tap,
            attend,
            packed=self.packed,
            capacity=self.stage.capacity,
        )

    def _view(self, batch: Batch) -> View:
        """What teachers may look at."""
        made, device = batch.made, batch.t.device
        return View(
            t=batch.t,
            noise=batch.noise,
            data=batch.data,
            pixel_values=_joined(torch.cat, [s.pixel_values for s in made], device),
            features=_joined(torch.stack, [s.features for s in made], device),
            uniform=batch.uniform,
            hidden_of=lambda model, x, t, k: self._run(model, batch, x, t, k, made).hidden,
        )


def _joined(how, tensors: list[Tensor | None], device) -> Tensor | None:
    """All of them as one, or None where one is missing."""
    return None if any(x is None for x in tensors) else how(tensors).to(device)
