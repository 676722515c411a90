"""Properties of the network that no golden file shows."""

import shutil
from pathlib import Path

import pytest
import torch
from golden import golden_model, read_golden
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from janusflow import JanusFlowConfig, JanusFlowModel
from janusflow.models.janusflow import modeling
from janusflow.models.prompt_cache import PromptCache

TENSORS, META = read_golden()


@pytest.fixture(scope="module")
def model():
    return golden_model(META["config"])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("published")
    model.save_pretrained(path)
    return path


def tiny(**language):
    config = {
        **META["config"],
        "language_config": {**META["config"]["language_config"], **language},
    }
    return golden_model(config)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.fixture
def state():
    rng = torch.Generator().manual_seed(5)
    latents = torch.randn(3, 4, 12, 12, generator=rng)
    return latents, torch.tensor([0.1, 0.5, 0.9]), torch.randint(3, 150, (3, 9), generator=rng)


@torch.no_grad()
def test_reading_the_prompt_equals_recomputing_the_whole_sequence(state):
    model = tiny().double()
    latents, t, ids = state
    latents = latents.double()
    v = model.velocity(latents, t, model.encode_prompt(ids))

    features, times = model.vision_gen_enc_model(latents, t)
    tokens = model.vision_gen_enc_aligner(features.flatten(2).transpose(1, 2))
    text = model.get_input_embeddings()(ids)
    whole = torch.cat([text, times.embedding[:, None], tokens], dim=1)
    hidden = model.language_model.model(inputs_embeds=whole).last_hidden_state[:, -36:]
    x = model.vision_gen_dec_aligner(model.vision_gen_dec_aligner_norm(hidden))
    expected = model.vision_gen_dec_model(x.transpose(1, 2).unflatten(2, (6, 6)), features, times)
    assert close(v, expected, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_rows_of_a_cpu_go_in_parts_to_the_same_end(model, state, monkeypatch, shared):
    latents, t, ids = state
    prompt = model.encode_prompt(ids[:1] if shared else ids)
    times = model.times(t[:1]) if shared else t
    v, hidden = model.velocity(latents, times, prompt, return_hidden=1)
    sizes = []
    inner = model.unchecked_velocity
    monkeypatch.setattr(
        model, "unchecked_velocity", lambda x, *args: sizes.append(len(x)) or inner(x, *args)
    )
    monkeypatch.setattr(modeling, "HEAP", 0)
    parts, seen = model.velocity(latents, times, prompt, return_hidden=1)
    assert sizes == [1, 1, 1]
    assert close(parts, v, 1e-6) and close(seen, hidden, 1e-6)
    assert close(model.velocity(latents, times, prompt), v, 1e-6)
    with torch.enable_grad():
        model.velocity(latents, times, prompt)
    assert sizes[-1] == 3  # gradients are taken of all at once


@torch.no_grad()
def test_times_made_beforehand_take_a_times_place(model, state):
    latents, t, ids = state
    prompt = model.encode_prompt(ids)
    v, times = model.velocity(latents, t, prompt), model.times(t)
    assert close(model.velocity(latents, times, prompt), v, 1e-6)
    one = model.velocity(latents, times[1:2], prompt)
    assert close(one, model.velocity(latents, t[1].expand(3), prompt), 1e-6)
    with pytest.raises(ValueError, match=r"3 latents came with t of shape \(2,\)"):
        model.velocity(latents, times[:2], prompt)


@torch.no_grad()
def test_velocity_writes_to_nothing_it_is_given(model, state):
    latents, t, ids = state
    prompt = model.encode_prompt(ids)
    before = [x.clone() for x in (latents, t, ids, *prompt.keys, *prompt.values)]
    first = model.velocity(latents, t, prompt)
    assert torch.equal(model.velocity(latents, t, prompt), first)
    after = (latents, t, ids, *prompt.keys, *prompt.values)
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("unconditional", [False, True])
@torch.no_grad()
def test_padded_prompts_give_what_each_gives_alone(model, state, side, unconditional):
    latents, t, ids = state
    lengths = [9, 4, 6]
    batch, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, n in enumerate(lengths):
        place = slice(9 - n, 9) if side == "left" else slice(0, n)
        batch[row, place], mask[row, place] = ids[row, :n], 1
    together = model.velocity(
        latents, t, model.encode_prompt(batch, mask, unconditional=unconditional)
    )
    for row, n in enumerate(lengths):
        prompt = model.encode_prompt(ids[row : row + 1, :n], unconditional=unconditional)
        alone = model.velocity(latents[row : row + 1], t[row : row + 1], prompt)
        assert close(together[row : row + 1], alone)


@torch.no_grad()
def test_the_unconditional_row_equals_masking_every_token_but_the_first(state):
    model = tiny().double()
    latents, t, ids = state[0].double(), state[1], state[2]
    reduced = model.velocity(latents, t, model.encode_prompt(ids, unconditional=True))
    full = model.encode_prompt(ids)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, 0] = True
    masked = PromptCache(full.keys, full.values, mask, full.length)
    assert close(model.velocity(latents, t, masked), reduced, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_unconditional_row_is_the_beginning_of_the_prompt(side):
    model, ids = tiny(), torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[0] = torch.tensor([0, 0, 1, 1, 1, 1] if side == "left" else [1, 1, 1, 1, 0, 0])
    for seen in (None, mask):
        begun = model.encode_prompt(ids, seen).first()
        alone = model.encode_prompt(ids, seen, unconditional=True)
        assert begun.mask is None and torch.equal(begun.length, alone.length)
        for a, b in zip(begun.keys + begun.values, alone.keys + alone.values, strict=True):
            assert close(a, b)


@torch.no_grad()
def test_joined_prompts_of_different_lengths_keep_their_rows(model, state):
    latents, t, ids = state
    parts = [model.encode_prompt(ids[i : i + 1, : 4 + 2 * i]) for i in range(3)]
    joined = model.velocity(latents, t, PromptCache.cat(parts))
    for i, part in enumerate(parts):
        assert close(joined[i : i + 1], model.velocity(latents[i : i + 1], t[i : i + 1], part))


@torch.no_grad()
def test_a_step_costs_the_latents_tokens_and_one_whatever_the_prompt(model, state):
    latents, t, ids = state
    seen = []
    layer = model.language_model.model.layers[0]
    hook = layer.register_forward_hook(lambda _m, _a, out: seen.append(_tokens(out)))
    for length in (2, 9):
        prompt = model.encode_prompt(ids[:, :length])
        seen.clear()
        model.velocity(latents, t, prompt)
        model.velocity(latents[..., :6], t, prompt)
        assert seen == [36 + 1, 18 + 1]
    hook.remove()


def _tokens(out) -> int:
    return (out[0] if isinstance(out, tuple) else out).shape[1]


@torch.no_grad()
def test_eager_attention_agrees_with_sdpa(model, state, folder):
    latents, t, ids = state
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    eager = JanusFlowModel.from_pretrained(folder, attn_implementation="eager")
    assert eager.language_model.config._attn_implementation == "eager"
    a, b = (m.velocity(latents, t, m.encode_prompt(ids, mask)) for m in (model, eager))
    assert close(a, b)


@torch.no_grad()
def test_hidden_states_are_the_image_tokens_after_the_block(model, state):
    latents, t, ids = state
    prompt = model.encode_prompt(ids)
    caught = []
    layer = model.language_model.model.layers[1]
    hook = layer.register_forward_hook(lambda _m, _a, out: caught.append(out))
    v, hidden = model.velocity(latents, t, prompt, return_hidden=2)
    hook.remove()
    out = caught[0][0] if isinstance(caught[0], tuple) else caught[0]
    assert torch.equal(hidden, out[:, 1:])
    assert torch.equal(v, model.velocity(latents, t, prompt))


@torch.no_grad()
def test_a_bfloat16_network_answers_in_the_states_dtype(state):
    latents, t, ids = state
    model = golden_model(META["config"])
    exact = model.velocity(latents, t, model.encode_prompt(ids))
    model.to(torch.bfloat16)
    v = model.velocity(latents, t, model.encode_prompt(ids))
    assert v.dtype == torch.float32
    assert close(v, exact, 0.05)


def test_every_parameter_but_the_unused_head_gets_a_gradient(model, state):
    latents, t, ids = state
    model = golden_model(META["config"])
    und = dict(
        input_ids=TENSORS["und.input_ids"],
        attention_mask=TENSORS["und.attention_mask"],
        pixel_values=TENSORS["und.pixel_values"],
        image_token_mask=TENSORS["und.images_seq_mask"],
    )
    loss = model.velocity(latents, t, model.encode_prompt(ids)).square().mean()
    (loss + model(**und).logits.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert all("attn_pool" in name for name in without)
    assert model.beg_of_und_embed.grad.any()


@pytest.mark.parametrize(("select_layer", "blocks"), [(-1, 3), (-2, 2), (2, 2), (3, 3)])
def test_select_layer_counts_blocks_and_keeps_the_final_norm(select_layer, blocks):
    vision = {"params": {"model_name": "siglip_tiny", "select_layer": select_layer}}
    config = JanusFlowConfig(**{**META["config"], "vision_und_enc_config": vision})
    tower = JanusFlowModel(config).vision_und_enc_model.vision_tower
    assert len(tower.blocks) == blocks and tower.norm.weight.shape == (48,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saved_again_a_checkpoint_has_the_same_names_and_bytes(folder, tmp_path, dtype):
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    tensors = {k: v.to(dtype) for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    JanusFlowModel.from_pretrained(source, dtype=dtype).save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[k], tensors[k]) for k in tensors)


def test_a_checkpoint_in_several_files_loads(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = JanusFlowModel.from_pretrained(tmp_path)
    expected = model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())


def test_saving_keeps_the_configurations_unknown_and_misspelt_keys(tmp_path):
    config = JanusFlowConfig(**META["config"])
    config.vision_gen_enc_config["params"] |= {"elementwize_affine": True, "num_extra_tensors": 5}
    config.save_pretrained(tmp_path)
    again = JanusFlowConfig.from_pretrained(tmp_path)
    assert again.vision_gen_enc_config == config.vision_gen_enc_config
    assert again.language_config.to_dict() == config.language_config.to_dict()


def damaged(folder: Path, tmp_path: Path, change) -> Path:
    path = tmp_path / "damaged"
    shutil.copytree(folder, path)
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x.pop("beg_of_und_embed"), x.pop("vision_gen_enc_aligner.bias")),
         "lacks 2 tensors, the first 'beg_of_und_embed'"),
        (lambda x: x.update(extra=torch.zeros(2)), "has 1 unknown tensors, the first 'extra'"),
        (lambda x: x.update(beg_of_und_embed=torch.zeros(1, 7)),
         r"1 misshapen tensors, the first 'beg_of_und_embed' \(\(1, 7\) instead of \(1, 64\)"),
        (lambda x: x.update({"\x1b[31m" + "z" * 5000: torch.zeros(2)}),
         r"'\\\\x1b\[31mzz[z ]*\.\.\."),
    ],
)  # fmt: skip
def test_wrong_tensors_are_counted_and_the_first_is_named(
    folder, tmp_path, change, message, caplog
):
    with pytest.raises(ValueError, match=message) as told:
        JanusFlowModel.from_pretrained(damaged(folder, tmp_path, change))
    assert len(str(told.value)) < 400 and "REPORT" not in caplog.text


