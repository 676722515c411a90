"""The small trainer: what it minimises, what it changes, and that it loses nothing."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from janusflow import JanusFlowPipeline, JanusFlowProcessor, checkpoints, losses, train
from janusflow.recipes import RECIPES

RECIPE = RECIPES["scenes-smoke"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight steps with checkpoints at every second."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train.run(RECIPE, out, save_every=2)


@pytest.fixture
def started(finished):
    out, _ = finished
    model, batches = train.build(RECIPE, out / "base")
    return train.new_state(RECIPE, model), batches


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_a_run_cut_off_and_taken_up_ends_in_the_same_bits(finished, tmp_path):
    import shutil

    out, whole = finished
    shutil.copytree(out / "base", tmp_path / "base")
    for stop in (3, 5):
        state = _train_until(stop, tmp_path)
        assert state.step == stop
    resumed = train.run(RECIPE, tmp_path, save_every=1)
    assert same(resumed.model, whole.model) and same(resumed.ema, whole.ema)


def _train_until(step, out):
    """As `train.run`, but killed after a number of steps."""
    model, batches = train.build(RECIPE, out / "base")
    state = train.new_state(RECIPE, model)
    checkpoints.restore(out, state, RECIPE.as_dict())
    while state.step < step:
        train.train_step(RECIPE, state, batches)
        checkpoints.save(out, state, RECIPE.as_dict())
    return state


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(finished, tmp_path):
    import shutil

    out, _ = finished
    shutil.copytree(out, tmp_path / "run")
    newest = max((tmp_path / "run").glob("step-*"))
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    model, _ = train.build(RECIPE, tmp_path / "run" / "base")
    state = train.new_state(RECIPE, model)
    with pytest.warns(UserWarning, match="does not match its checksum"):
        assert checkpoints.restore(tmp_path / "run", state, RECIPE.as_dict())
    assert state.step == RECIPE.steps - 2
    with pytest.raises(ValueError, match="another recipe"):
        checkpoints.restore(tmp_path / "run", state, replace(RECIPE, lr=1.0).as_dict())


def test_all_but_the_vision_encoder_learns(started):
    state, batches = started
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    for _ in range(2):
        train.train_step(RECIPE, state, batches)
    moved = {n for n, p in state.model.named_parameters() if not torch.equal(p, before[n])}
    frozen = {n for n in before if n.startswith("vision_und_enc_model.")}
    assert moved == before.keys() - frozen
    assert all(p.grad is None for n, p in state.model.named_parameters() if n in frozen)


def test_the_optimizer_lowers_every_loss_of_one_batch(started):
    state, batches = started
    rng = torch.Generator()

    def measure():
        parts = train.generation_losses(RECIPE, state, batches.pictures(0, 16), rng.manual_seed(1))
        parts |= train.answer_losses(state, batches.questions(0, 8))
        return {name: part.mean() for name, part in parts.items()}

    first = {name: value.item() for name, value in measure().items()}
    for _ in range(30):
        state.optimizer.zero_grad()
        sum(measure().values()).backward()
        state.optimizer.step()
    assert all(value.item() < 0.9 * first[name] for name, value in measure().items())


def test_dropped_prompts_read_as_the_unconditional_row(started):
    state, batches = started
    batch = batches.pictures(0, 4)
    x, t = batch["latents"], torch.full((4,), 0.5)
    model = state.model.double()
    prompt = model.encode_prompt(batch["input_ids"], batch["attention_mask"])
    dropped = train.without_text(prompt, torch.tensor([True, False, True, False]))
    null = model.encode_prompt(batch["input_ids"], batch["attention_mask"], unconditional=True)
    mixed, full, none = (model.velocity(x.double(), t, p) for p in (dropped, prompt, null))
    assert torch.allclose(mixed[[0, 2]], none[[0, 2]]) and torch.allclose(mixed[1], full[1])


def test_training_and_inference_see_the_same_tokens(finished, tmp_path):
    out, _ = finished
    train.export(out, tmp_path)
    processor = JanusFlowProcessor.from_pretrained(tmp_path)
    batches = train.build(RECIPE, out / "base")[1]
    ids = batches.pictures(0, 3)
    for row in range(3):
        own = ids["input_ids"][row][ids["attention_mask"][row].bool()].tolist()
        assert processor.prompt(batches.training_scene(row).caption)["input_ids"][0].tolist() == own
    question = batches.questions(0, 1)
    text = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).decode(
        question["input_ids"][0].tolist(), skip_special_tokens=False
    )
    asked = text.split("<end_of_image>\n")[1].split("\n\nAssistant:")[0]
    inputs = processor(asked, images=[Image.new("RGB", (96, 96))])
    length = inputs["input_ids"].shape[1]
    assert torch.equal(inputs["input_ids"][0], question["input_ids"][0, :length])
    assert torch.equal(inputs["image_token_mask"][0], question["image_token_mask"][0, :length])


def test_an_exported_run_is_a_model_that_draws(finished, tmp_path):
    train.export(finished[0], tmp_path)
    pipe = JanusFlowPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=1).images[0].size == (96, 96)


# Losses


@pytest.mark.parametrize("name", losses.DENSITIES)
def test_times_lie_in_the_unit_interval_and_mirror_with_the_convention(name):
    u = torch.linspace(0.01, 0.99, 199, dtype=torch.float64)
    t = losses.DENSITIES[name](u)
    assert (t > 0).all() and (t < 1).all()
    mirrored = 1 - losses.DENSITIES[name](1 - u)
    assert torch.allclose(t.sort().values, mirrored.sort().values, atol=1e-9)


def test_stratified_times_put_one_in_every_share():
    t = losses.sample_times(64, "uniform", torch.Generator().manual_seed(0))
    assert (t.sort().values * 64).floor().tolist() == list(range(64))


def test_logit_normal_times_have_the_stated_moments():
    t = losses.sample_times(200_000, "logit_normal", mean=0.5, std=0.8)
    logit = torch.logit(t)
    assert abs(logit.mean() - 0.5) < 1e-3 and abs(logit.std() - 0.8) < 1e-3


def test_flow_and_next_token_equal_a_plain_computation():
    v, noise, data = torch.randn(3, 2, 4, 5)
    expected = [((v[i] - data[i] + noise[i]) ** 2).mean() for i in range(2)]
    assert torch.allclose(losses.flow(v, noise, data), torch.stack(expected))
    logits, labels = torch.randn(2, 4, 7), torch.tensor([[1, 2, -100, 3], [-100, -100, 6, -100]])
    plain = []
    for row in range(2):
        steps = [i for i in range(1, 4) if labels[row, i] >= 0]
        plain.append(
            sum(-logits[row, i - 1].log_softmax(-1)[labels[row, i]] for i in steps) / len(steps)
        )
    assert torch.allclose(losses.next_token(logits, labels), torch.stack(plain))


def test_alignment_of_equal_features_is_zero_and_the_teacher_gets_no_gradient():
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    teacher = (3 * hidden.detach()).requires_grad_()
    assert losses.alignment(hidden, teacher).abs().max() < 1e-6
    losses.alignment(hidden, teacher.flip(1)).sum().backward()
    assert teacher.grad is None and hidden.grad.any()


def test_a_category_or_template_with_no_share_never_comes():
    batches = train.Batches(None, None, categories=(0, 0, 0, 1, 0, 0, 0))
    assert {batches.training_scene(i).category for i in range(50)} == {"colors"}
