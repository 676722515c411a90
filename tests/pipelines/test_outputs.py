"""What comes back shows itself: captions in notebooks, the way as a strip, the best of several."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow.pipelines.answering import message, probabilities
from janusflow.pipelines.verifiers import find


def run(pipe, prompt=("a star", "a <ring>"), **options):
    return pipe(prompt, **dict(num_inference_steps=2, seed=0) | options)


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_a_notebook_shows_each_image_with_its_caption(tiny_pipe, kind):
    out = run(tiny_pipe, output_type=kind)
    page = out._repr_html_()
    assert page.count("<img") == 2 and "<figcaption>a &lt;ring&gt;</figcaption>" in page
    content = base64.b64decode(page.split("base64,")[1].split('"')[0])
    assert Image.open(io.BytesIO(content)).size == (96, 96)
    assert Image.open(io.BytesIO(out._repr_png_())).size[0] > 96
    assert out.captions == ["a star", "a <ring>"]


def test_latents_have_nothing_to_show_and_edits_do(tiny_pipe):
    assert run(tiny_pipe, output_type="latent")._repr_html_() is None
    image = Image.new("RGB", (96, 96), "red")
    edited = tiny_pipe.edit(image, "a ring", num_inference_steps=2, seed=0)
    assert "a ring" in edited._repr_html_()
    inverted = tiny_pipe.invert(image, "a square", num_inference_steps=2)
    assert "a square" in inverted._repr_html_()


def test_a_forecast_reads_in_gibibytes(tiny_pipe):
    told = tiny_pipe.forecast(2)
    assert f"peak {told.peak / 2**30:.3g} GiB" in str(told)
    assert "<table>" in told._repr_html_()


# The way there


def test_a_trajectory_ends_in_the_image_and_is_a_strip_or_a_gif(tiny_pipe, tmp_path):
    options = dict(num_inference_steps=6, seed=3)
    found = tiny_pipe.trajectory(["a star", "a ring"], frames=3, **options)
    assert found.times[-1] == 1 and len(found.frames) == 3
    images = tiny_pipe(["a star", "a ring"], **options).images
    assert [a.tobytes() for a in found.frames[-1]] == [b.tobytes() for b in images]
    assert found.strip().size == (3 * 100 - 4, 2 * 100 - 4)
    with Image.open(found.save(tmp_path / "way.gif")) as gif:
        assert gif.n_frames == 3
    assert Image.open(found.save(tmp_path / "way.png")).size == found.strip().size
    assert Image.open(io.BytesIO(found._repr_png_())).size == found.strip().size


def test_a_trajectory_takes_what_a_call_takes_and_refuses_the_rest(tiny_pipe):
    found = tiny_pipe.trajectory("a star", quality="draft", seed=1)
    assert len(found.frames) == 5
    with pytest.raises(TypeError, match="got 'frame', which is not an argument; did you mean"):
        tiny_pipe.trajectory("a star", frame=3)


# The best of several


def brightness(images, prompts):
    assert len(images) == len(prompts)
    return [np.asarray(image).mean() for image in images]


def test_the_best_of_several_is_the_one_that_the_verifier_likes(tiny_pipe):
    few = dict(num_inference_steps=2)
    seeds = [torch.Generator().manual_seed(n) for n in (0, 1)]
    rounds = [tiny_pipe(["a star", "a ring"], generator=seeds, **few).images for _ in range(3)]
    out = run(tiny_pipe, ["a star", "a ring"], best_of=3, verifier=brightness)
    for row, image in enumerate(out.images):
        scores = [float(np.asarray(images[row]).mean()) for images in rounds]
        assert out.scores[row] == max(scores)
        assert image.tobytes() == rounds[int(np.argmax(scores))][row].tobytes()
    assert out.calls == 3 * 2 * 2


def test_the_model_can_verify_itself(tiny_pipe):
    out = run(tiny_pipe, best_of=2)
    assert len(out.scores) == 2 and all(score < 0 for score in out.scores)
    images = [Image.new("RGB", (96, 96))] * 2
    assert len(find("own")(tiny_pipe, images, ["a star", "a ring"])) == 2


def test_a_model_verifies_itself_by_the_verifier_that_its_configuration_names(
    tiny_pipe, monkeypatch
):
    images = [Image.new("RGB", (96, 96), color) for color in ("red", "blue")]
    asked = tiny_pipe, images, ["two stars and a ring", "a picture of a ring left of a star"]
    assert find("own")(*asked) == find("caption")(*asked)
    monkeypatch.setattr(tiny_pipe.model.config, "verifier", "soft_tifa")
    assert find("own")(*asked) == find("soft_tifa")(*asked) != find("caption")(*asked)
    unknown = tiny_pipe, images, ["a star", "a cat"]
    known, other = find("own")(*unknown)  # a prompt does not change how another is scored
    assert known == pytest.approx(find("soft_tifa")(tiny_pipe, images[:1], ["a star"])[0])
    assert other == pytest.approx(find("caption")(tiny_pipe, images[1:], ["a cat"])[0])
    with pytest.raises(
        ValueError, match="'soft_tifa' does not know the prompt 'a cat'; choose own"
    ):
        run(tiny_pipe, ["a star", "a cat"], best_of=2, verifier="soft_tifa")


def test_soft_tifa_is_the_geometric_mean_of_the_prompts_answers(tiny_pipe):
    image = Image.new("RGB", (96, 96), "red")
    (score,) = find("soft_tifa")(tiny_pipe, [image], ["a ring and a star"])
    pairs = [("is there a ring?", "yes"), ("is there a star?", "yes")]
    pairs.append(("how many shapes are there?", "two"))
    talks = [message(question, [image]) for question, _ in pairs]
    found = probabilities(tiny_pipe, talks, [answer for _, answer in pairs])
    assert score == pytest.approx(np.prod(found) ** (1 / 3))


def test_vqa_score_is_the_share_of_yes(tiny_pipe):
    image = Image.new("RGB", (96, 96), "red")
    (score,) = find("vqa_score")(tiny_pipe, [image], ["a star"])
    asked = [message('Does this figure show "a star"? Please answer yes or no.', [image])] * 2
    yes, no = probabilities(tiny_pipe, asked, ["Yes", "No"])
    assert score == pytest.approx(yes / (yes + no))


def test_the_first_of_equals_is_the_image_without_a_choice(tiny_pipe):
    plain = run(tiny_pipe, output_type="latent").images
    same = run(tiny_pipe, output_type="latent", best_of=2, verifier=lambda i, _: [0] * len(i))
    assert torch.equal(same.images, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verifier": "onw"}, r"no verifier named 'onw' \(did you mean 'own'\?\)"),
        ({"verifier": lambda *_: [1.0]}, "returned 1 scores for 2 images"),
        ({"verifier": lambda i, _: [float("nan")] * len(i)}, "or NaN"),
        ({"verifier": lambda i, _: [float("inf")] * len(i)}, "or infinity"),
        ({"latents": torch.zeros(2, 16, 12, 12), "seed": None}, "best_of draws several"),
        ({"best_of": 0}, "best_of is 0"),
        ({"best_of": 1, "verifier": "caption"}, "verifier chooses among candidates, and best_of"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(tiny_pipe, options, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_pipe, **{"best_of": 2} | options)


def test_an_interrupt_ends_the_search_too(tiny_pipe):
    def stop(pipe, step, _t, _tensors):
        pipe._interrupt = step == 0

    assert run(tiny_pipe, best_of=3, verifier=brightness, callback_on_step_end=stop).calls == 2
