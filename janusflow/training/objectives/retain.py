"""Learning without forgetting: images stay while the model learns to answer."""

from torch import Tensor

from janusflow.training.objectives.copies import Copy
from janusflow.training.objectives.map_losses import squared
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, Objective, objective


@objective
class Retain(Objective):
    """|v(x_t, t) - v_0(x_t, t)|^2, where v_0 is the velocity of the model at the start.

    It is 0 at first, and its gradient holds no noise of samples as flow matching's does, so that
    the images change only as far as what else is learnt forces them to. Li and Hoiem 2016, arXiv
    1606.09282, with the velocity in place of a classifier's logits. `scale` multiplies it.
    """

    losses = ("retain",)

    def __init__(self, context: Context, *, scale: float = 1.0):
        super().__init__(context)
        self.scale = scale
        self.base = self.keep(Copy(context.model, "base"))

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"retain": squared(net.out.velocity - self.base.velocity(net, batch))}

    def weights(self, step: int) -> dict[str, float]:
        return {"retain": self.scale}
