"""Training: what each stage changes, that nothing is lost, that processes agree."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from smoke_runs import RECIPE, engine, same, trained_recipe
from tokenizers import Tokenizer

from checks import overfit
from janusflow import JanusFlowModel, JanusFlowPipeline, JanusFlowProcessor
from janusflow.data import prefetch
from janusflow.scenes.batches import Batches
from janusflow.training import checkpoints, config, init_checkpoint, job, loop, loss_module, losses
from janusflow.training.alignment import repa
from janusflow.training.build import build
from janusflow.training.config_stages import STAGES
from janusflow.training.ema import freeze_all_but
from janusflow.training.recipes import RECIPES
from janusflow.training.schedules import learning_rate
from janusflow.utils import locked_dir as folders


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("cut", [2, 4, 6])
def test_a_run_cut_off_and_taken_up_ends_in_the_same_bits(finished, copied, cut):
    for path in copied.glob("step-*"):
        if int(path.stem[5:]) > cut:
            path.unlink()
    assert trained_recipe(copied).finished
    assert same(checkpoints.read(copied, 8)[0], checkpoints.read(finished, 8)[0])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(finished, copied):
    newest = checkpoints.path_of(copied, 8)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="does not match its checksum"):
        trained_recipe(copied)
    assert same(checkpoints.read(copied, 8)[0], checkpoints.read(finished, 8)[0])


def test_a_folder_keeps_what_decides_which_tensors_learn(copied):
    with pytest.raises(ValueError, match=r"training\.trainable .* --init-from"):
        trained_recipe(copied, **{"training.trainable": "linear"})


def test_a_folder_keeps_its_network(copied):
    with pytest.raises(ValueError, match="hidden is 64 there, 32 here"):
        trained_recipe(copied, hidden=32)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with folders.alone(tmp_path), pytest.raises(ValueError, match="another run is at work"):
        trained_recipe(tmp_path)


def test_a_new_run_begins_with_the_weights_of_another(finished, tmp_path):
    shutil.copytree(finished / "base", tmp_path / "base")
    done = job.of_recipe("scenes-smoke", tmp_path, {"training.lr": 1e-12}, finished).run()
    theirs = checkpoints.latest(finished)[1]
    for name, parameter in done.state.parameters.items():
        torch.testing.assert_close(parameter.detach(), theirs[f"ema.{name}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", STAGES)
def test_every_parameter_of_a_stage_gets_a_gradient_and_no_other_moves(finished, number):
    trains = STAGES[number].trainable
    found = engine(finished / "base", **{"training.trainable": trains})
    model = found.objective.model
    with torch.no_grad():  # what starts at zero hides what is before it
        for name, parameter in model.named_parameters():
            if not parameter.any() and "attn_pool" not in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    found.gradients(0)
    expected = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()} >= (
        expected - {"language_model.model.embed_tokens.weight"}
    )
    assert ("beg_of_und_embed" in expected) == ("linear" in trains)
    found.optimizer.zero_grad(set_to_none=True)
    for _ in range(2):
        found.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert moved == expected


def test_freezing_leaves_the_pooling_head_alone(finished):
    model = engine(finished / "base").objective.model
    freeze_all_but(model, ("vision_encoder",))
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names and not any("attn_pool" in n or "language" in n for n in names)


@pytest.mark.slow
def test_a_few_pictures_with_their_questions_are_learnt_by_heart(tmp_path):
    """`python -m checks.overfit` in small: the loss nears its floor, all answers are right."""
    found = overfit.trainer_of(tmp_path / "base", 2, 60)
    first = overfit.measured(found, draws=2)
    while found.state.step < 60:
        found.step()
    last = overfit.measured(found, draws=4)
    assert first["answers"] == 0 and last["answers"] == 1
    assert last["floor"] < 0.02 and last["flow"] < 0.6 * first["flow"]


def test_the_floor_of_the_flow_loss_is_the_posteriors_variance():
    """Two equally likely images on a line, against a plain sum over the noise's density."""
    data, t = torch.tensor([[-1.0], [2.0]]), torch.full((2,), 0.4)
    x = torch.tensor([[0.1], [0.7]])
    both = torch.ones(2, 2, dtype=torch.bool)
    found = overfit.posterior_velocity(x, t, data, both)
    for row in range(2):
        noise = (x[row] - 0.4 * data) / 0.6  # the one noise that each image would need
        likely = (-noise.square() / 2).exp()
        expected = (likely * (data - noise)).sum() / likely.sum()
        assert found[row] == pytest.approx(float(expected), abs=1e-5)
    alone = overfit.posterior_velocity(x, t, data, torch.eye(2, dtype=torch.bool))
    assert torch.allclose(alone, data - (x - 0.4 * data) / 0.6, atol=1e-5)


