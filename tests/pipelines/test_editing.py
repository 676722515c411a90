"""Editing keeps what it should keep and counts what it spends, on a tiny model."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image

import samplers
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import scene


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.asarray(render_batch([scene("train", 3).objects])[0]))


@pytest.fixture(scope="module")
def mask():
    """White in a rectangle that does not follow the autoencoder's patches."""
    area = np.zeros((96, 96), np.uint8)
    area[21:50, 30:77] = 255
    return Image.fromarray(area)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def pixels(image):
    return torch.tensor(np.asarray(image)).float() / 255


def error(a, b):
    return float((a - b).double().square().mean().sqrt())


def latents(pipe, picture, prompt="a star", **options):
    few = dict(num_inference_steps=4, output_type="latent")
    return pipe.edit(picture, prompt, **(few | options))


def test_strength_one_is_generation_from_the_same_noise(tiny_pipe, picture):
    for sampler in ("euler", "heun", "sde_heun"):
        same = dict(num_inference_steps=3, sampler=sampler, output_type="latent")
        made = tiny_pipe("a star", generator=seed(5), **same)
        edited = tiny_pipe.edit(picture, "a star", strength=1.0, generator=seed(5), **same)
        assert torch.allclose(edited.images, made.images, atol=1e-5)
        assert edited.calls == made.calls


def test_little_strength_leaves_the_picture_up_to_the_autoencoder(tiny_pipe, picture):
    data = tiny_pipe.encode(picture)
    moved = [
        error(latents(tiny_pipe, picture, strength=s, generator=seed()).images, data)
        for s in (1e-4, 0.05, 0.3, 1.0)
    ]
    assert moved == sorted(moved) and moved[0] < 1e-3 * moved[-1]
    shown = tiny_pipe.edit(picture, "a star", strength=1e-4, generator=seed(), output_type="pt")
    assert torch.allclose(shown.images, tiny_pipe.decode(data, "pt"), atol=0.01)


@pytest.mark.parametrize(
    ("strength", "steps", "taken"), [(1, 10, 10), (0.9, 30, 27), (0.6, 30, 18), (0.55, 30, 17)]
)
def test_calls_are_those_of_the_part_that_is_run(tiny_pipe, picture, strength, steps, taken):
    options = dict(strength=strength, num_inference_steps=steps, generator=seed())
    assert latents(tiny_pipe, picture, guidance_scale=1, **options).calls == taken


def test_guidance_masks_and_both_directions_are_counted(tiny_pipe, picture, mask):
    assert latents(tiny_pipe, picture, strength=0.5).calls == 2 * 2
    assert latents(tiny_pipe, picture, strength=0.5, mask_image=mask).calls == 2 * 2
    assert latents(tiny_pipe, picture, strength=0.5, invert=True).calls == 2 + 2 * 2
    assert latents(tiny_pipe, picture, strength=1, invert=True, sampler="heun").calls == 8 + 16
    trip = tiny_pipe.invert(picture, "a star", num_inference_steps=4)
    assert trip.calls == 2 * samplers.SOLVERS["heun"].cost(4)


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_the_round_trips_error_falls_at_the_solvers_order(tiny_pipe, picture, name, monkeypatch):
    """In float64, and by a slow clock: a random network reads the fastest waves of 1000 t too."""
    monkeypatch.setattr(tiny_pipe, "model", copy.deepcopy(tiny_pipe.model).double())
    field, data = tiny_pipe.field(["a star"]), tiny_pipe.encode(picture).double()
    with torch.no_grad():
        few, many = (
            float(
                samplers.round_trip(
                    lambda x, t: field(x, 0.9 + 0.01 * t), data, samplers.uniform(n), name
                ).error
            )
            for n in (16, 64)
        )
    assert math.log2(few / many) / 2 > samplers.SOLVERS[name].order - 0.2
    assert math.log2(few / many) / 2 < samplers.SOLVERS[name].order + 1.2  # even orders gain one


def test_an_inversion_is_measured_against_the_autoencoder(tiny_pipe, picture):
    few, many = (tiny_pipe.invert(picture, "a star", num_inference_steps=n) for n in (4, 32))
    assert many.psnr == pytest.approx(many.autoencoder_psnr, abs=0.1)
    coded = tiny_pipe.decode(tiny_pipe.encode(picture), "pil")[0]
    expected = -20 * math.log10(error(pixels(coded), pixels(picture)))
    assert few.autoencoder_psnr == many.autoencoder_psnr == pytest.approx([expected], abs=0.1)
    back = tiny_pipe(
        "a star",
        latents=many.noise,
        guidance_scale=1.0,
        sampler="heun",
        num_inference_steps=32,
    )
    assert back.images[0].tobytes() == many.images[0].tobytes()


