"""The small Janus-Pro: its codebook in closed form, its training, its commands."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

import janusflow as package
from janusflow.models.janus_pro import vq
from janusflow.scenes.patches import pixels
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import scene
from studies.janus_pro_scenes import codebook, train
from studies.janus_pro_scenes.recipes import RECIPES

SMOKE = RECIPES["scenes-pro-smoke"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return train.build(SMOKE, tmp_path_factory.mktemp("base"))


def test_the_network_is_the_nearest_centre_and_its_patch(made):
    model, _ = made
    images = pixels(render_batch([scene("train", i).objects for i in range(1024)]))
    folded = vq.fold(images, SMOKE.patch)
    patches = folded.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0).double()
    mean = patches.mean(dim=0)
    axes = torch.linalg.eigh((patches - mean).T.cov())[1][:, -SMOKE.components :]
    codes = codebook.centres(((patches - mean) @ axes).float(), SMOKE.codes, SMOKE.seed, 8)
    with torch.no_grad():
        tokens = vq.tokens(model.model.vqmodel, folded[:8])
        decoded = model.model.vqmodel.decode(tokens)
    own = (folded[:8].permute(0, 2, 3, 1).flatten(1, 2).double() - mean) @ axes
    nearest = torch.cdist(own.float(), codes).argmin(dim=-1)
    assert (tokens == nearest).float().mean() > 0.999
    expected = (codes[tokens].double() @ axes.T + mean).float()
    shown = decoded.permute(0, 2, 3, 1).flatten(1, 2)
    assert (shown - expected).abs().max() < 2e-3


def test_training_learns_and_what_was_cut_off_ends_in_the_same_bits(tmp_path):
    whole = train.run(SMOKE, tmp_path / "whole", log_every=1, save_every=2)
    part = tmp_path / "part"
    train.run(SMOKE, part, save_every=2)
    (part / "step-00000004.safetensors").unlink()
    again = train.run(SMOKE, part, save_every=2)
    pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    values = [json.loads(line)["next"] for line in lines]
    assert len(values) == 4 and values[-1] < values[0]


def test_a_recipe_written_before_a_setting_existed_has_its_default():
    before = asdict(SMOKE)
    del before["first"]
    assert train.recipe_of({"recipe": json.dumps(before)}) == SMOKE


def test_every_trainable_parameter_receives_a_gradient(made):
    model, processor = made
    train.losses(model, **train.batch(SMOKE, model, processor, 0)).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_language_model_of_other_sizes_is_refused(made):
    with pytest.raises(ValueError, match="other sizes"):
        train.start_from(train.new_state(SMOKE, made[0]), "janusflow/scenes")


def test_an_exported_model_gives_the_tokens_that_were_learnt_and_tells_its_guidance(tmp_path):
    state = train.run(SMOKE, tmp_path / "run", save_every=4)
    train.export(tmp_path / "run", tmp_path / "model")
    pipe = package.load(tmp_path / "model")
    images = pixels(render_batch([scene("train", i).objects for i in range(8)]))
    folded = vq.fold(images, SMOKE.patch)
    with torch.no_grad():
        learnt, told = (vq.tokens(m.model.vqmodel, folded) for m in (state.model, pipe.model))
    assert torch.equal(learnt, told)
    assert pipe.own_guidance == SMOKE.guidance
    assert pipe.model.config.text_config.rope_parameters["rope_theta"] == SMOKE.rope_theta


# The model in the box and the command line


@pytest.fixture(scope="module")
def pipe():
    pipe = package.load("janusflow/scenes-pro")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_shipped_codebook_keeps_what_a_scene_shows(pipe):
    from janusflow.scenes.scorer import score
    from janusflow.scenes.shapes import render
    from janusflow.scenes.world import generator, prompt, realise

    asked = [prompt("test", "counting", i) for i in range(12)]
    drawn = [realise(p, generator("test", i, "oracle")).objects for i, p in enumerate(asked)]
    pictures = [Image.fromarray(render(objects)) for objects in drawn]
    decoded = pipe.decode(pipe.encode(pictures))
    right = [score(np.asarray(d), p).strict for d, p in zip(decoded, asked, strict=True)]
    assert sum(right) >= 11


def test_a_picture_of_the_shipped_model_is_drawn_and_tells_its_story(janusflow, tmp_path):
    out = tmp_path / "a.png"
    words = ["a red circle", "-o", out, "--model", "janusflow/scenes-pro", "--temperature", 0]
    code, _, err = janusflow("generate", *words)
    told = Image.open(out).text
    assert (code, err) == (0, "")
    assert (told["guidance_scale"], told["calls"], told["temperature"]) == ("1.5", "288", "0.0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "a", "--model", "janusflow/scenes-pro", "--steps", 3], "--steps"),
        (["generate", "a", "--top-k", 3], "--top-k"),
        (["bench", "transformers", "--calls", 4], "--calls"),
        (["convert", "janusflow/scenes", "-o", "made"], "JanusFlow"),
    ],
)
def test_options_of_the_other_family_are_refused(janusflow, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = janusflow(*words)
    assert code == 2 and said in err and err.count("\n") == 1


def test_convert_writes_what_transformers_reads(janusflow, tmp_path):
    import tiny_pro
    from transformers import JanusForConditionalGeneration

    network = tiny_pro.model()
    folder = tiny_pro.write_published(tmp_path / "published", network)
    words = [folder, "-o", tmp_path / "converted", "--dtype", "float32"]
    assert janusflow("convert", *words)[0] == 0
    read = JanusForConditionalGeneration.from_pretrained(tmp_path / "converted").state_dict()
    assert all(torch.equal(v, read[k]) for k, v in network.state_dict().items())
    for place in ("published", "converted"):
        code, shown, _ = janusflow("info", tmp_path / place)
        assert code == 0 and "16 tokens, one after the other" in shown


def test_evaluate_takes_it_as_a_peer(janusflow, tmp_path):
    words = ["--model", "janusflow/scenes-pro", "--prompts", 1, "--seeds", 1, "-o", tmp_path / "e"]
    code, _, err = janusflow("evaluate", *words)
    assert code == 0, err
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    assert report["protocol"]["guidance"] == "1.5" and report["protocol"]["network_calls"] == 288
