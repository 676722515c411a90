"""What re-use across steps leaves out, and that it stays inside one run."""

import pytest
import torch
from PIL import Image

import samplers
from janusflow.models.janusflow.first_block_cache import Reuse
from janusflow.models.janusflow.modeling import JanusFlowModel

TEXTS = ["a red circle", "three yellow hearts and a pink ring left of a black cross"]


def seeds(*numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def run(pipe, texts=TEXTS, **kwargs):
    texts = [texts] if isinstance(texts, str) else texts
    options = dict(num_inference_steps=6, output_type="latent", generator=seeds(*range(len(texts))))
    return pipe(texts, **(options | kwargs))


@pytest.mark.parametrize("sampler", ["euler", "heun", "abm", "rk4", "bosh3"])
def test_tolerance_zero_changes_no_bit_and_skips_nothing(tiny_pipe, sampler):
    plain = run(tiny_pipe, sampler=sampler, num_inference_steps=2)
    zero = run(tiny_pipe, sampler=sampler, num_inference_steps=2, reuse=0)
    assert torch.equal(plain.images, zero.images)
    assert zero.skipped == [0, 0] and plain.skipped is None and plain.calls == zero.calls


def test_a_huge_tolerance_evaluates_each_row_once(tiny_pipe):
    rule = samplers.guidance_interval(2.0, 0.0, 0.3)  # guided at two of the six times
    out = run(tiny_pipe, guidance_scale=rule, reuse=1e6)
    assert out.calls == 8 and out.skipped == [2 * (2 - 1) + (4 - 1)] * 2


def test_what_is_skipped_is_what_the_later_blocks_do_not_see(tiny_pipe):
    blocks = tiny_pipe.model.language_model.model.layers
    seen = []
    watch = blocks[1].register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    try:
        out = run(tiny_pipe, reuse=0.2)
    finally:
        watch.remove()
    seen = seen[1:]  # the prompts
    assert 0 < sum(out.skipped) < 2 * out.calls
    assert sum(seen) == 2 * out.calls - sum(out.skipped)


def test_runs_do_not_remember_each_other_and_pictures_not_their_neighbours(tiny_pipe):
    first, again = run(tiny_pipe, reuse=0.2), run(tiny_pipe, reuse=0.2)
    assert torch.equal(first.images, again.images) and first.skipped == again.skipped
    for i, text in enumerate(TEXTS):
        alone = run(tiny_pipe, text, generator=seeds(i), reuse=0.2)
        assert alone.skipped == [first.skipped[i]]
        error = (alone.images[0] - first.images[i]).abs().max()
        assert error <= 1e-4 * alone.images.abs().max()


def test_the_error_shrinks_with_the_tolerance(tiny_pipe):
    exact = run(tiny_pipe).images
    errors = [float((run(tiny_pipe, reuse=r).images - exact).norm()) for r in (0.4, 0.1, 0.01)]
    assert errors[0] > errors[1] > errors[2] or errors[2] == 0


def test_one_evaluation_equals_the_models(tiny_pipe):
    model: JanusFlowModel = tiny_pipe.model
    prompt, _ = tiny_pipe.encode_prompts(TEXTS)
    x, t = torch.randn(2, 16, 12, 12), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        expected = model.velocity(x, t, prompt)
    velocity = Reuse(model, 0.1).of(prompt)
    assert torch.equal(velocity(x, t), expected)
    assert torch.allclose(velocity(x, t), expected, rtol=1e-4, atol=1e-5)  # all of it taken over


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_a_tolerance_that_is_none_is_refused(tiny_pipe, wrong):
    with pytest.raises(ValueError, match="expected a tolerance"):
        run(tiny_pipe, "a star", reuse=wrong)


def test_a_pictures_text_tells_what_was_skipped(janusflow, tmp_path):
    words = [
        "generate",
        "a red circle",
        "--steps",
        "5",
        "--first-block-cache",
        "0.5",
        "-o",
        tmp_path,
    ]
    code, *_ = janusflow(*words)
    told = Image.open(tmp_path / "00000.png").text
    assert (
        code == 0
        and told["first_block_cache"] == "0.5"
        and 0 < int(told["skipped"]) < int(told["calls"])
    )
