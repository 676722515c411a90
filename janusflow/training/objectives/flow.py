"""The objectives of the published model: velocity and next token; and representation alignment."""

from torch import Tensor, nn

from janusflow.training import losses
from janusflow.training.alignment.repa import Aligner
from janusflow.training.alignment.teachers import View
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective, objective


@objective
class Flow(Objective):
    """Flow matching: |v(x_t, t) - (data - noise)|^2, averaged over the latents and weighted by
    `training.time_weight`.

    Liu et al. 2022, arXiv 2209.03003, eq. 1.
    """

    losses = ("flow",)

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        each = losses.flow(net.out.velocity, batch.noise, batch.data)
        return {"flow": losses.weighted(each, batch.t, self.context.stage.time_weight)}

    def weights(self, step: int) -> dict[str, float]:
        return {"flow": self.context.stage.flow}


@objective(name="next_token")
class NextToken(Objective):
    """Mean cross-entropy of the answer's tokens, for all but generation samples."""

    losses = ("next_token",)
    rows = "answers"

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"next_token": net.out.next_token()}

    def weights(self, step: int) -> dict[str, float]:
        return {"next_token": self.context.stage.next_token}


class AlignmentLosses(Objective):
    """The losses of an `Aligner`, configured by the settings section `alignment`."""

    losses = ("alignment", "dispersive", "contrastive", "attention")

    def __init__(self, context: Context, aligner: Aligner):
        super().__init__(context)
        self.aligner = aligner

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        if not self.aligner.protocol.strength(batch.step):
            return {}
        out = net.out
        return self.aligner.losses(
            batch.step, view(net, batch), out.velocity, out.hidden, out.heads
        )

    def weights(self, step: int) -> dict[str, float]:
        return self.aligner.protocol.weights(step)


def view(net: Network, batch: Batch) -> View:
    """Returns what teachers may use of this batch."""
    made = batch.made
    return View(
        t=batch.t,
        noise=batch.noise,
        data=batch.data,
        pixel_values=_squared(_joined("cat", [s.pixel_values for s in made], batch), net.model),
        features=_joined("stack", [s.features for s in made], batch),
        uniform=batch.uniform,
        hidden_of=net.hidden,
    )


def _squared(pixels: Tensor | None, model: nn.Module) -> Tensor | None:
    """Resizes images of another shape to the square that encoders expect."""
    side = model.config.vision.image_size
    if pixels is None or pixels.shape[-2] == pixels.shape[-1]:
        return pixels
    how = dict(mode="bicubic", antialias=True)
    return nn.functional.interpolate(pixels, (side, side), **how).clamp(-1, 1)


def _joined(how: str, tensors: list[Tensor | None], batch: Batch) -> Tensor | None:
    """Stacks them, or returns None if one is missing."""
    import torch

    if any(x is None for x in tensors):
        return None
    return getattr(torch, how)(tensors).to(batch.t.device)
