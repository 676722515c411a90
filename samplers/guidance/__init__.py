"""Guidance: combines two predictions of the velocity into one.

A rule is a function (cond, uncond, t) -> velocity. `cond` follows the prompt; `uncond` is the
prediction to move away from: for the empty prompt, a negative prompt, or of a weaker model. States
have any shape with the batch first; norms, means and projections are per sample.

The weight w means v = uncond + w (cond - uncond), so 1 is no guidance. A weight may be a number, a
tensor (B,) with one per sample, or a function of t. An inner rule may be any function (cond,
uncond, t), or a weight for `cfg`.
"""

from samplers.guidance.guided_field import Guided, Pair, batched_pair, guide, pair
from samplers.guidance.rule import OLD, RULES, Combine, Rule, Weight, parse, rule
from samplers.guidance.rules import (
    apg,
    autoguidance,
    cfg,
    cfg_plus_plus,
    cfg_rescale,
    cfg_zero_star,
    guidance_interval,
)
from samplers.registry import old_names

__all__ = [
    "RULES",
    "Combine",
    "Guided",
    "Pair",
    "Rule",
    "Weight",
    "apg",
    "autoguidance",
    "batched_pair",
    "cfg",
    "cfg_plus_plus",
    "cfg_rescale",
    "cfg_zero_star",
    "guidance_interval",
    "guide",
    "pair",
    "parse",
    "rule",
]


__getattr__ = old_names(__name__, {**OLD, "stacked": "batched_pair"})
