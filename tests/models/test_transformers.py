"""JanusFlow under transformers' own classes: Auto, Trainer, pipeline, generate, peft."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    TextIteratorStreamer,
    Trainer,
    TrainingArguments,
    pipeline,
)

from janusflow import JanusFlowConfig, JanusFlowModel, JanusFlowPipeline, JanusFlowProcessor

QUESTION = "describe the picture."


@pytest.fixture(scope="module")
def processor(tiny_folder):
    return JanusFlowProcessor.from_pretrained(tiny_folder)


@pytest.fixture
def model(tiny_folder):
    return JanusFlowModel.from_pretrained(tiny_folder)


@pytest.fixture
def inputs(processor):
    return processor([QUESTION, "how many?"], [[Image.new("RGB", (96, 96), "red")], []])


# Auto classes


def test_the_auto_classes_read_a_saved_folder(tiny_folder, model, processor, inputs):
    assert isinstance(AutoConfig.from_pretrained(tiny_folder), JanusFlowConfig)
    assert isinstance(AutoProcessor.from_pretrained(tiny_folder), JanusFlowProcessor)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert tokenizer("a red circle").input_ids == processor.ids("a red circle")
    for auto in (AutoModel, AutoModelForImageTextToText):
        loaded = auto.from_pretrained(tiny_folder)
        assert isinstance(loaded, JanusFlowModel)
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.slow
def test_the_auto_classes_know_us_whichever_is_imported_first(tiny_folder):
    lines = ["import janusflow", "from transformers import AutoConfig, AutoProcessor"]
    use = f"print(type(AutoConfig.from_pretrained({str(tiny_folder)!r})).__name__)"
    for order in (lines, lines[::-1]):
        code = "; ".join([*order, use])
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert out.stdout.strip() == "JanusFlowConfig", out.stderr


@pytest.mark.slow
def test_importing_the_package_imports_no_library():
    code = (
        "import janusflow, sys; print({'torch', 'transformers', 'diffusers'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "set()", out.stderr


# Answers


def test_generation_stops_at_the_end_without_being_told(model, processor, inputs):
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    model.language_model.lm_head.weight.data[processor.tokenizer.eos_token_id] = 100
    with torch.no_grad():
        model.language_model.model.norm.weight.abs_()
    end = torch.zeros_like(model.language_model.lm_head.weight)
    probe = model.language_model.lm_head
    probe.forward = lambda x: x.new_zeros(*x.shape[:-1], len(end)).index_fill(
        -1, torch.tensor([processor.tokenizer.eos_token_id]), 1.0
    )
    assert model.generate(**inputs).shape == (2, 1)


def test_generation_config_json_is_read_and_a_given_one_counts(tiny_folder, tmp_path, inputs):
    for path in tiny_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    told = {"do_sample": True, "top_k": 7, "max_new_tokens": 3}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    model = JanusFlowModel.from_pretrained(tmp_path)
    assert (model.generation_config.do_sample, model.generation_config.top_k) == (True, 7)
    assert model.language_model.generation_config is model.generation_config
    assert model.generate(**inputs, eos_token_id=-1).shape == (2, 3)
    given = GenerationConfig(max_new_tokens=5, do_sample=False)
    assert model.generate(**inputs, generation_config=given).shape[1] <= 5
    model.save_pretrained(tmp_path / "again")
    assert JanusFlowModel.from_pretrained(tmp_path / "again").generation_config.top_k == 7
    (tmp_path / "generation_config.json").write_text('{"do_sample": "maybe", "max_length": []}')
    with pytest.raises(ValueError, match=r"generation_config\.json"):
        JanusFlowModel.from_pretrained(tmp_path)


def test_a_model_that_says_nothing_of_answers_writes_no_file_of_it(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


def test_beams_and_several_answers_come_back(model, inputs):
    several = model.generate(**inputs, num_beams=3, num_return_sequences=2, max_new_tokens=4)
    assert len(several) == 4
    greedy = model.generate(**inputs, max_new_tokens=4)
    assert len(greedy) == 2


def test_an_unknown_argument_is_refused_by_name(model, processor, inputs, tiny_folder):
    with pytest.raises(ValueError, match="max_new_tokenz"):
        model.generate(**inputs, max_new_tokenz=4)
    with pytest.raises(TypeError, match="did you mean 'padding'"):
        processor("hi", pading=True)
    with pytest.raises((TypeError, ValueError), match="dtpye"):
        JanusFlowModel.from_pretrained(tiny_folder, dtpye=torch.float16)


def test_attention_that_is_not_kept_is_refused_by_name(tiny_folder, model, inputs):
    with pytest.raises(ValueError, match=r"output_attentions needs .*'eager'.*'sdpa'"):
        model(**inputs, output_attentions=True)
    eager = AutoModel.from_pretrained(tiny_folder, attn_implementation="eager")
    assert len(eager(**inputs, output_attentions=True).attentions) > 0


def test_a_streamer_ends(model, processor, inputs):
    streamer = TextIteratorStreamer(processor.tokenizer, timeout=5)
    row = {k: v[:1] for k, v in inputs.items()}
    model.generate(**row, streamer=streamer, max_new_tokens=3)
    assert isinstance("".join(streamer), str)


def test_a_prompt_longer_than_the_positions_is_refused(model):
    long = torch.full((1, model.config.language_config.max_position_embeddings + 1), 9)
    for call in (model, model.generate, model.encode_prompt):
        with pytest.raises(ValueError, match=r"1,025 tokens, the model 1,024 positions"):
            call(long)


def test_the_pipeline_of_transformers_answers(tiny_folder, model, processor):
    answers = pipeline("image-text-to-text", model=str(tiny_folder))
    image = Image.new("RGB", (96, 96), "red")
    parts = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    chat = [{"role": "user", "content": parts}]
    (out,) = answers(text=chat, max_new_tokens=4, return_full_text=False)
    ids = model.generate(**processor(QUESTION, [image]), max_new_tokens=4)
    assert out["generated_text"] == processor.decode(ids[0])
    begun = [*chat, {"role": "assistant", "content": "a red"}]
    (out,) = answers(text=begun, max_new_tokens=4)
    assert out["generated_text"][-1]["content"].startswith("a red")


# The processor's keywords


def test_the_processor_pads_as_asked(processor):
    texts = ["hi", "how many shapes are there?"]
    plain = processor(texts, padding=True, return_tensors="pt")
    right = processor(texts, padding=True, padding_side="right")["attention_mask"]
    assert torch.equal(plain["attention_mask"].flip(1), right)
    assert processor(texts, padding="max_length", max_length=80)["input_ids"].shape == (2, 80)
    with pytest.raises(ValueError, match="leave padding on"):
        processor(texts, padding=False)
    with pytest.raises(ValueError, match="are never cut"):
        processor(texts, truncation=True, max_length=3)


def test_none_is_no_image(processor):
    with pytest.raises(ValueError, match="image 1 of 1 is None"):
        processor("hi", images=[None])


def test_images_of_messages_come_from_files_and_never_from_the_net(processor, tmp_path):
    Image.new("RGB", (96, 96), "red").save(tmp_path / "a.png")
    asked = {"type": "text", "text": "hi"}

    def message(**image):
        return [{"role": "user", "content": [{"type": "image", **image}, asked]}]

    given = processor(message(image=Image.open(tmp_path / "a.png")))
    assert torch.equal(
        processor(message(path=str(tmp_path / "a.png")))["pixel_values"], given["pixel_values"]
    )
    with pytest.raises(ValueError, match="URLs are not downloaded"):
        processor(message(url="https://example.org/a.png"))


# Embeddings and training


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_and_head_grow_together(model, inputs, tied, tmp_path):
    if tied:
        config = JanusFlowConfig(**model.config.to_dict())
        config.language_config.tie_word_embeddings = True
        torch.manual_seed(0)
        model = JanusFlowModel(config).eval()
    with torch.no_grad():
        before = model(**inputs).logits
        model.resize_token_embeddings(700)
        after = model(**inputs).logits
    assert after.shape[-1] == 700
    assert torch.allclose(after[..., : before.shape[-1]], before, atol=1e-5)
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is table) == tied
    model.save_pretrained(tmp_path)
    again = JanusFlowModel.from_pretrained(tmp_path)
    assert again.config.language_config.vocab_size == 700
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, after)


def examples(processor, count: int) -> list[dict]:
    rows = []
    for i in range(count):
        data = processor(QUESTION, [Image.new("RGB", (96, 96), ("red", "blue")[i % 2])])
        row = {name: value[0] for name, value in data.items()}
        row["labels"] = row["input_ids"].masked_fill(row["image_token_mask"], -100)
        rows.append(row)
    return rows


def test_transformers_trainer_trains_evaluates_and_saves(model, processor, tmp_path):
    settings = TrainingArguments(
        tmp_path,
        max_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        gradient_checkpointing=True,
        report_to=[],
        use_cpu=True,
        learning_rate=1e-3,
        save_steps=2,
    )
    rows = examples(processor, 4)
    trainer = Trainer(model, settings, train_dataset=rows, eval_dataset=rows)
    first = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < first
    again = JanusFlowModel.from_pretrained(tmp_path / "checkpoint-2")
    assert torch.equal(again.beg_of_und_embed, model.beg_of_und_embed)


def test_the_loss_is_the_mean_over_the_labelled_tokens(model, processor):
    (row,) = examples(processor, 1)
    batch = {name: value[None] for name, value in row.items()}
    with torch.no_grad():
        out = model(**batch)
    expected = torch.nn.functional.cross_entropy(out.logits[0, :-1], row["labels"][1:])
    assert torch.allclose(out.loss, expected)


def test_the_image_processor_of_a_folder_is_its_processors(tiny_folder, processor, tmp_path):
    images = [Image.new("RGB", size, "red") for size in ((96, 96), (50, 120))]
    found = AutoImageProcessor.from_pretrained(tiny_folder)
    pixels = found(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, processor("what?", [images])["pixel_values"])
    assert found.size == {"height": 96, "width": 96}
    found.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == found.to_dict()
    assert (again(images[0], return_tensors="np").pixel_values == pixels[:1].numpy()).all()
    small = AutoImageProcessor.from_pretrained(tiny_folder, image_size=48)
    assert small(images[0]).pixel_values.shape == (1, 3, 48, 48)
    with pytest.raises(TypeError, match="return_tensor"):
        found(images, return_tensor="pt")
    with pytest.raises(TypeError, match="imagesize"):
        AutoImageProcessor.from_pretrained(tiny_folder, imagesize=48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: dict(labels=ids + 10_000), "labels hold"),
        (lambda ids: dict(labels=ids[:, :3]), "labels have shape"),
        (lambda ids: dict(input_ids=ids + 10_000), "input_ids hold"),
        (lambda ids: dict(input_ids=ids.float()), "input_ids hold .* torch.float32"),
    ],
)
def test_ids_that_the_vocabulary_has_not_are_refused(model, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        model(**{**inputs, **change(inputs["input_ids"])})


@pytest.mark.parametrize("eos", [600, [2, 10**6]])
def test_an_end_of_text_beyond_the_vocabulary_is_refused(tiny_folder, tmp_path, eos):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(ValueError, match=r"eos_token_id of .* beyond the vocabulary of 600"):
        JanusFlowModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("token", [{}, {"content": "x"}, {"id": 5}, {"id": 5, "content": [1]}])
def test_an_added_token_without_text_or_id_is_told_in_a_sentence(tiny_folder, tmp_path, token):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"][0] = token
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        JanusFlowPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("given", [{}, {"num_items_in_batch": 0}])
def test_a_batch_in_which_no_label_counts_has_the_loss_zero_and_a_gradient(model, inputs, given):
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, 0] = inputs["input_ids"][:, 0]  # the first token is nobody's next one
    with pytest.warns(UserWarning, match="no label counts"):
        loss = model(**inputs, labels=labels, **given).loss
    loss.backward()
    gradients = [p.grad for p in model.language_model.parameters() if p.grad is not None]
    model.zero_grad()
    assert loss == 0 and gradients and not any(g.any() for g in gradients)


WRONG_INPUTS = {
    "labels in a list": (lambda i: dict(labels=i["input_ids"].tolist()), "labels are of type list"),
    "a negative count": (
        lambda i: dict(labels=i["input_ids"], num_items_in_batch=-1),
        "num_items_in_batch is -1",
    ),
    "a short mask": (lambda _: dict(attention_mask=torch.ones(2, 3)), "attention_mask has shape"),
    "bytes": (
        lambda i: dict(pixel_values=i["pixel_values"].byte()),
        r"pixel_values are torch\.uint8",
    ),
    "small": (
        lambda i: dict(pixel_values=i["pixel_values"][..., :48, :48]),
        r"floats \(images, 3, 96",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_inputs_that_no_processor_makes_are_refused_by_name(model, inputs, case):
    change, message = WRONG_INPUTS[case]
    with pytest.raises((ValueError, TypeError), match=message):
        model(**{**inputs, **change(inputs)})


def test_labels_may_be_of_any_whole_numbers_and_a_prompt_may_be_named_inputs(model, processor):
    ids = processor(QUESTION)["input_ids"]
    expected = model(input_ids=ids, labels=ids).loss
    assert model(input_ids=ids, labels=ids.int()).loss == expected
    found = model.generate(inputs=ids, max_new_tokens=2)
    assert torch.equal(found, model.generate(ids, max_new_tokens=2))


def test_a_model_is_saved_by_accelerates_call(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=True, save_function=torch.save)
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(ValueError, match="pickles are never written"):
        model.save_pretrained(tmp_path, safe_serialization=False)


@pytest.mark.parametrize("ids", [[-100], "x", [[5]], [0.5]])
def test_what_no_text_was_made_of_is_not_decoded(processor, ids):
    with pytest.raises(ValueError, match="expected the token ids of one text"):
        processor.decode(ids)
