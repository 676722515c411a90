"""An objective is a function or a class; the trainer, the settings and the log find it by name."""

import json

import pytest
import torch

from janusflow.training import config, init_checkpoint, loop, objectives
from janusflow.training.recipes import RECIPES

RECIPE = RECIPES["scenes-smoke"]


def add_an_objective():
    @objectives.objective
    def huber(net, batch, *, delta: float = 0.1):
        """Huber's loss of the velocity."""
        error = net.out.velocity - (batch.data - batch.noise)
        how = dict(reduction="none", delta=delta)
        return torch.nn.functional.huber_loss(error, 0 * error, **how).flatten(1).mean(dim=1)


@pytest.fixture
def huber():
    add_an_objective()
    yield
    del objectives.OBJECTIVES["huber"]


def trainer(folder, **changes):
    own = {"training.batch": 6, "training.mixture": {"generation": 4, "understanding": 2}}
    chosen = config.changed(init_checkpoint.of_recipe(RECIPE), own | changes)
    return loop.trainer_of(chosen, folder, init_checkpoint.batches(folder, RECIPE))


@pytest.mark.usefixtures("huber")
def test_the_trainer_and_its_settings_find_a_new_objective(tiny_folder):
    found = trainer(tiny_folder, **{"objective.delta": "0.2", "objective.name": "huber"})
    assert found.settings.objective == {"name": "huber", "delta": 0.2}
    parts = found.step()["parts"]
    assert set(parts) == {"huber", "alignment", "next_token"}
    again = config.from_dict(json.loads(json.dumps(found.settings.as_dict())))
    assert again.objective == found.settings.objective


@pytest.mark.usefixtures("huber")
def test_accumulation_does_not_change_a_new_objective(tiny_folder):
    losses = [
        trainer(tiny_folder, **{"objective": "huber", "run.accumulation": n}).step()["loss"]
        for n in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective.name": "flwo"}, "did you mean 'flow'"),
        ({"objective.beta": 1.0}, "has no option 'beta'"),
        ({"objective": "nft", "objective.beta": "wide"}, "expected float"),
        ({"objective": "nft"}, "train by janusflow reward"),
    ],
)
def test_what_there_is_not_is_refused_by_name(tiny_folder, changes, told):
    with pytest.raises(ValueError, match=told):
        trainer(tiny_folder, **changes)


@pytest.mark.parametrize(
    "name", ["mean_flow", "improved_mean_flow", "alpha_flow", "shortcut", "consistency"]
)
def test_every_flow_map_objective_trains(tiny_folder, name):
    changes = {"objective": name, "alignment": "none", "objective.guidance": 2.0}
    found = trainer(tiny_folder, **changes)
    steps = [found.step() for _ in range(2)]
    assert all(0 < one["parts"][name] < 10 and one["grad_norm"] > 0 for one in steps)


def test_forward_mode_and_finite_differences_agree_in_the_network(tiny_folder):
    ways = ("forward", "finite")
    changes = {"objective.name": "mean_flow", "alignment": "none", "objective.adaptive": 0.0}
    found = [
        trainer(tiny_folder, **changes, **{"objective.derivative": way}).step()["parts"]
        for way in ways
    ]
    assert found[0]["mean_flow"] == pytest.approx(found[1]["mean_flow"], rel=0.02)


def test_reflow_wants_pairs(tiny_folder):
    with pytest.raises(ValueError, match="janusflow pairs"):
        trainer(tiny_folder, **{"objective": "reflow"}).step()
