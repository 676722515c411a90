"""Models trained as flow maps: the mean velocity u(x, t, s) of prompts, and the times they were
trained for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import samplers
from janusflow.models.janusflow.compiled_velocity import Compiled
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines.guided_velocity import CachedTimes, rule_of
from janusflow.utils.atomic_io import write_text
from janusflow.utils.safe_io import parse_object, read_text
from janusflow.utils.text import explained
from samplers.fields import FlowMap

SAMPLER = "jump"


@dataclass(frozen=True)
class FlowMapGrid:
    """Times between which a flow map was trained and its supported numbers of evaluations."""

    times: tuple[float, ...]
    evaluations: tuple[int, ...]
    guidance: float = 2.0  # of the teacher, burnt in

    @classmethod
    def load(cls, path: Path) -> FlowMapGrid:
        """Reads what `save` wrote. Raises ValueError for a file with other content."""
        found = parse_object(read_text(path, "config_bytes"), path)
        with explained(
            f"{path} does not hold the times and evaluations of a flow map",
            "run janusflow distill again",
        ):
            times = tuple(float(t) for t in found["times"])
            evaluations = tuple(int(n) for n in found["evaluations"])
            made = cls(times, evaluations, float(found.get("guidance", 2.0)))
        samplers.core.times(times, samplers.core.find(SAMPLER))
        return made

    def save(self, path: Path) -> None:
        told = dict(times=self.times, evaluations=self.evaluations, guidance=self.guidance)
        write_text(Path(path), json.dumps(told))

    def cut(self, evaluations: int | None) -> Tensor:
        """Returns the times for so many evaluations, by default the most.

        Raises ValueError for an unsupported number.
        """
        count = max(self.evaluations) if evaluations is None else evaluations
        if count not in self.evaluations:
            choice = ", ".join(map(str, sorted(self.evaluations)))
            raise ValueError(
                f"this flow map was trained for {choice} evaluations, not {count}; choose one of "
                "them, or name a sampler and a grid"
            )
        return torch.tensor(self.times, dtype=torch.float64)[:: (len(self.times) - 1) // count]


class PromptFlowMap(FlowMap):
    """The mean velocity u(x, t, s) of prompts with computed keys and values; one evaluation."""

    def __init__(
        self,
        model: JanusFlowModel,
        prompt: PromptCache,
        ts: Tensor | None = None,
        compiled: Compiled | None = None,
    ):
        """Embeds the times `ts` (S,) in advance, unless a compiled graph does it."""
        eager = partial(model.velocity, prompt=prompt)
        of = eager if compiled is None else compiled.of(prompt, model)
        self._of, self._embedded = of, CachedTimes(model, None if compiled else ts)
        super().__init__(self._mean_velocity, "velocity")

    def _mean_velocity(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self._of(x, self._embedded(t, x), target=self._embedded(s, x))

    def checked(self) -> PromptFlowMap:
        """Returns itself: there is no unconditional prediction to check."""
        return self

    def replace_rule(self, guidance) -> None:
        """Raises ValueError, because guidance is part of the weights."""
        raise ValueError(
            f"the callback set guidance_scale to {guidance!r}, and a flow map has its guidance in "
            "its weights; keep the value that the call began with"
        )


def weights_of(guidance) -> set[float]:
    """Returns a guidance rule's weights of the conditional velocity at t = 0 and t = 0.5."""
    rule, one = rule_of(guidance), torch.ones(1, 1)
    return {float(rule(one, 0 * one, torch.tensor(t)).amax()) for t in (0.0, 0.5)}
