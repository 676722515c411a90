"""Trainings of eight steps by the smallest recipe."""

import torch

from janusflow.training import config, init_checkpoint, job, loop
from janusflow.training.recipes import RECIPES

RECIPE = RECIPES["scenes-smoke"]

EVERY_TWO = {"run.save_every": 2, "run.keep": 9}


def trained_recipe(out, **changes):
    return job.of_recipe("scenes-smoke", out, EVERY_TWO | changes).run()


def engine(base, **changes):
    """The trainer of the recipe on the initial model in `base`, with changed settings."""
    found = config.changed(init_checkpoint.of_recipe(RECIPE), changes)
    return loop.trainer_of(found, base, init_checkpoint.batches(base, RECIPE))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
