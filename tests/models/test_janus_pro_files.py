"""Janus-Pro's files: both layouts, the processor, and what is refused."""

import json
import pickle
import re
import zipfile

import pytest
import tiny_pro as pro
import torch
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor

import janusflow

RED, TWO = "a red circle", "two blue squares left of a green star"


@pytest.fixture(scope="module")
def saved(pro_pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    pro_pipe.save_pretrained(path)
    return path


def test_every_published_tensor_arrives_where_an_independent_table_says(pro_pipe, pro_network):
    given, loaded = pro_network.state_dict(), pro_pipe.model.state_dict()
    assert given.keys() == loaded.keys()
    assert all(torch.equal(given[name], loaded[name]) for name in given)


def test_the_head_stays_a_matrix_of_its_own(pro_pipe):
    embedding = pro_pipe.model.get_input_embeddings().weight
    assert not torch.equal(pro_pipe.model.lm_head.weight, embedding)


def test_logits_of_questions_equal_those_of_transformers_on_the_same_weights(pro_pipe, pro_network):
    pro_network.config.image_token_id = pro_pipe.processor.image_id
    inputs = pro_pipe.processor(["what is it?", "how many?"], [[Image.new("RGB", (70, 40))], []])
    with torch.no_grad():
        ours, own = pro_pipe.model(**inputs).logits, pro_network(**inputs).logits
    assert torch.equal(ours, own)


def test_saved_in_transformers_layout_both_libraries_read_the_same(pro_pipe, saved):
    again = janusflow.load(saved)
    again.set_progress_bar_config(disable=True)
    assert again.processor.tags == pro_pipe.processor.tags
    assert again.processor.image_processor == pro_pipe.processor.image_processor
    one, other = (p(TWO, generator=torch.Generator().manual_seed(1)) for p in (pro_pipe, again))
    assert torch.equal(one.tokens, other.tokens)
    assert one.images[0].tobytes() == other.images[0].tobytes()
    model = JanusForConditionalGeneration.from_pretrained(saved)
    loaded = model.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in pro_pipe.model.state_dict().items())


def test_transformers_processor_makes_the_same_ids_and_pixels(pro_pipe, saved):
    theirs = JanusProcessor.from_pretrained(saved, use_default_system_prompt=False)
    picture = Image.new("RGB", (64, 48), "red")
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
    ]
    text = theirs.apply_chat_template(chat, add_generation_prompt=True)
    after = [{"role": "user", "content": chat[0]["content"][::-1]}]
    assert theirs.apply_chat_template(after, add_generation_prompt=True) == text
    other = theirs(text=[text], images=[picture], return_tensors="pt")
    ours = pro_pipe.processor(
        text=[pro_pipe.processor._render(pro_pipe.processor._turns(chat, 1), system="")],
        images=[picture],
    )
    assert torch.equal(ours["input_ids"], other["input_ids"])
    assert torch.allclose(ours["pixel_values"], other["pixel_values"], atol=1e-6)
    drawn = theirs(
        text=[f"<|User|>: {RED}\n\n<|Assistant|>:"], generation_mode="image", return_tensors="pt"
    )
    assert torch.equal(drawn["input_ids"], pro_pipe.processor.prompt(RED)["input_ids"])


@pytest.mark.parametrize(
    ("sft", "user"), [("deepseek", "<|User|>: hi"), ("deepseek_old", "User: hi")]
)
def test_both_chat_formats_are_spoken_and_kept(pro_network, tmp_path, sft, user):
    pro_pipe = janusflow.load(pro.write_published(tmp_path / "a", pro_network, sft=sft))
    assert user in pro_pipe.processor.apply_chat_template([{"role": "user", "content": "hi"}])
    pro_pipe.save_pretrained(tmp_path / "b")
    assert janusflow.load(tmp_path / "b").processor.sft_format == sft


def test_ids_of_the_two_layouts_are_never_mixed(saved, tmp_path):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["image_token_id"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="take both from one folder"):
        janusflow.load(tmp_path)


def copied(pro_folder, target):
    for path in pro_folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


class Bomb:
    def __reduce__(self):
        return print, ("the bomb went off",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(pro_folder, tmp_path, zipped, capsys):
    path = copied(pro_folder, tmp_path) / "pytorch_model.bin"
    if zipped:
        torch.save({"gen_embed.weight": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"gen_embed.weight": Bomb()}))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        janusflow.load(tmp_path)
    assert "bomb" not in capsys.readouterr().out


