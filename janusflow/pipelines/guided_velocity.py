"""The guided velocity v(x, t) of prompts; every caller builds it here."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

import samplers
from janusflow.models.janusflow.generation_adapters import Times
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines.time_grid import time_shift
from janusflow.utils.keywords import nearest
from janusflow.utils.typed import is_number
from samplers.guidance import RULES, Guided, Pair, parse


class GuidedVelocity(Guided):
    """v(x, t) = rule(cond, uncond, t) of prompts whose keys and values were computed once.

    x (B, c, H, W) is evaluated in one batch with the conditional rows first; t is the solver's
    time, 0 noise and 1 data. Where the rule returns the conditional velocity, only that is
    evaluated. `calls` counts network evaluations per image.
    """

    @property
    def time_shift(self) -> float:
        """The factor by which `auto` moves its times towards the noise under this guidance."""
        return time_shift(self.rule)

    def __init__(
        self,
        model: JanusFlowModel,
        cond: PromptCache,
        uncond: PromptCache,
        guidance: samplers.Rule | float | Callable | str,
        *,
        ts: Tensor | None = None,
        network=None,
    ):
        """Prepares the field; `ts` (S,) are times whose embeddings are computed in advance.

        `network.of(prompt)` replaces `model.velocity`, for a compiled graph or the first-block
        cache.
        """
        self.embedded = CachedTimes(model, ts)
        of = network.of if network else lambda prompt: partial(model.velocity, prompt=prompt)
        self._both, self._cond = of(PromptCache.cat([cond, uncond])), of(cond)
        pair = Pair(self.pairs, self.conditional)
        super().__init__(pair, rule_of(guidance))

    def pairs(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the (cond, uncond) velocities, evaluated in one batch of 2 B rows."""
        x, t = torch.cat((x, x)), torch.cat((t, t)) if t.ndim else t
        return self._both(x, self.embedded(t, x)).chunk(2)

    def conditional(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the velocity that follows the prompt, without guidance."""
        return self._cond(x, self.embedded(t, x))


def rule_of(guidance: samplers.Rule | float | Callable | str | np.ndarray) -> samplers.Rule:
    """Returns the rule for a weight, a rule, the text of a rule, or one weight per image."""
    return samplers.guide(Pair(lambda x, _: (x, x)), read_guidance(guidance)).rule


def read_guidance(guidance):
    """Parses a weight or rule: 2, "2", "cfg:2", "guidance_interval:4,0,0.5", or an array with one
    weight per image.

    Raises ValueError for a text that is neither a number nor a rule.
    """
    if isinstance(guidance, np.ndarray | np.generic):
        guidance = guidance.item() if guidance.ndim == 0 else torch.from_numpy(guidance.copy())
    if isinstance(guidance, list | tuple) and guidance and all(map(is_number, guidance)):
        return torch.tensor(guidance, dtype=torch.float32)
    if not isinstance(guidance, str):
        return guidance
    try:
        number = float(guidance)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    if guidance.split(":")[0] in RULES:
        return parse(guidance)
    raise ValueError(
        f"guidance {guidance!r:.80} is not a finite number or a rule"
        f"{nearest(guidance.split(':')[0], RULES)}; choose 1 for none, or one of "
        f"{', '.join(RULES)}, as in guidance_interval:4,0.1,0.9"
    )


def row_times(t: Tensor, x: Tensor) -> Tensor:
    """Returns the solver's time, one number or one per sample, as float32 (B,) on x's device."""
    if t.numel() == 1:
        return torch.full((len(x),), float(t), device=x.device)
    return t.reshape(-1).to(x.device, torch.float32)


class CachedTimes:
    """Embeds a solver's times for the network: a grid's in advance, others on demand."""

    def __init__(self, model: JanusFlowModel, ts: Tensor | None):
        """Embeds the times `ts` (S,) in float32 on the network's device."""
        self._known: dict[float, Times] = {}
        if ts is not None and _reachable(model, ts.device):
            made = model.times(ts)
            self._known = {t: made[i : i + 1] for i, t in enumerate(ts.tolist())}

    def __call__(self, t: Tensor, x: Tensor) -> Tensor | Times:
        known = self._known.get(float(t.float())) if t.numel() == 1 else None
        return row_times(t, x) if known is None else known


def _reachable(model: JanusFlowModel, device: torch.device) -> bool:
    """Returns whether the weights of all blocks are on the device, and not offloaded."""
    parts = (model.vision_gen_enc_model, model.vision_gen_dec_model)
    return all(weight.device == device for part in parts for weight in part.parameters())
