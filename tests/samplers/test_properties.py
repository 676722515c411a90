"""Whatever comes in: the right shape and dtype, finite, or one clear error."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import samplers
from janusflow.models.janusflow.configuration import JanusFlowConfig
from samplers.core import times

CLEAR = (ValueError, TypeError, FloatingPointError)
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FIXED = [name for name, one in samplers.SOLVERS.items() if not (one.adaptive or one.maps)]
ADAPTIVE = [name for name, one in samplers.SOLVERS.items() if one.adaptive]
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5), st.floats(-1, 2)
)
DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


def sentence(error: BaseException) -> None:
    assert 5 < len(str(error)) < 600


def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return -x * t.to(x.device, x.dtype)


def state(shape: tuple, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@QUICK
@given(name=st.sampled_from(FIXED), shape=SHAPES, dtype=DTYPES, ts=st.lists(NUMBERS, max_size=6))
def test_any_grid_any_shape_any_dtype(name, shape, dtype, ts):
    noise = state(shape, dtype)
    before = noise.clone()
    try:
        end = samplers.sample(field, noise, ts, name)
    except CLEAR as error:
        sentence(error)
    else:
        assert end.shape == noise.shape and torch.equal(noise, before)
        assert end.dtype == (dtype if dtype.itemsize >= 4 else torch.float32)


@QUICK
@given(name=st.sampled_from(FIXED), calls=st.integers(-2, 40), shape=SHAPES, dtype=DTYPES)
def test_any_number_of_calls(name, calls, shape, dtype):
    try:
        end = samplers.sample(field, state(shape, dtype), calls, name)
    except CLEAR as error:
        sentence(error)
    else:
        assert end.shape == shape and end.isfinite().all()


@QUICK
@given(name=st.sampled_from(ADAPTIVE), rtol=NUMBERS, atol=NUMBERS, dtype=DTYPES)
def test_any_tolerance(name, rtol, atol, dtype):
    try:
        end = samplers.sample(
            field, state((2, 3), dtype), [0, 1], name, rtol=rtol, atol=atol, max_calls=200
        )
    except (*CLEAR, RuntimeError) as error:  # a limit that is spent, a step that vanishes
        sentence(error)
    else:
        assert end.shape == (2, 3) and end.isfinite().all()


@QUICK
@given(name=st.sampled_from(sorted(samplers.GRIDS)), n=st.integers(-2, 60), option=NUMBERS)
def test_every_grid_runs_from_0_to_1_or_is_refused(name, n, option):
    place = samplers.GRIDS[name]
    for make in (lambda: place(n), lambda: place(n, option)):
        try:
            ts = make()
        except CLEAR as error:
            sentence(error)
            continue
        try:
            times(ts, samplers.SOLVERS["euler"])
        except ValueError as error:  # an option that puts two times in one place
            sentence(error)
        else:
            assert ts[0] == 0 and ts[-1] == 1 and len(ts) == n + 1


@QUICK
@given(name=st.sampled_from(sorted(samplers.RULES)), numbers=st.lists(NUMBERS, max_size=3))
def test_any_guidance_is_finite_or_refused(name, numbers):
    text = f"{name}:{','.join(map(str, numbers))}"
    cond, uncond = state((2, 3), torch.float32), state((2, 3), torch.float32).flip(0)
    try:
        found = samplers.guidance.parse(text)(cond, uncond, torch.tensor(0.5, dtype=torch.float64))
    except CLEAR as error:
        sentence(error)
    else:
        assert found.shape == cond.shape


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@QUICK
@given(name=st.sampled_from(FIXED), when=st.floats(0, 0.9))
def test_a_velocity_that_breaks_is_named_by_the_time_it_first_broke(bad, name, when):
    asked = []

    def breaks(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        return torch.full_like(x, bad if float(t) >= when else 0.5)

    if samplers.SOLVERS[name].stochastic:
        return
    message = ""
    try:
        samplers.sample(breaks, torch.zeros(1, 2, dtype=torch.float64), [0, 0.25, 0.5, 1], name)
    except FloatingPointError as error:
        message = str(error)
    first = next((t for t in asked if t >= when), None)  # some never ask as late as that
    assert (first is None) == (message == "")
    assert first is None or f"t = {first:.6g}" in message


def test_a_state_that_was_broken_from_the_start_is_named_as_such():
    noise = torch.tensor([[0.0, math.nan]])
    with pytest.raises(FloatingPointError, match="the starting state holds NaN or infinity"):
        samplers.sample(field, noise, 4, "euler")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
KEYS = st.sampled_from(
    [
        ("language_config", None),
        ("vision_und_enc_config", None),
        *(("language_config", k) for k in ("hidden_size", "num_hidden_layers", "vocab_size",
          "head_dim", "rms_norm_eps", "hidden_act", "rope_parameters", "num_key_value_heads",
          "tie_word_embeddings", "attention_bias", "max_position_embeddings")),
        *(("vision_und_enc_config", k) for k in ("model_name", "width", "heads", "layers",
          "mlp_ratio", "patch_size", "select_layer", "image_size")),
        *(("vision_gen_enc_config", k) for k in ("stride", "block_out_channels", "input_channels",
          "kernel_size", "padding", "layers_in_middle", "norm_eps", "hidden_size")),
        *(("vision_gen_dec_config", k) for k in ("upsamples", "out_channels", "in_channels")),
    ]
)  # fmt: skip


@QUICK
@given(place=KEYS, value=JSON)
def test_any_value_in_a_configuration_is_taken_or_refused_in_a_sentence(tiny_folder, place, value):
    content = json.loads((tiny_folder / "config.json").read_text())
    block, key = place
    if key is None:
        content[block] = value
    else:
        content[block].get("params", content[block])[key] = value
    try:
        config = JanusFlowConfig(**content)
    except ValueError as error:
        sentence(error)
    else:
        assert 0 < config.parameters < 10**11


@QUICK
@given(text=st.text(max_size=60), name=st.sampled_from(["prompt", "ask"]))
def test_any_text_becomes_ids_with_bos_first_once(tiny_pipe, text, name):
    processor = tiny_pipe.processor
    try:
        ids = (processor.prompt if name == "prompt" else processor)(text)["input_ids"][0].tolist()
    except ValueError as error:
        return sentence(error)
    bos = processor.tokenizer.bos_token_id
    assert ids[0] == bos and ids[1:2] != [bos]
