"""Rewards and what learns from them, at tiny size."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from janusflow.scenes.shapes import render
from janusflow.scenes.world import SPLITS, generator, prompt, realise
from janusflow.training import checkpoints, init_checkpoint, rewards
from janusflow.training.config_stages import SampleSchedule
from janusflow.training.objectives.nft import nft
from janusflow.training.rewards import Graded, reward_job
from janusflow.training.rewards.prompts import Prompts, shares_of

TINY = {
    "training.batch": 18,
    "training.mixture": {"generation": 16, "understanding": 2},
    "training.steps": 4,
    "objective.group": 4,
    "objective.sampler": "euler",
    "objective.steps": 2,
    "run.save_every": 1,
    "run.keep": 9,
}


@pytest.fixture
def darkness():
    @rewards.reward
    def darkness(pixels, _prompt):
        return 1 - pixels.mean() / 255

    yield "darkness"
    del rewards.REWARDS["darkness"]


def run(folder, out, reward="strict", **changes):
    return reward_job.plan(str(folder), out, reward, changes=TINY | changes).run()


def logged(out, name):
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_a_drawn_scene_has_every_reward_of_the_scorer_and_another_has_less():
    asked = [prompt("test", "color_attr", i) for i in range(4)]
    images = [render(realise(p, generator("test", 0)).objects) for p in asked]
    right = Graded(pixels=np.stack(images), requests=asked)
    wrong = Graded(pixels=np.stack(images), requests=asked[1:] + asked[:1])
    for name in ("strict", "lenient", "parts", "second_reader"):
        assert rewards.find(name)(right).tolist() == [1.0] * 4
        assert rewards.find(name)(wrong).max() < 1


@pytest.mark.usefixtures("darkness")
def test_rewards_add_up_by_their_weights():
    images = Graded(pixels=np.zeros((2, 4, 4, 3), np.uint8), requests=[None] * 2)
    assert rewards.find("0.5*darkness + 2*darkness")(images).tolist() == [2.5, 2.5]
    with pytest.raises(ValueError, match="did you mean 'darkness'"):
        rewards.find("0.5*darknes")


def test_the_best_velocity_of_nft_lies_on_the_better_images_side():
    """Two images of one prompt, one right: a step from the policy's velocity goes towards it."""
    generator = torch.Generator().manual_seed(0)
    x, good, bad = (torch.randn(1, 2, generator=generator) for _ in range(3))
    t, old = torch.tensor([0.3]), torch.zeros(1, 2)
    v = old.clone().requires_grad_()
    loss = nft(v, old, x, t, good, torch.ones(1), 1.0) + nft(v, old, x, t, bad, torch.zeros(1), 1.0)
    loss.sum().backward()
    assert float((-v.grad * (good - bad)).sum()) > 0


@pytest.mark.slow
def test_a_reward_rises(tiny_folder, tmp_path, darkness):
    run(tiny_folder, tmp_path, darkness, **{"training.steps": 12, "training.lr": 4e-3})
    seen = logged(tmp_path, "reward")
    assert np.mean(seen[-3:]) > np.mean(seen[:3]) + 0.005  # five times its noise


@pytest.mark.parametrize("algorithm", ["grpo", "awm", "best_of_n", "dpo"])
def test_every_algorithm_trains_towards_the_reward(tiny_folder, tmp_path, darkness, algorithm):
    """One step: the loss is a number, and the gradient raises what was better."""
    changes = {"objective.lag_first": 1.0, "objective.lag_last": 1.0, "training.lr": 1e-3}
    if algorithm == "grpo":
        changes |= {"objective.steps": 3, "objective.ratio_clip": 1.0}
    plan = reward_job.plan(str(tiny_folder), tmp_path, darkness, algorithm, TINY | changes)
    trainer = plan.trainer()
    first = [trainer.step() for _ in range(2)][-1]
    assert np.isfinite(first["loss"]) and first["grad_norm"] > 0
    assert algorithm in first["parts"] or first["loss"] == 0


