"""Trainings of eight steps by the smallest recipe."""

import torch

from janusflow.training import job

EVERY_TWO = {"run.save_every": 2, "run.keep": 9}


def trained_recipe(out, **changes):
    return job.of_recipe("scenes-smoke", out, EVERY_TWO | changes).run()


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
