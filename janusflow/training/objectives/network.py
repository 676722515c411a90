"""A batch, and the model in the form that objectives use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.models.janusflow.packed_forward import Outputs, forward
from janusflow.training import losses, timestep_sampling
from janusflow.training.config_stages import Stage
from janusflow.training.objectives.map_losses import column


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The samples of one micro-batch, with the random numbers of its G generation samples.

    `extra` holds an objective's own numbers, (G, ...) each, from `Sample.extra`; entries "noise",
    "t", "s" and "x" replace the random ones.
    """

    samples: tuple[Sample, ...]
    step: int
    data: Tensor | None = None  # (G, c, h, w)
    noise: Tensor | None = None
    t: Tensor | None = None  # (G,)
    dropped: Tensor | None = None  # (G,) bool
    uniform: Tensor | None = None  # (G,), for teachers that draw
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def made(self) -> list[Sample]:
        """The generation samples."""
        return [s for s in self.samples if s.kind == "generation"]

    @property
    def s(self) -> Tensor | None:
        """The second time (G,) of a flow map, if the samples have one."""
        return self.extra.get("s")

    @cached_property
    def x(self) -> Tensor | None:
        """The states at t: on the straight path, unless the samples have their own."""
        if self.data is None:
            return None
        if "x" in self.extra:
            return self.extra["x"]
        return losses.interpolate(self.noise, self.data, self.t)


def draw(
    stage: Stage, samples: Sequence[Sample], step: int, rows: Sequence[int], total: int, device
) -> Batch:
    """Draws the random numbers of these samples, which are functions of (seed, step, row) alone.

    `rows` are the numbers of the generation samples in the global batch of `total`.
    """
    made = [s for s in samples if s.kind == "generation"]
    if not made:
        return Batch(samples=tuple(samples), step=step)
    for sample in made:
        if sample.latents is None:
            raise ValueError(f"{sample.name!r} has no latents; encode its image first")
    data = torch.stack([s.latents for s in made]).float()
    index, seed = torch.tensor(list(rows)), stage.seed
    extra = {name: torch.stack([s.extra[name] for s in made]) for name in made[0].extra}
    noise = extra.pop("noise", None)
    if noise is None:
        noise = _noise(stage, step, rows, data)
    shift = stage.shift_at(data.shape[-2] * data.shape[-1])
    t = timestep_sampling.step_times(
        seed, step, range(total), total, stage.density, shift=shift, **stage.time_options
    )
    drawn = [
        timestep_sampling.step_uniform(seed, step, range(total), total, stream=k)[index]
        for k in (1, 2)
    ]
    return Batch(
        samples=tuple(samples),
        step=step,
        data=data.to(device),
        noise=noise.to(device),
        t=extra.pop("t", t[index]).to(device),
        dropped=(drawn[0] < stage.cond_dropout).to(device),
        uniform=drawn[1].to(device),
        extra={name: value.to(device) for name, value in extra.items()},
    )


def _noise(stage: Stage, step: int, rows: Sequence[int], data: Tensor) -> Tensor:
    shape = tuple(data.shape[1:])
    each = [timestep_sampling.step_noise(stage.seed, step, range(r, r + 1), shape) for r in rows]
    noise = torch.cat(each)
    return losses.couple(noise, data) if stage.coupling else noise


@dataclass
class Network:
    """The trained model, evaluated on the samples of a batch.

    `out` is the forward pass that all objectives share: generation samples at their x and t (only
    if an objective uses them) together with the answers. `velocity` is a separate pass.
    """

    model: nn.Module
    batch: Batch
    packed: bool = True
    capacity: int = 4096
    reads_x: bool = True
    tap: int | None = None
    attend: Sequence[int] = ()

    @cached_property
    def out(self) -> Outputs:
        """Velocity (G, c, h, w), hidden states and logits of one forward pass with gradients."""
        batch = self.batch
        if not self.reads_x and len(batch.made) < len(batch.samples):
            rest = [s for s in batch.samples if s.kind != "generation"]
            return self._run(self.model, rest, None, None, None)
        x = batch.x
        return self._run(
            self.model, batch.samples, x, batch.t, batch.dropped, self.tap, self.attend, batch.s
        )

    def velocity(
        self,
        x: Tensor,
        t: Tensor,
        s: Tensor | None = None,
        *,
        model: nn.Module | None = None,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Returns v(x, t), or the mean velocity u(x, t, s) from t to s, of the generation samples,
        (G, c, h, w).

        `model` may be a lagged or frozen copy; `dropped` (G,) says whose prompt is dropped, by
        default as in the batch.
        """
        dropped = self.batch.dropped if dropped is None else dropped
        model = self.model if model is None else model
        return self._run(model, self.batch.made, x, t, dropped, s=s).velocity

    def guide(
        self,
        v: Tensor,
        x: Tensor,
        t: Tensor,
        scale: float,
        until: float,
        *,
        s: Tensor | None = None,
        model: nn.Module | None = None,
    ) -> Tensor:
        """uncond + scale (v - uncond) until t = `until`, for samples that have their prompt.

        Others keep v. uncond is the velocity without the prompt of the same model, (G, c, h, w).
        """
        inside = (t <= until) & ~self.batch.dropped
        if scale == 1 or not bool(inside.any()):
            return v
        every = torch.ones_like(inside)
        uncond = self.velocity(x, t, s, model=model, dropped=every)
        return torch.where(column(inside, x).bool(), uncond.lerp(v, scale), v)

    def hidden(self, model: nn.Module, x: Tensor, t: Tensor, block: int) -> Tensor:
        """Returns image tokens (G, n, D) after a block of a model that reads the same prompts."""
        return self._run(model, self.batch.made, x, t, self.batch.dropped, block).hidden

    def _run(self, model, samples, x, t, dropped, tap=None, attend=(), s=None) -> Outputs:
        how = dict(packed=self.packed, capacity=self.capacity, target=s)
        return forward(model, samples, x, t, dropped, tap, attend, **how)
