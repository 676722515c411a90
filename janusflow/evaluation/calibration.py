"""Measures the error of a score against known truth: its bias, and how well it ranks."""

from collections.abc import Sequence

import numpy as np

from janusflow.evaluation.intervals import bootstrap, wilson


def bias(scores: Sequence[float], truths: Sequence[float], clusters: Sequence) -> dict:
    """Returns the mean of score minus truth (0: calibrated) with its cluster bootstrap interval."""
    differences = np.asarray(scores, float) - np.asarray(truths, float)
    low, high = bootstrap([(differences, clusters)])
    return {"score": float(differences.mean()), "low": low, "high": high}


def auroc(scores: Sequence[float], truths: Sequence[bool]) -> float | None:
    """P(a correct item scores above a wrong one), ties counting half; None if all are correct or
    all wrong.

    1 ranks perfectly, 1/2 is chance. Mann and Whitney 1947.
    """
    values, right = np.asarray(scores, float), np.asarray(truths, bool)
    if right.all() or not right.any():
        return None
    above = values[right][:, None] - values[~right][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def errors(said: Sequence[bool], truths: Sequence[bool]) -> dict[str, dict]:
    """Returns the rates `false+` (wrong items that were accepted) and `false-` (correct items that
    were rejected).

    Each has Wilson's interval, and is left out if there are no such items.
    """
    found = {}
    for name, truth in (("false+", False), ("false-", True)):
        fooled = [yes != truth for yes, right in zip(said, truths, strict=True) if right == truth]
        if fooled:
            low, high = wilson(sum(fooled), len(fooled))
            share = sum(fooled) / len(fooled)
            found[name] = {"score": share, "low": low, "high": high, "of": len(fooled)}
    return found
