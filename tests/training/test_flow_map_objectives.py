"""A flow map distilled from a model's own guided trajectories, at tiny size."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from janusflow.data.samples import Sample
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import checkpoints, distillation, pairs, rollouts
from janusflow.training.objectives.flow_map import segments
from studies import few_evaluations

TINY = {
    "training.batch": 5,
    "training.mixture": {"generation": 4, "understanding": 1},
    "training.steps": 4,
    "training.warmup": 1,
    "objective.sampler": "euler",
    "objective.steps": 2,
    "objective.evaluations": [2, 1],
    "run.save_every": 1,
    "run.keep": 9,
}


def run(folder, out, **changes):
    return distillation.plan(str(folder), out, TINY | changes).run()


def test_segments_cut_the_grid_evenly_and_each_once():
    assert segments(8, (4, 2, 1)) == [(0, 2), (2, 4), (4, 6), (6, 8), (0, 4), (4, 8), (0, 8)]
    assert segments(2, (1, 1)) == [(0, 2)]
    with pytest.raises(ValueError, match="divisors of the 8"):
        segments(8, (3,))


def test_a_map_to_its_own_time_is_the_velocity(tiny_folder):
    model = JanusFlowModel.from_pretrained(tiny_folder).eval()
    prompt = model.encode_prompt(torch.tensor([[1, 5, 6]]))
    x, t = torch.randn(2, 16, 12, 12), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        plain = model.velocity(x, t, prompt)
        assert torch.allclose(model.velocity(x, t, prompt, target=t), plain, atol=1e-5)
        assert not torch.allclose(model.velocity(x, t, prompt, target=t + 0.2), plain, atol=1e-3)


def test_the_packed_pass_hears_the_target_as_the_sampler_does(tiny_folder):
    from janusflow.models.janusflow.packed_forward import forward

    model = JanusFlowModel.from_pretrained(tiny_folder).eval()
    x, t, s = torch.randn(1, 16, 12, 12), torch.tensor([0.2]), torch.tensor([0.9])
    sample = Sample(kind="generation", input_ids=torch.tensor([1, 5, 6]), latents=x[0])
    with torch.no_grad():
        packed = forward(model, [sample], x, t, target=s).velocity
        u = rollouts.flow_map(model, [sample])(x, t, s)
    assert torch.allclose(packed, u, atol=1e-4)


def test_a_sample_becomes_the_segments_of_its_teachers_trajectory(tiny_folder, tmp_path):
    trainer = distillation.plan(str(tiny_folder), tmp_path, TINY).trainer()
    drawn = trainer.data.draw(0, 0, 1, {"generation": 2})
    first, second, whole = trainer.objective.main.prepare(drawn, range(2), 0)[:3]
    assert [(float(s.extra["t"]), float(s.extra["s"])) for s in (first, second, whole)] == [
        (0, 0.5),
        (0.5, 1),
        (0, 1),
    ]
    half = first.extra["x"] + 0.5 * first.extra["mean"]
    assert torch.allclose(half, second.extra["x"], atol=1e-5)
    assert torch.allclose(whole.extra["x"] + whole.extra["mean"], whole.latents, atol=1e-5)


def test_the_command_exports_a_model_that_jumps(janusflow, tiny_folder, tmp_path):
    words = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    words += ["--threads", 1, "--export", tmp_path / "model"]
    code, _, err = janusflow("distill", tiny_folder, "-o", tmp_path / "run", *words)
    assert code == 0, err
    row = few_evaluations.scored(str(tmp_path / "model"), "map:2", 6, 2)
    assert row["evaluations"] == 2 and row["images"] == 12


@pytest.mark.parametrize("name", ["flow_map", "dmd"])
def test_a_distillation_cut_off_and_resumed_ends_in_the_same_bits(tiny_folder, tmp_path, name):
    how = {"objective.name": name}
    if name == "dmd":
        how["objective.sampler"] = None
    changes = {k: v for k, v in (TINY | how).items() if v is not None}
    distillation.plan(str(tiny_folder), tmp_path, changes).run()
    whole = checkpoints.read(tmp_path, 4)[0]
    for step in (3, 4):
        checkpoints.path_of(tmp_path, step).unlink()
    distillation.plan(str(tiny_folder), tmp_path, changes).run()
    again = checkpoints.read(tmp_path, 4)[0]
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_pairs_are_made_once_in_any_division_and_reflow_trains_on_them(
    janusflow, tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(pairs, "SHARD", 4)
    (tmp_path / "prompts.txt").write_text("a star\na red ring\n")
    how = ["--sampler", "euler", "--steps", 2, "--count", 6, "--prompts", tmp_path / "prompts.txt"]
    make = ["pairs", tiny_folder, *how]
    code, said, err = janusflow(*make, "-o", tmp_path / "a")
    assert code == 0 and "6 pairs" in said and "straightness" in said, err
    for part in ("1/2", "0/2"):
        assert janusflow(*make, "-o", tmp_path / "b", "--part", part)[0] == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 3
    assert all((tmp_path / x / n).read_bytes() for x in "ab" for n in files)
    for name in files[:2]:
        one, two = (pairs.read(tmp_path / x / name) for x in "ab")
        assert all(torch.equal(p.latents, q.latents) for p, q in zip(one, two, strict=True))
    assert "0 pairs" in janusflow(*make, "-o", tmp_path / "a")[1]
    words = [f"--set={k}={json.dumps(v)}" for k, v in TINY.items() if k[:9] != "objective"]
    words += ["--pairs", tmp_path / "a", "--export", tmp_path / "model"]
    code, _, err = janusflow("distill", tiny_folder, "-o", tmp_path / "run", *words)
    assert code == 0, err
    assert json.loads((tmp_path / "model" / "reflow.json").read_text()) == {"round": 1}


@pytest.fixture(scope="module")
def other_folder(tiny_folder, tmp_path_factory):
    """A model with the tokenizer and the autoencoder of the tiny one, and other weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_folder, folder)
    model = JanusFlowModel.from_pretrained(folder)
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    return folder


