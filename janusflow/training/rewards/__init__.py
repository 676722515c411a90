"""Rewards of images by name; `reward` defines what a reward is."""

from janusflow.training.rewards import (  # noqa: F401 (they register theirs)
    pretrained_judges,
    scene_rewards,
    self_judge,
)
from janusflow.training.rewards.reward import (
    JUDGES,
    REWARDS,
    Graded,
    Reward,
    find,
    graded,
    judge,
    reward,
)

__all__ = ["JUDGES", "REWARDS", "Graded", "Reward", "find", "graded", "judge", "reward"]
