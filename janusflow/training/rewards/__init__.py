"""Rewards of images by name; see `registry` for what one is."""

from janusflow.training.rewards import judge as judge
from janusflow.training.rewards import scenes as scenes
from janusflow.training.rewards.registry import REWARDS, Graded, find, reward

__all__ = ["REWARDS", "Graded", "find", "reward"]