def test_what_is_missing_cut_short_or_of_another_family_is_told_in_a_sentence(
    pro_folder, tiny_folder, tmp_path
):
    from janusflow import JanusProPipeline

    def fault(change):
        target = tmp_path / str(len([*tmp_path.iterdir()]))
        target.mkdir()
        copied(pro_folder, target)
        change(target)
        with pytest.raises(ValueError) as caught:
            janusflow.load(target)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        return str(caught.value)

    def cut(target):
        path = target / "pytorch_model.bin"
        path.write_bytes(path.read_bytes()[:-1000])

    def without_one(target):
        tensors = torch.load(target / "pytorch_model.bin", weights_only=True)
        del tensors["gen_aligner.layers.2.bias"]
        torch.save(tensors, target / "pytorch_model.bin")

    def another_shape(target):
        tensors = torch.load(target / "pytorch_model.bin", weights_only=True)
        tensors["gen_embed.weight"] = tensors["gen_embed.weight"][:-1].clone()
        torch.save(tensors, target / "pytorch_model.bin")

    def a_shard_too_few(target):
        (target / "pytorch_model.bin").rename(target / "pytorch_model-00001-of-00002.bin")
        names = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
        (target / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))

    def outside(target):
        (target / "pytorch_model.bin").unlink()
        names = {"a": "../pytorch_model.bin"}
        (target / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))

    assert "damaged" in fault(cut)
    assert "gen" in fault(without_one)
    assert "shape" in fault(another_shape)
    assert "00002-of-00002" in fault(a_shard_too_few)
    assert "outside" in fault(outside)
    assert "holds no weights" in fault(lambda t: (t / "pytorch_model.bin").unlink())
    assert "tokenizer.json" in fault(lambda t: (t / "tokenizer.json").unlink())
    assert "config.json" in fault(lambda t: (t / "config.json").unlink())
    assert "neither" in fault(lambda t: (t / "config.json").write_text('{"model_type": "bert"}'))
    with pytest.raises(ValueError, match="JanusFlow"):
        JanusProPipeline.from_pretrained(tiny_folder)


def test_a_zip_that_is_no_checkpoint_is_refused(pro_folder, tmp_path):
    path = copied(pro_folder, tmp_path) / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ValueError, match="damaged"):
        janusflow.load(tmp_path)


def test_several_files_and_safetensors_read_as_one(pro_folder, pro_network, tmp_path):
    from safetensors.torch import save_file

    from janusflow.models.janus_pro import tensors

    every = {k: v.clone() for k, v in pro.published_tensors(pro_network).items()}
    names = sorted(every)
    parts = {"model-1.safetensors": names[:50], "model-2.safetensors": names[50:]}
    for file, own in parts.items():
        save_file({name: every[name] for name in own}, tmp_path / file)
    where = {name: file for file, own in parts.items() for name in own}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    read, single = tensors.read(tmp_path), tensors.read(pro_folder)
    assert read.keys() == single.keys()
    assert all(torch.equal(read[name], single[name]) for name in read)


@pytest.fixture(scope="module")
def shards(pro_pipe, tmp_path_factory):
    """transformers' layout in several files."""
    path = tmp_path_factory.mktemp("shards")
    pro_pipe.save_pretrained(path, max_shard_size="500KB")
    return path


def test_transformers_own_layout_is_looked_through_as_the_published_one(shards, tmp_path):
    from safetensors.torch import load_file, save_file

    def fault(change):
        target = tmp_path / str(len([*tmp_path.iterdir()]))
        target.mkdir()
        copied(shards, target)
        change(target, sorted(target.glob("*.safetensors"))[1])
        with pytest.raises(ValueError) as caught:
            janusflow.load(target)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        return str(caught.value)

    def configured(**changes):
        def change(target, _):
            path = target / "config.json"
            content = json.loads(path.read_text())
            content["text_config"] |= changes
            path.write_text(json.dumps(content))

        return change

    def whole_numbers(_, path):
        tensors = load_file(path)
        name = min(tensors)
        save_file(tensors | {name: tensors[name].long()}, path, metadata={"format": "pt"})

    assert "damaged" in fault(lambda _, path: path.write_bytes(path.read_bytes()[:-100]))
    assert "damaged" in fault(lambda _, path: path.write_bytes(b"version https://git-lfs"))
    assert "lacks model-00002" in fault(lambda _, path: path.unlink())
    assert "floating-point" in fault(whole_numbers)
    assert "weight files hold" in fault(configured(num_hidden_layers=400, hidden_size=1024))
    rope = {"rope_type": True, "rope_theta": 1e4}
    assert "does not describe a Janus" in fault(configured(rope_parameters=rope))


