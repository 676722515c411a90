"""A training that ends with its time, so that it fits a machine that is lent for minutes."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from janusflow.training import schedules
from janusflow.training.ema import move, trained

TOLD, KEPT = 3.0, 120.0  # seconds between lines of the log, and between writings of the weights


class Timed:
    """Base class: `update` makes one step; `averages` has the trained weights for every decay."""

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    averages: dict[float, list[Tensor]]
    step = 0

    def begin(self, model: nn.Module, decays: Sequence[float]) -> None:
        """Takes the model, whose trainable parts require gradients."""
        self.model, self.parameters = model, [p for _, p in trained(model)]
        self.averages = {d: [p.detach().clone() for p in self.parameters] for d in decays}

    def update(self, past: float) -> Mapping[str, Tensor]:
        """Makes a step after the share `past` of the time, and returns its losses."""
        raise NotImplementedError

    def run(self, seconds: float, keep: Callable[[float | None], None]) -> None:
        """Trains for so many seconds and prints the losses.

        Calls `keep` with the seconds that are past now and then, and with None at the end.
        """
        started, told, kept = time.monotonic(), -TOLD, 0.0
        while (past := time.monotonic() - started) < seconds:
            found = self.update(past / seconds)
            self.step += 1
            for decay, average in self.averages.items():
                move(average, [p.detach() for p in self.parameters], decay)
            if past - told > TOLD:
                told = past
                shown = ", ".join(f"{name} {float(x):.4f}" for name, x in found.items())
                print(f"{past:.0f} s: step {self.step}, {shown}", flush=True)
            if past - kept > KEPT:
                kept = past
                keep(past)
        keep(None)

    def rate_share(self, past: float, warmup: int, decay_from: float) -> float:
        """The rate's share: rising for `warmup` steps, falling from the share `decay_from` of the
        time on.
        """
        falling = schedules.share(past, 1, 0, "linear", decay_from)
        return min(falling, schedules.share(self.step, 1, warmup))

    @torch.no_grad()
    def averaged(self, decay: float) -> nn.Module:
        """Puts an average into the model, and returns it."""
        for parameter, value in zip(self.parameters, self.averages[decay], strict=True):
            parameter.copy_(value)
        return self.model
