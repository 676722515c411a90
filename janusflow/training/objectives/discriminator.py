"""A discriminator of latents by patches, for adversarial terms of distillation."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from janusflow.training.losses import interpolate
from janusflow.training.objectives.copies import Learner

WIDTH = 96
CLEANEST, NOISIEST = 1.0, 0.7  # times t of the noised latents that are compared


class PatchDiscriminator(nn.Module):
    """Latents (B, c, h, w) -> logits (B, 1, h, w), each of the 7 x 7 latents around its place.

    High logits mean data. Only sharpness and shape are judged, as the network sees no prompt and
    no whole image; Isola et al. 2017 (arXiv 1611.07004).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Discriminator(Learner):
    """A `PatchDiscriminator` that learns beside a model, on its device.

    Its first weights are a function of the seed alone, so that all processes have the same.
    """

    def __init__(self, beside: nn.Module, channels: int, name: str, lr: float, seed: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(PatchDiscriminator(channels), name, lr)
        self._beside = beside

    @property
    def model(self) -> nn.Module:
        if self._copy is None:
            self._model.to(next(self._beside.parameters()).device)
        return super().model

    def become(self, model: nn.Module) -> None:
        """Does nothing: a teacher is a model of velocities."""


def noised(x: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
    """Returns x with so little noise that shapes stay: t between `NOISIEST` and `CLEANEST`."""
    return interpolate(noise, x, NOISIEST + (CLEANEST - NOISIEST) * uniform)


def generator_loss(network: nn.Module, x: Tensor) -> Tensor:
    """-ln p(data), the mean over places (B,), with no gradient to the discriminator; Goodfellow et
    al. 2014 (arXiv 1406.2661).
    """
    frozen = {name: value.detach() for name, value in network.named_parameters()}
    return softplus(-functional_call(network, frozen, (x,))).flatten(1).mean(dim=1)


def discriminator_loss(network: nn.Module, real: Tensor, fake: Tensor, r1: float = 1.0) -> Tensor:
    """-ln p(data) of data, -ln(1 - p(data)) of generated latents, and r1 / 2 times the squared
    gradient at data, a scalar; Mescheder et al. 2018 (arXiv 1801.04406).
    """
    real = real.detach().requires_grad_(True)
    logits = network(real)
    (slope,) = torch.autograd.grad(logits.mean(dim=(1, 2, 3)).sum(), real, create_graph=True)
    penalty = slope.square().flatten(1).sum(dim=1).mean()
    told = softplus(-logits).mean() + softplus(network(fake.detach())).mean()
    return told + r1 / 2 * penalty