def test_a_weight_by_time_weighs_the_flow_loss(finished):
    """Bin by bin it is the even loss times the weight, whose mean over a bin lies in its range."""
    names = [name for name in losses.WEIGHTS if name != "even"]
    even = engine(finished / "base").step()["by_time"][0]
    for name in names:
        found = engine(finished / "base", **{"training.time_weight": name}).step()["by_time"][0]
        for i, (a, b) in enumerate(zip(even, found, strict=True)):
            range_ = losses.WEIGHTS[name](
                torch.linspace(i / 10, (i + 1) / 10, 101).clamp(1e-4, 0.9999)
            )
            if a:
                assert range_.min() * 0.999 <= b / a <= range_.max() * 1.001


def test_micro_batches_add_up_to_the_batch(finished):
    steps = {}
    for parts in (1, 4):  # one after the other: accelerate's state is the process's
        found = engine(finished / "base", **{"run.accumulation": parts})
        steps[parts] = [found.step() for _ in range(2)]
    for a, b in zip(steps[1], steps[4], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)


def test_packed_and_padded_give_the_same_training(finished):
    packed = engine(finished / "base", **{"run.packed": True})
    padded = engine(finished / "base", **{"run.packed": False})
    for _ in range(2):
        assert packed.step()["loss"] == pytest.approx(padded.step()["loss"], rel=1e-5)


def test_the_rate_warms_up_stays_and_falls():
    stage = replace(STAGES["1"], steps=100, warmup=10, lr=1.0)
    assert learning_rate(stage, 0) == pytest.approx(0.1) and learning_rate(stage, 99) == 1.0
    for schedule in ("linear", "cosine"):
        falling = replace(stage, schedule=schedule, decay_from=0.5)
        assert learning_rate(falling, 49) == 1.0
        assert learning_rate(falling, 75) == pytest.approx(0.5)
        assert learning_rate(falling, 99) < 0.03


def test_the_mixture_holds_over_a_run_and_the_opening_differs():
    stage = STAGES["2"]
    assert stage.counts(0) == {"understanding": 154, "generation": 256, "text": 102}
    total = [0, 0, 0]
    for step in range(10_000, 11_000):
        counts = stage.counts(step)
        assert sum(counts.values()) == stage.batch
        total = [a + b for a, b in zip(total, counts.values(), strict=True)]
    shares = [count / sum(total) for count in total]
    assert shares == pytest.approx([0.14, 0.80, 0.06], abs=2e-4)


def test_settings_survive_their_file(tmp_path):
    changes = config.parse(["training.lr=2e-5", "alignment=irepa", "run.trackers=tensorboard"])
    ours = config.changed(config.of_stage(2), changes)
    path = tmp_path / "settings.yaml"
    path.write_text(config.dump(ours), encoding="utf-8")
    assert config.load(path) == ours and ours.training.lr == 2e-5


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("training.rl=1", "training.lr"),
        ("nothing=1", "training."),
        ("training.lr=fast", "expected float"),
        ("training.steps=1.5", "expected int"),
        ("training.steps=0", "above 0"),
        ("training.trainable=head", "language_model"),
        ("alignment=best", "irepa"),
        ("training.lr", "NAME=VALUE"),
        ("training.lr=!!python/object:os.system {}", "YAML"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_with_what_does(item, says):
    with pytest.raises(ValueError, match=says):
        config.changed(config.of_stage(1), config.parse([item]))


def test_training_and_inference_see_the_same_tokens(finished, tmp_path):
    loop.export(finished, tmp_path)
    processor = JanusFlowProcessor.from_pretrained(tmp_path)
    batches = init_checkpoint.batches(finished / "base", RECIPE)
    for row, sample in enumerate(batches.images(range(3))):
        caption = batches.training_scene(row).caption
        assert torch.equal(processor.prompt(caption)["input_ids"][0], sample.input_ids)
    question = batches.questions(0, 1)[0]
    text = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).decode(
        question.input_ids.tolist(), skip_special_tokens=False
    )
    asked = text.split("<end_of_image>\n")[1].split("\n\nAssistant:")[0]
    inputs = processor(asked, images=[Image.new("RGB", (96, 96))])
    length = inputs["input_ids"].shape[1]
    assert torch.equal(inputs["input_ids"][0], question.input_ids[:length])
    assert torch.equal(inputs["image_token_mask"][0], question.image_token_mask[:length])


def test_an_exported_run_is_a_model_that_draws(finished, tmp_path):
    loop.export(finished, tmp_path)
    pipe = JanusFlowPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a red circle", num_inference_steps=1).images[0].size == (96, 96)


def test_an_exported_model_is_the_average_of_the_weights(finished, tmp_path):
    loop.export(finished, tmp_path, torch.float32)
    tensors = checkpoints.latest(finished)[1]
    exported = JanusFlowPipeline.from_pretrained(tmp_path).model.state_dict()
    averages = {k.removeprefix("ema.model."): v for k, v in tensors.items() if "ema.model" in k}
    assert averages and all(torch.equal(exported[k], v) for k, v in averages.items())