def test_a_reward_run_cut_off_and_resumed_ends_in_the_same_bits(tiny_folder, tmp_path):
    changes = {"objective.kl": 0.1, "objective.test_every": 2, "objective.test_prompts": 6}
    changes |= {"objective.watch": ["second_reader"]}
    run(tiny_folder, tmp_path, **changes)
    whole = checkpoints.read(tmp_path, 4)[0]
    scores = logged(tmp_path, "test_strict")
    assert logged(tmp_path, "watched_second_reader") == [0] * 4  # of a network that knows nothing
    for step in (3, 4):
        checkpoints.path_of(tmp_path, step).unlink()
    run(tiny_folder, tmp_path, **changes)
    again = checkpoints.read(tmp_path, 4)[0]
    assert any(name.startswith("objective.policy.") for name in whole)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert logged(tmp_path, "test_strict") == scores


def test_the_command_trains_and_exports(janusflow, tiny_folder, tmp_path):
    words = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    words += ["--reward", "parts", "--threads", 1, "--export", tmp_path / "model"]
    code, _, err = janusflow("reward", tiny_folder, "-o", tmp_path / "run", *words)
    assert code == 0, err
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_group_is_never_cut(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="complete groups of 5"):
        run(tiny_folder, tmp_path, **{"objective.group": 5})


def test_the_own_judge_is_sure_where_the_model_is():
    from janusflow import JanusFlowPipeline
    from janusflow.scenes.questions import prompt_questions

    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    asked = [prompt("test", "colors", i) for i in range(3)]
    images = np.stack([render(realise(p, generator("test", 0)).objects) for p in asked])
    made = dict(pixels=images, model=pipe.model, processor=pipe.processor)
    right = rewards.find("own_judge")(Graded(requests=asked, **made))
    wrong = rewards.find("own_judge")(Graded(requests=asked[1:] + asked[:1], **made))
    assert right.min() > 0.9 and right.mean() > wrong.mean() + 0.2
    assert len(prompt_questions(asked[0])) == 2


def test_another_seed_draws_other_prompts_and_questions_and_seed_0_those_of_before(tiny_folder):
    batches = init_checkpoint.batches(tiny_folder)
    counts = {"generation": 4, "understanding": 2}

    def names(seed):
        own = Prompts(init_checkpoint.batches(tiny_folder, seed=seed), 2)
        return [s.name for s in own.draw(3, 0, 1, counts)]

    before = [s.name for s in Prompts(batches, 2).draw(3, 0, 1, counts)]
    assert names(0) == before
    assert not set(names(1)[:4]) & set(before[:4]) and names(1)[4:] != before[4:]
    followed = Prompts(batches, 2)
    followed.follow(SampleSchedule(((0, replace(reward_job.STAGE, seed=1)),)), 9)
    assert [s.name for s in followed.draw(3, 0, 1, counts)] == names(1)


def test_shares_of_categories_decide_what_is_asked_for_and_wrong_ones_are_refused(
    janusflow, tiny_folder, tmp_path
):
    batches = init_checkpoint.batches(tiny_folder)
    asked = Prompts(batches, 1, shares_of("0 0 1 0 0 0 0"))
    assert {asked.one(i).request.category for i in range(9)} == {"counting"}
    for text in ("1 2 3", "0 0 0 0 0 0 0", "1 1 1 -1 1 1 1", "a b"):
        code, _, err = janusflow("reward", tiny_folder, "-o", tmp_path, "--categories", text)
        assert code == 2 and "expected 7 numbers" in err
    told = janusflow("reward", "--help")[1]
    assert all(name in told for name in SPLITS["train"])


def test_a_run_goes_on_with_other_shares_only_where_it_is_told_to(tiny_folder, tmp_path):
    shares, few = (0, 0, 1, 0, 0, 0, 0), TINY | {"training.steps": 1}
    reward_job.plan(str(tiny_folder), tmp_path, changes=few).run()
    more = TINY | {"training.steps": 2}
    with pytest.raises(ValueError, match="the same --categories"):
        reward_job.plan(str(tiny_folder), tmp_path, changes=more, categories=shares).run()
    more |= {"run.allow": ["data"]}
    reward_job.plan(str(tiny_folder), tmp_path, changes=more, categories=shares).run()
