"""A reward that is easy to have without doing what was asked for.

What learning from it does is measured by `python -m checks.results measure reward-hacking`:

janusflow reward janusflow/scenes -o RUN --plugin studies.weak_rewards --reward colourful
"""

from __future__ import annotations

import numpy as np

from janusflow.training.rewards import reward


@reward
def colourful(image: np.ndarray, _request: object) -> float:
    """The mean spread of the colour channels of a pixel, in [0, 1], whatever was asked for."""
    return np.ptp(image, axis=-1).mean() / 255