def test_a_pickled_checkpoint_is_not_read(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch bombed'\ntR.")
    with pytest.raises(ValueError, match="safetensors"):
        JanusFlowModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("latents", "t", "message"),
    [
        ((3, 4, 11, 12), (3,), "both sides must be multiples of 2"),
        ((3, 5, 12, 12), (3,), "expected \\(batch, 4, height, width\\)"),
        ((3, 4, 12, 12), (2,), "one t and one prompt a latent"),
        ((2, 4, 12, 12), (2,), "3 prompts"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(model, state, latents, t, message):
    prompt = model.encode_prompt(state[2])
    with pytest.raises(ValueError, match=message):
        model.velocity(torch.zeros(latents), torch.zeros(t), prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"layers": 2_000_000_000}, "layers is 2000000000"),
        ({"model_name": "clip"}, "no vision tower named 'clip'"),
        ({"select_layer": -9}, "select_layer -9"),
        ({"heads": 5}, "must be multiples"),
    ],
)
def test_absurd_configurations_are_refused(change, message):
    params = {"model_name": "siglip_tiny", **change}
    with pytest.raises(ValueError, match=message):
        JanusFlowConfig(**{**META["config"], "vision_und_enc_config": {"params": params}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": -3}, "num_hidden_layers is -3"),
        ({"num_hidden_layers": 2_000_000_000}, "num_hidden_layers is 2000000000"),
        ({"hidden_size": "big"}, "hidden_size is 'big'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 5}, "not a multiple of num_attention_heads 5"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"rope_theta": 0}, "rope_theta is 0"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -2.0}}, "factor is -2.0"),
        ({"attention_dropout": "no"}, "not a valid Llama"),
        ({"model_type": "gpt2"}, "not a llama"),
    ],
)
def test_absurd_language_models_are_refused(change, message):
    language = {**META["config"]["language_config"], **change}
    with pytest.raises(ValueError, match=message):
        JanusFlowConfig(**{**META["config"], "language_config": language})


@pytest.mark.parametrize("block", [[1], "x", 7, {"params": None}, {"params": {"stride": "2"}}])
@pytest.mark.parametrize("name", ["language_config", "vision_gen_enc_config"])
def test_blocks_of_the_wrong_kind_are_refused(name, block):
    if name == "language_config" and isinstance(block, dict):
        block = [block]
    with pytest.raises(ValueError, match="config"):
        JanusFlowConfig(**{**META["config"], name: block})


def test_metadata_of_saved_weights_is_torchs(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize("name", ["encode_prompt", "velocity", "generate"])
def test_what_the_pipeline_calls_runs_the_hook_of_offloading(tiny_pipe, name, monkeypatch):
    """Offloading moves weights in `_hf_hook.pre_forward`, which only a forward pass would run."""

    class Hook:
        moved = 0

        def pre_forward(self, module):  # noqa: ARG002
            Hook.moved += 1

    monkeypatch.setattr(tiny_pipe.model, "_hf_hook", Hook(), raising=False)
    with pytest.raises((TypeError, ValueError)):
        getattr(tiny_pipe.model, name)(unknown=1)
    assert Hook.moved == 1


@pytest.mark.parametrize("channels", [-1, None, [], [32, 64]])
def test_a_decoder_of_other_channels_than_the_encoders_is_refused(channels):
    block = {"params": {"block_out_channels": channels}}
    with pytest.raises(ValueError, match="block_out_channels is"):
        JanusFlowConfig(**{**META["config"], "vision_gen_dec_config": block})
