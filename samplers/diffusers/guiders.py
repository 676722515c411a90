"""diffusers' guiders as guidance rules, and guidance rules as guiders of its modular pipelines.

A guider combines model outputs, which are -v, at a numbered step; a rule combines velocities at a
time. Only guiders of two predictions are supported; those that change the model's layers
(skip-layer, perturbed attention, ...) are not.
"""

from copy import deepcopy
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from torch import Tensor

from samplers.guidance import Rule, cfg, parse

PAIR = ["pred_cond", "pred_uncond"]
TICKS = 1000  # of diffusers' timesteps, and the steps of a run whose grid is unknown


def from_guider(guider: BaseGuidance) -> Rule:
    """Returns the rule that combines (cond, uncond, t) as a guider of diffusers does.

    `start` and `stop` are fractions of the steps, as in diffusers; without a grid they are
    fractions of the time. A run uses a copy, so that momentum is not carried over to the next
    image. Raises ValueError for a guider of other predictions.
    """
    taken = list(getattr(guider, "_input_predictions", None) or [])
    if taken != PAIR:
        raise ValueError(
            f"{type(guider).__name__} needs {', '.join(taken) or 'no predictions'}; expected a "
            f"guider of {' and '.join(PAIR)}, such as ClassifierFreeGuidance"
        )
    steps = torch.linspace(0, 1, TICKS + 1, dtype=torch.float64, device="cpu")
    rule = _on(deepcopy(guider), steps)
    return Rule(rule.combine, rule.reads, for_grid=lambda ts: _on(deepcopy(guider), ts))


def _on(guider: BaseGuidance, ts: Tensor) -> Rule:
    """Returns the rule for a run on this grid."""
    rising = ts.detach().double().cpu().sort().values

    def place(t: Tensor) -> None:
        """Tells the guider at which step it is."""
        times = torch.as_tensor(t, device="cpu").detach().double().flatten()
        if times.numel() > 1 and not bool((times == times[0]).all()):
            raise ValueError(
                "t holds different times, and a guider of diffusers takes one for the batch; pass "
                "one time, or use a rule of samplers.guidance"
            )
        step = int(torch.searchsorted(rising, times[:1], right=True)) - 1
        count = len(rising) - 1
        guider.set_state(min(max(step, 0), count - 1), count, TICKS * (1 - times[0]))

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        place(t)
        pairs = guider.prepare_inputs({"noise_pred": (-cond, -uncond)})
        return -guider(pairs).pred

    def reads(t: Tensor) -> int:
        place(t)
        return guider.num_conditions

    return Rule(combine, reads)


class RuleGuidance(BaseGuidance):
    """A diffusers guider that combines predictions by a guidance rule.

    `rule` is a weight, a rule as text for `samplers.guidance.parse`, such as "cfg_rescale:3,0.7",
    or a `Rule`; texts are saved in a pipeline's configuration. Raises ValueError for a rule that
    needs the whole grid, which a guider does not know.
    """

    _input_predictions = PAIR

    @register_to_config
    def __init__(
        self,
        rule: str | float | Rule = "cfg:2",
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(start, stop, enabled)
        self.rule = _rule(rule)
        if self.rule.for_grid is not None:
            raise ValueError(
                f"{self.rule!r} depends on the time grid, which diffusers does not pass to its "
                "guiders; choose another rule"
            )

    def _time(self) -> Tensor:
        """Returns t of the step, 1 - sigma."""
        if self._timestep is None:
            raise ValueError("the guider has no step yet; call set_state first")
        return 1 - torch.as_tensor(self._timestep, device="cpu").double().flatten()[0] / TICKS

    def _acts(self) -> bool:
        first, last = (int(x * self._num_inference_steps) for x in (self._start, self._stop))
        return self._enabled and first <= self._step < last

    def prepare_inputs(self, data: dict[str, tuple[Tensor, Tensor]]) -> list[Any]:
        """Returns one batch for each prediction that this step needs."""
        names = PAIR[: self.num_conditions]
        return [self._prepare_batch(data, i, name) for i, name in enumerate(names)]

    def prepare_inputs_from_block_state(self, data, input_fields) -> list[Any]:
        """Returns one batch for each needed prediction, from a block's state."""
        names = PAIR[: self.num_conditions]
        return [
            self._prepare_batch_from_block_state(input_fields, data, i, name)
            for i, name in enumerate(names)
        ]

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> GuiderOutput:
        """Combines the predictions, which are -v."""
        pred = pred_cond
        if self.num_conditions == 2:
            pred = -self.rule(-pred_cond, -pred_uncond, self._time().to(pred_cond.device))
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        return 2 if self._acts() and self.rule.reads(self._time()) == 2 else 1


def _rule(rule: str | float | Rule) -> Rule:
    if isinstance(rule, Rule):
        return rule
    return parse(rule) if isinstance(rule, str) else cfg(rule)