@pytest.mark.parametrize(
    ("block", "settings", "words"),
    [
        (None, {"_attn_implementation": "someone/kernels"}, "attn_implementation"),
        ("text_config", {"attn_implementation": "someone/kernels"}, "attn_implementation"),
        (None, {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ("vq_config", {"__class__": "x"}, "__class__"),
        ("text_config", {"num_hidden_layers": 1}, r"hold, unknown, .* the first 'model\.language"),
        (
            "text_config",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
            "theta is 0",
        ),
        ("vision_config", {"num_attention_heads": -1}, "number of heads is -1"),
    ],
)
def test_a_converted_configuration_obeys_nobody_and_fits_its_weights(
    saved, tmp_path, block, settings, words
):
    config = copied(saved, tmp_path) / "config.json"
    content = json.loads(config.read_text())
    (content if block is None else content[block]).update(settings)
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        janusflow.load(tmp_path)


def test_a_configuration_that_does_not_tell_keeps_the_head_of_the_weights(
    saved, pro_pipe, tmp_path
):
    config = copied(saved, tmp_path) / "config.json"
    content = json.loads(config.read_text())
    assert content.pop("tie_word_embeddings") is False
    config.write_text(json.dumps(content))
    again = janusflow.load(tmp_path)
    assert torch.equal(again.model.lm_head.weight, pro_pipe.model.lm_head.weight)
    assert again.model.config.tie_word_embeddings is False


def test_what_the_folder_says_of_answers_is_kept(saved, tmp_path):
    path = copied(saved, tmp_path) / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": True, "top_k": 9}))
    config = janusflow.load(tmp_path).model.generation_config
    assert (config.do_sample, config.top_k, config.guidance_scale) == (True, 9, 5.0)


def test_roles_are_the_files_or_as_told(pro_folder):
    processor = janusflow.JanusProProcessor.from_pretrained
    assert repr(processor(pro_folder)).startswith("JanusProProcessor(")
    turns = [{"role": "User", "content": "hi"}]
    assert "<|User|>: hi" in processor(pro_folder).apply_chat_template(turns)
    told = processor(pro_folder, sft_format="deepseek_old").apply_chat_template(turns)
    assert "\nUser: hi" in told


def test_transformers_own_classes_take_a_saved_folder(saved, pro_pipe):
    from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

    model = AutoModelForImageTextToText.from_pretrained(saved)
    inputs = pro_pipe.processor("what is it?", Image.new("RGB", (64, 64)))
    labels = inputs["input_ids"].clone()
    assert model(**inputs, labels=labels).loss.isfinite()
    assert model.generation_config.eos_token_id == pro_pipe.processor.tokenizer.eos_token_id
    model.resize_token_embeddings(480)
    assert model.lm_head.weight.shape[0] == 480
    assert AutoProcessor.from_pretrained(saved).tokenizer("hi").input_ids
    answers = pipeline("image-text-to-text", model=str(saved))
    chat = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert answers(text=chat, max_new_tokens=2)


def test_the_folder_says_the_guidance_that_its_images_take(saved, tmp_path):
    path = copied(saved, tmp_path) / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"guidance_scale": 1.5}))
    own = janusflow.load(tmp_path)
    how = dict(temperature=0, output_type="latent")
    assert own.own_guidance == 1.5
    assert torch.equal(own(RED, **how).tokens, own(RED, guidance_scale=1.5, **how).tokens)
    own.save_pretrained(tmp_path / "again")
    assert janusflow.load(tmp_path / "again").own_guidance == 1.5


@pytest.mark.parametrize(
    ("block", "key", "value", "words"),
    [
        ("gen_vision_config", "cls", "VQ-8", "gen_vision_config.cls in config.json is 'VQ-8'"),
        ("gen_vision_config", "image_token_size", 64, "gen_vision_config.params.image_token_size"),
        (
            "gen_head_config",
            "image_token_size",
            64,
            "gen_head_config.params.image_token_size is 64",
        ),
        ("gen_aligner_config", "input_dim", 4, "gen_aligner_config.params.input_dim is 4"),
        ("aligner_config", "input_dim", "32", "aligner_config.params.input_dim is '32'"),
        ("vision_config", "cls", "DINO", "vision_config.cls in config.json is 'DINO'"),
    ],
)
def test_blocks_that_contradict_the_weights_are_refused_by_name(
    pro_folder, tmp_path, block, key, value, words
):
    config = copied(pro_folder, tmp_path) / "config.json"
    content = json.loads(config.read_text())
    (content[block] if key == "cls" else content[block]["params"])[key] = value
    config.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(words)):
        janusflow.load(tmp_path)