def test_a_student_begins_with_its_own_weights_and_learns_of_its_teacher(
    tiny_folder, other_folder, tmp_path
):
    plan = distillation.plan(str(tiny_folder), tmp_path, TINY, student=str(other_folder))
    trainer = plan.trainer()
    teacher = JanusFlowModel.from_pretrained(tiny_folder).state_dict()
    student = JanusFlowModel.from_pretrained(other_folder).state_dict()
    ours = trainer.objective.main.teacher.model.state_dict()
    assert all(torch.equal(ours[name], x) for name, x in teacher.items())
    ours = trainer.objective.model.state_dict()
    assert all(torch.equal(ours[name], x) for name, x in student.items())
    plan.run()
    kept = checkpoints.read(tmp_path, 4)[0]
    start = "objective.teacher."
    assert all(torch.equal(teacher[n[len(start) :]], kept[n]) for n in kept if start in n)
    plan = distillation.plan(str(other_folder), tmp_path, TINY, student=str(other_folder))
    with pytest.raises(ValueError, match="another teacher"):
        plan.run()


def test_a_student_of_another_autoencoder_is_refused(tiny_folder, other_folder, tmp_path):
    shutil.copytree(other_folder, tmp_path / "model")
    path = tmp_path / "model/vae/config.json"
    weights = tmp_path / "model/vae/diffusion_pytorch_model.safetensors"
    assert path.is_file()
    tensors = load_file(weights)
    save_file({name: 2 * x for name, x in tensors.items()}, weights)
    with pytest.raises(ValueError, match="another autoencoder than its teacher"):
        distillation.plan(str(tiny_folder), tmp_path / "run", student=str(tmp_path / "model"))


def test_mean_flow_distils_too_and_the_flow_says_that_it_is_no_map(tiny_folder, tmp_path):
    changes = {k: v for k, v in TINY.items() if k[:9] != "objective"} | {"training.steps": 1}
    changes |= {"objective.name": "mean_flow", "objective.distil": True}
    distillation.plan(str(tiny_folder), tmp_path / "a", changes).run()
    told = json.loads((tmp_path / "a/flow-map.json").read_text())
    assert told["evaluations"] == [4, 2, 1]
    changes = {"objective": {"name": "flow"}}
    with pytest.raises(ValueError, match="'flow' trains no flow map"):
        distillation.plan(str(tiny_folder), tmp_path / "b", changes).trainer()


def test_a_trajectory_counts_by_the_reward_of_its_end(tiny_folder, tmp_path):
    changes = {"objective.reward": "0.5*lenient + 0.5*strict"}
    trainer = distillation.plan(str(tiny_folder), tmp_path, TINY | changes).trainer()
    main, drawn = trainer.objective.main, trainer.data.draw(0, 0, 1, {"generation": 4})
    main.reward = lambda _: torch.tensor([0.0, 1.0, 0.0, 1.0])
    parts = main.prepare(drawn, range(4), 0)
    assert [float(s.extra["worth"]) for s in parts[::3]] == [0, 1, 0, 1]


def test_a_models_folder_to_begin_from_is_the_student(tiny_folder, other_folder, tmp_path):
    plan = distillation.plan(str(tiny_folder), tmp_path, TINY, other_folder)
    assert plan.start is None and plan.meta["model"] == str(other_folder)