def test_a_category_or_template_with_no_share_never_comes():
    batches = Batches(None, None, categories=(0, 0, 0, 1, 0, 0, 0))
    assert {batches.training_scene(i).category for i in range(50)} == {"colors"}


def test_a_run_with_another_seed_sees_other_scenes(finished):
    """So that one which starts from another's weights is not shown the same images again."""
    recipes = [replace(RECIPES["scenes-smoke"], seed=seed) for seed in (0, 0, 1)]
    sources = [init_checkpoint.batches(finished / "base", recipe) for recipe in recipes]
    counts = {"generation": 4, "understanding": 2}
    first, again, other = ({s.name for s in b.draw(0, 0, 1, counts)} for b in sources)
    assert first == again and not first & other


@pytest.mark.slow
def test_batches_drawn_ahead_by_other_processes_are_the_same(finished):
    source = init_checkpoint.batches(finished / "base", RECIPES["scenes-smoke"])
    schedule = init_checkpoint.of_recipe(RECIPES["scenes-smoke"]).schedule
    drawn = prefetch.Ahead(source, workers=1)
    drawn.follow(schedule, 6)
    for step in (3, 4, 7):  # from the middle, on, and beyond the run's end
        asked = 0, 1, schedule.counts(step), schedule.start(step)
        for own, other in zip(source.draw(step, *asked), drawn.draw(step, *asked), strict=True):
            assert own.name == other.name and torch.equal(own.input_ids, other.input_ids)
            assert torch.equal(own.pixel_values, other.pixel_values)


def test_the_recipe_for_a_gpu_gives_weights_that_fit_into_the_package():
    size = sum(p.numel() for p in JanusFlowModel(RECIPES["scenes-mini"].config(600)).parameters())
    assert 10e6 < 2 * size < 15.5e6  # bytes in bfloat16; the package takes 16 MB


@pytest.mark.parametrize("parts", [1, 4])
def test_the_logged_cosine_is_that_of_the_whole_batchs_gradients(finished, parts):
    """Micro-batches in one pack or in four add up to one number, that of a plain computation."""
    changes = {"alignment": "haste", "alignment.tap": 2, "run.watch_every": 2}
    found = engine(finished / "base", **changes, **{"run.accumulation": parts})
    assert "gradient_cosine" not in found.step()
    torch.manual_seed(0)
    plain = engine(finished / "base", **changes, **{"run.accumulation": 1})
    plain.step()
    logged = found.step()["gradient_cosine"]
    stage, counts = plain.settings.training, plain.settings.training.counts(1)
    samples = plain.data.draw(1, 0, 1, counts)
    batch = loss_module.draw(stage, samples, 1, range(8), 8, "cpu")
    with repa.watching(plain.objective.model, 2) as states:
        parts = plain.objective(batch)
    pulled = 0.5 * parts["alignment"] + 0.5 * parts["attention"]
    expected = repa.gradient_cosine(parts["flow"], pulled, states[0])
    assert logged == pytest.approx(float(expected), rel=1e-3) and 0 < abs(logged) < 1


def test_watching_changes_no_bit_of_the_training(finished):
    quiet, watched = (engine(finished / "base", **{"run.watch_every": n}) for n in (0, 1))
    for _ in range(3):
        a, b = quiet.step(), watched.step()
        assert a["loss"] == b["loss"] and a["grad_norm"] == b["grad_norm"]


def test_haste_trains_by_features_and_maps_until_its_step(finished):
    changes = {"alignment": "haste", "alignment.tap": 2, "alignment.until": 2}
    for packed in (True, False):
        found = engine(finished / "base", **changes, **{"run.packed": packed})
        steps = [found.step() for _ in range(3)]
        assert [{"alignment", "attention"} <= step["parts"].keys() for step in steps] == [1, 1, 0]
        loss = steps[0]["parts"]
        total = loss["flow"] + 0.5 * loss["alignment"] + 0.5 * loss["attention"]
        assert steps[0]["loss"] == pytest.approx(total + loss["next_token"], rel=1e-6)


def test_gradient_checkpointing_changes_nothing_but_memory(finished):
    plain = engine(finished / "base")
    spare = engine(finished / "base", **{"run.gradient_checkpointing": True})
    assert plain.step()["grad_norm"] == pytest.approx(spare.step()["grad_norm"], rel=1e-5)


def test_building_takes_any_accelerator(finished):
    """What the engine needs of the model is what it unfreezes."""
    found = config.changed(init_checkpoint.of_recipe(RECIPE), {"alignment": "none"})
    model = engine(finished / "base").objective.model
    assert (
        "alignment"
        not in build(found, model, init_checkpoint.batches(finished / "base")).step()["parts"]
    )
