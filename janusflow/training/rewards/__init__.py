"""Rewards of images by name; see `reward` for what one is."""

from janusflow.training.rewards import scene_rewards, self_judge  # noqa: F401 (they register theirs)
from janusflow.training.rewards.reward import REWARDS, Graded, Reward, find, graded, reward

__all__ = ["REWARDS", "Graded", "Reward", "find", "graded", "reward"]