def test_inversion_returns_the_picture_better_than_plain_noise(tiny_pipe, picture):
    data = tiny_pipe.encode(picture)
    options = dict(guidance_scale=1.0, num_inference_steps=12, sampler="heun", strength=0.8)
    own = latents(tiny_pipe, picture, invert=True, source_prompt="a star", **options).images
    plain = latents(tiny_pipe, picture, generator=seed(), **options).images
    other = latents(tiny_pipe, picture, "a ring", invert=True, source_prompt="a star", **options)
    assert error(own, data) < 0.1 * error(plain, data)
    assert error(own, data) < error(other.images, data)


def test_without_a_source_prompt_the_unconditional_flow_leads_back(tiny_pipe, picture):
    data = tiny_pipe.encode(picture)
    options = dict(num_inference_steps=12, sampler="heun", strength=1.0, invert=True)
    same = latents(tiny_pipe, picture, guidance_scale=0.0, **options)
    assert error(same.images, data) < 0.1 * float(data.std())
    trip = tiny_pipe.invert(picture, sampler="heun", num_inference_steps=12, output_type="latent")
    assert torch.allclose(trip.images, same.images, atol=0.05)


@pytest.mark.parametrize("sampler", ["euler", "heun", "churn"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_black_pixels_stay_and_white_ones_change(tiny_pipe, picture, mask, sampler, strength):
    options = dict(mask_image=mask, strength=strength, sampler=sampler, generator=seed())
    out = tiny_pipe.edit(picture, "a ring", num_inference_steps=4, **options).images[0]
    change = np.abs(np.asarray(out).astype(int) - np.asarray(picture).astype(int)).max(2)
    inside = np.asarray(mask) > 0
    assert not change[~inside].any() and change[inside].mean() > 1


def test_kept_latents_come_back_and_the_mask_covers_what_it_touches(tiny_pipe, picture, mask):
    for options in (dict(generator=seed()), dict(invert=True)):
        x = latents(tiny_pipe, picture, mask_image=mask, **options).images
        change = (x - tiny_pipe.encode(picture)).abs().amax(dim=(0, 1))
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[2:7, 3:10] = True
        assert change[~inside].max() < 1e-4 < change[inside].min()


def test_a_white_mask_changes_nothing_about_the_edit(tiny_pipe, picture):
    white = Image.new("L", (96, 96), 255)
    plain = latents(tiny_pipe, picture, generator=seed()).images
    assert torch.equal(
        latents(tiny_pipe, picture, generator=seed(), mask_image=white).images, plain
    )


def test_a_picture_serves_several_prompts_and_a_prompt_several_pictures(tiny_pipe, picture):
    seeds = lambda: [seed(1), seed(2)]  # noqa: E731
    two = latents(tiny_pipe, picture, ["a star", "a ring"], generator=seeds()).images
    alone = latents(tiny_pipe, picture, "a ring", generator=[seed(2)]).images
    assert torch.allclose(two[1:], alone, atol=1e-4)
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = latents(tiny_pipe, [picture, other], "a star", generator=seeds()).images
    alone = latents(tiny_pipe, other, "a star", generator=[seed(2)]).images
    assert torch.allclose(both[1:], alone, atol=1e-4)


def test_arrays_tensors_and_larger_pictures_are_taken(tiny_pipe, picture):
    expected = latents(tiny_pipe, picture, generator=seed()).images
    array = np.asarray(picture)[None] / 255
    tensor = pixels(picture).permute(2, 0, 1)[None]
    for same in (array, tensor, picture.convert("RGBA")):
        assert torch.equal(latents(tiny_pipe, same, generator=seed()).images, expected)
    large = picture.resize((480, 480), Image.Resampling.NEAREST)
    assert tiny_pipe.edit(large, "a star", num_inference_steps=2).images[0].size == (96, 96)


def test_a_callback_sees_the_part_that_is_run(tiny_pipe, picture):
    seen = []
    latents(
        tiny_pipe,
        picture,
        strength=0.5,
        callback_on_step_end=lambda _p, i, t, _kw: seen.append((i, float(t))),
    )
    assert seen == [(0, 0.75), (1, 1.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.0}, "above 0 and at most 1"),
        ({"strength": 1.2}, "above 0 and at most 1"),
        ({"strength": math.nan}, "above 0 and at most 1"),
        ({"prompt": " "}, "none empty"),
        ({"prompt": ["a", "b", "c"], "image": "two"}, "3 prompts came for 2 images"),
        ({"image": Image.new("RGB", (96, 64))}, "the image is 96 x 64 and the model makes"),
        ({"height": 90}, "multiples of 16"),
        ({"mask_image": Image.new("L", (64, 64))}, "the mask is 64 x 64 and the image 96 x 96"),
        ({"mask_image": [Image.new("L", (96, 96))] * 2}, "2 masks came for 1 images"),
        ({"sampler": "sde_heun", "invert": True}, "sde_heun adds noise in its steps"),
        ({"source_prompt": "a"}, "turn invert on"),
        ({"invert": True, "generator": seed()}, "draws none"),
        ({"invert": True, "source_prompt": ["a", "b"]}, "2 source prompts came for 1 images"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"grid": torch.tensor([0.0, 0.9])}, "give times from 0 to 1"),
        ({"output_type": "jpeg"}, "choose one of pil"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(tiny_pipe, picture, change, message):
    if change.get("image") == "two":
        change = change | {"image": [picture] * 2}
    with pytest.raises(ValueError, match=message):
        tiny_pipe.edit(**({"image": picture, "prompt": "a star"} | change))


def test_learned_solvers_run_whole_or_not_at_all(tiny_pipe, picture):
    from samplers.solvers.linear_multistep import assemble

    nodes = torch.tensor([0, 0.3, 1.0], dtype=torch.float64)
    weights = torch.tensor([[1, 0, 0], [1, 0.3, 0], [1, 0.3, 0.7]], dtype=torch.float64)
    options = dict(sampler=assemble("mine", nodes, weights, {}), num_inference_steps=2)
    assert latents(tiny_pipe, picture, strength=1.0, **options).calls == 4
    for change in ({"strength": 0.5}, {"strength": 1.0, "invert": True}):
        with pytest.raises(ValueError, match="only runs from noise to data"):
            latents(tiny_pipe, picture, **options, **change)


@pytest.mark.parametrize("change", [{"sampler": "churn"}, {"guidance_scale": 3.0}])
def test_an_inversion_that_cannot_be_is_refused(tiny_pipe, picture, change):
    with pytest.raises(ValueError, match=r"cannot be inverted|without a prompt"):
        tiny_pipe.invert(picture, **change)


# The command line


@pytest.fixture
def files(tmp_path, picture, mask):
    picture.save(tmp_path / "p.png")
    mask.save(tmp_path / "m.png")
    return tmp_path


def test_the_command_edits_and_the_picture_tells_how(janusflow, tiny_folder, files):
    words = ["edit", files / "p.png", "a ring", "--model", tiny_folder, "--steps", 2]
    area = [
        "--mask-image",
        files / "m.png",
        "-o",
        files / "out.png",
        "--seed",
        3,
        "--device",
        "cpu",
    ]
    assert janusflow(*words, *area) == (0, f"{files / 'out.png'}\n", "")
    told = Image.open(files / "out.png").text
    keys = ("prompt", "strength", "seed", "mask_image", "invert", "num_inference_steps")
    assert [told[key] for key in keys] == ["a ring", "0.6", "3", str(files / "m.png"), "False", "2"]
    back = ["--invert", "--source-prompt", "a star", "-o", files / "b.png", "--device", "cpu"]
    assert janusflow(*words, *back)[0] == 0
    told = Image.open(files / "b.png").text
    assert told["source_prompt"] == "a star" and "seed" not in told and told["calls"] == "6"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.png", "a"], "cannot be opened"),
        (["p.png", " "], "the prompt is ' '"),
        (["p.png", "-"], "the prompt is '-'"),
        (["p.png", "a", "--strength", 0], "above 0"),
        (["p.png", "a", "--source-prompt", "b"], "turn invert on"),
        (["p.png", "a", "--invert", "--seed", 1], "draws none"),
        (["p.png", "a", "--seed", -1], "expected 0 to"),
        (["p.png", "a", "--mask-image", "gone.png"], "cannot be opened"),
        (["p.png", "a", "--sampler", "runge"], "no solver named"),
        (["p.png", "a", "--guidance-scale", "much"], "is not a finite number or a rule"),
        (["p.png", "a", "--out", "nowhere/a.png"], "does not exist"),
        (["p.png"], "prompt"),
    ],
)
def test_the_command_refuses_in_one_sentence(janusflow, files, monkeypatch, words, message):
    monkeypatch.chdir(files)
    code, out, err = janusflow("edit", *words)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err.lower()


def test_bench_measures_samplers_on_the_models_field(janusflow, tiny_folder, tmp_path):
    where = ["--model", tiny_folder, "--device", "cpu", "--csv", tmp_path / "b.csv"]
    which = ["--solvers", "euler,heun", "--nfe", "4,8", "--no-peers", "--samples", 1]
    code, out, _ = janusflow("bench", "samplers", *where, *which, "--reference", 32)
    assert code == 0 and "euler" in out and "guided velocity: 2 network evaluations" in out
    rows = (tmp_path / "b.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nfe", "4,x"], "expected numbers"),
        (["--solvers", "runge"], "no solver named"),
        (["--csv", "nowhere/b.csv"], "does not exist"),
    ],
)
def test_bench_refuses_in_one_sentence(janusflow, files, monkeypatch, words, message):
    monkeypatch.chdir(files)
    code, _, err = janusflow("bench", "samplers", *words)
    assert code == 2 and err.count("\n") == 1 and message in err
