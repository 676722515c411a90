"""Distribution matching distillation: its gradient, its learning copy, and a run cut off."""

import shutil

import pytest
import torch

from janusflow.training import checkpoints, distillation
from janusflow.training.loss_module import draw
from janusflow.training.objectives.dmd import dmd
from janusflow.training.objectives.online import worth_of

TINY = {
    "training.batch": 5,
    "training.mixture": {"generation": 4, "understanding": 1},
    "training.steps": 4,
    "training.warmup": 1,
    "objective.name": "dmd",
    "objective.steps": 2,
    "objective.evaluations": [2, 1],
    "run.save_every": 1,
    "run.keep": 9,
}


def test_the_gradient_is_from_the_drawn_images_towards_the_data():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    real, fake = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    dmd(x, real, fake).sum().backward()
    size = (x - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(x.grad, ((fake - real) / size / x[0].numel()).detach(), atol=1e-6)


def test_equal_distributions_pull_nowhere():
    x, real = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    dmd(x, real, real).sum().backward()
    assert not x.grad.any()


def test_a_gaussian_generator_finds_the_mean_and_the_spread_of_a_gaussian():
    """Both velocities in closed form: N(mean, std) drawn, N(2, 0.5) wanted."""
    torch.manual_seed(0)
    mean, std = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
    optimizer = torch.optim.Adam([mean, std], lr=0.02)

    def denoised(x, t, mean, std):
        gain = t * std**2 / (t**2 * std**2 + (1 - t) ** 2)
        return mean + gain * (x - t * mean)

    for _ in range(400):
        x = mean + std * torch.randn(256, 1)
        t = torch.rand(256, 1).clamp(0.02, 0.98)
        noised = (1 - t) * torch.randn(256, 1) + t * x
        with torch.no_grad():
            real, fake = denoised(noised, t, 2.0, 0.5), denoised(noised, t, mean, std)
        optimizer.zero_grad()
        dmd(x, real, fake).mean().backward()
        optimizer.step()
    assert abs(mean.item() - 2) < 0.1 and abs(std.abs().item() - 0.5) < 0.1


def run(folder, out, **changes):
    return distillation.plan(str(folder), out, TINY | changes).run()


def test_the_learning_copy_moves_and_the_teacher_stays(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path)
    first, last = (checkpoints.read(tmp_path, step)[0] for step in (1, 4))
    for name, moved in (("teacher", False), ("fake2", True)):
        own = [n for n in first if n.startswith(f"objective.{name}.model.language_model")]
        own = own or [n for n in first if n.startswith(f"objective.{name}.")]
        assert any(not torch.equal(first[n], last[n]) for n in own) == moved


def test_what_is_drawn_depends_on_the_row_alone(tiny_folder, tmp_path):
    trainer = distillation.plan(str(tiny_folder), tmp_path, TINY).trainer()
    main, drawn = trainer.objective.main, trainer.data.draw(0, 0, 1, {"generation": 4})
    whole, last = main.prepare(drawn, range(4), 0), main.prepare(drawn[2:], range(2, 4), 0)
    batches = [draw(main.context.stage, s, 0, range(len(s)), 4, "cpu") for s in (whole, last)]
    for numbers in (main.noise, main.times):
        assert torch.equal(numbers(batches[0], 1)[2:], numbers(batches[1], 1))


def test_a_number_listed_twice_has_twice_as_many_steps_and_one_copy(tiny_folder, tmp_path):
    changes = TINY | {"objective.evaluations": [1, 2, 1]}
    main = distillation.plan(str(tiny_folder), tmp_path, changes).trainer().objective.main
    assert [main.turn(step) for step in range(6)] == [1, 2, 1, 1, 2, 1]
    assert main.jumps()["evaluations"] == [1, 2] and len(main.copies) == 3


def test_a_reward_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"gave 0.5 to 1.5; expected 0 to 1"):
        worth_of(lambda _: torch.tensor([0.5, 1.5]), None)


def test_a_reward_moves_what_the_images_are_held_to(tiny_folder, tmp_path):
    changes = {"objective.reward": "0.5*lenient + 0.5*strict", "training.steps": 2}
    run(tiny_folder, tmp_path, **changes)
    found = checkpoints.read(tmp_path, 2)[0]
    one = next(n for n in found if n.startswith("objective.fake2.") and "exp_avg" not in n)
    assert one.replace("fake2", "better2") in found


def test_copies_continue_those_of_another_run(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path / "before", **{"objective.evaluations": [2]})
    found = checkpoints.read(tmp_path / "before", 4)[0]
    changes = {"objective.fakes_from": str(tmp_path / "before")}
    for student in (None, str(tiny_folder)):
        job = distillation.plan(str(tiny_folder), tmp_path, TINY | changes, student=student)
        main = job.trainer().objective.main
        main.prepare([], [], 0)
        own = main.fakes
        told = own[2].state()
        assert all(torch.equal(told[name], found[f"objective.{name}"]) for name in told)
        assert not any(".exp_avg." in name for name in own[1].state())


def test_copies_of_no_such_run_are_refused(tiny_folder, tmp_path):
    def made(place):
        changes = {"objective.fakes_from": str(place), "objective.evaluations": [1]}
        trainer = distillation.plan(str(tiny_folder), tmp_path, TINY | changes).trainer()
        return trainer.objective.main.prepare([], [], 0)

    with pytest.raises(ValueError, match="has no complete checkpoint"):
        made(tmp_path / "gone")
    run(tiny_folder, tmp_path / "before", **{"objective.evaluations": [2]})
    with pytest.raises(ValueError, match=r"no copies for objective.evaluations \[1\]"):
        made(tmp_path / "before")


def test_a_run_that_goes_on_does_not_need_the_run_whose_copies_it_continued(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path / "before", **{"objective.evaluations": [2]})
    own = {"objective.fakes_from": str(tmp_path / "before"), "training.steps": 2}
    run(tiny_folder, tmp_path / "after", **own)
    shutil.rmtree(tmp_path / "before")
    run(tiny_folder, tmp_path / "after", **own | {"training.steps": 3})
    assert checkpoints.complete(tmp_path / "after")[0] == 3
