"""The training on one GPU computes what the trainer computes, and learns on a CPU too."""

import json

import pytest
import torch

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.packed_forward import forward
from janusflow.training import init_checkpoint
from janusflow.utils.hub import locate
from studies.scenes_on_gpu import fixed_shapes, pool, run


@pytest.fixture(scope="module")
def model():
    return JanusFlowModel.from_pretrained(locate("janusflow/scenes"), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def batches():
    return init_checkpoint.batches(locate("janusflow/scenes"))


@torch.no_grad()
def test_the_velocity_of_padded_prompts_is_that_of_packed_ones(model, batches):
    samples = batches.images(range(4))
    ids = torch.from_numpy(pool.rows([s.input_ids.tolist() for s in samples], pool.PROMPT, 0))
    lengths = torch.tensor([len(s.input_ids) for s in samples])
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 16, 12, 12, generator=generator), torch.tensor([0.1, 0.4, 0.6, 0.9])
    dropped, target = torch.tensor([False, True, False, False]), torch.full((4,), 0.95)
    ours = fixed_shapes.velocity(
        model, fixed_shapes.Prompts(ids.long(), lengths), x, t, dropped, target
    )
    theirs = forward(model, samples, x, t, dropped, target=target).velocity
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_answers_have_the_loss_of_the_trainer(model, batches):
    samples = [s for s in batches.questions(3, 12) if len(s.input_ids) <= pool.ANSWERS]
    ids = pool.rows([s.input_ids.tolist() for s in samples], pool.ANSWERS, 0)
    labels = pool.rows([s.labels.tolist() for s in samples], pool.ANSWERS, -100)
    images = torch.cat([s.pixel_values for s in samples])
    place = pool.image_place(locate("janusflow/scenes"))
    own = [torch.from_numpy(x).long() for x in (ids, labels)]
    ours = fixed_shapes.answers(model, images, *own, place)
    theirs = forward(model, samples).next_token()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_stratified_times_have_the_density_asked_for():
    logits = fixed_shapes.logit_normal(4000, -1.5, 1.3, torch.device("cpu")).logit()
    assert logits.mean().item() == pytest.approx(-1.5, abs=0.02)
    assert logits.std().item() == pytest.approx(1.3, abs=0.02)


@pytest.mark.slow
def test_the_whole_run_leaves_weights_and_scores(tmp_path, monkeypatch):
    small = [
        "joint.images=4",
        "joint.questions=4",
        "few.images=2",
        "few.questions=2",
        "few.critic_updates=2",
    ]
    told = ["--seconds", "4", "4", "--processes", "1", "--chunks", "1", "--tested", "6"]
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path), *told, "--set", *small])
    run.main()
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["joint steps"] > 0 and found["few steps"] > 0
    assert set(found["few 0.998"]) == {"4", "2", "1"}
    assert len(list(tmp_path.glob("*.safetensors"))) == 5
