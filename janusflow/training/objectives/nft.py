"""DiffusionNFT: reinforcement learning on the forward process, from images of any sampler."""

from torch import Tensor

from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, objective
from janusflow.training.objectives.online import Online
from samplers.fields import per_sample


def nft(
    velocity: Tensor, old: Tensor, x: Tensor, t: Tensor, data: Tensor, share: Tensor, beta: float
) -> Tensor:
    """r d(v+) + (1 - r) d(v-), with v+ = old + beta (v - old) and v- = old - beta (v - old).

    d(w) is the squared error of x + (1 - t) w to the data, divided by its mean absolute error
    without gradient, so that every t counts alike. States are (B, ...), t and r = `share` in [0, 1]
    are (B,) -> (B,). The formula is divided by beta. Zheng et al. 2025, arXiv 2509.16117, eqs. 5
    and 13.
    """
    left = per_sample(1 - t, x)
    move = beta * (velocity - old)
    return (
        share * _normalised(x + left * (old + move) - data)
        + (1 - share) * _normalised(x + left * (old - move) - data)
    ) / beta


def _normalised(error: Tensor) -> Tensor:
    size = error.detach().abs().flatten(1).mean(dim=1).clamp(min=1e-5)
    return error.square().flatten(1).mean(dim=1) / size


@objective
class NFT(Online):
    """DiffusionNFT: images with a better reward than the prompt's others attract, worse ones repel.

    r = 1/2 + clip(advantage / clip, -1, 1) / 2. `beta` scales the distance of v+ and v- from the
    policy that generated the images.
    """

    losses = ("nft", "kl")

    def __init__(self, context: Context, *, beta: float = 1.0, clip: float = 1.0, **shared):
        super().__init__(context, **shared)
        self.beta, self.clip = beta, clip

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        v = net.out.velocity
        old = self.policy.velocity(net, batch)
        share = 0.5 + 0.5 * (batch.extra["advantage"] / self.clip).clamp(-1, 1)
        found = {"nft": nft(v, old, batch.x, batch.t, batch.data, share, self.beta)}
        return found | self.to_base(net, batch, v)
