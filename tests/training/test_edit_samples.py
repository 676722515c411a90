"""Edits and documents: samples that show images, from files to weights and back to images."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import janusflow
from janusflow.data.readers import open_data, scan
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.packed_forward import forward
from janusflow.models.latents import encode
from janusflow.scenes.edits import KINDS, edit, judge, write
from janusflow.scenes.shapes import render
from janusflow.training import checkpoints, export, job, rollouts

TINY = {
    "training.steps": 2,
    "training.batch": 4,
    "training.warmup": 1,
    "run.save_every": 1,
    "run.keep": 9,
}


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    write(folder, 6, held_out=2)
    return folder


def png(color="red", size=(16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_scene_after_an_edit_is_right_and_the_one_before_is_not(kind):
    for index in range(6):
        one = edit("test", index, kind)
        assert judge(render(one.after), one)
        assert not judge(render(one.before), one)


def test_what_should_stay_must_stay_in_its_place():
    one = next(e for e in (edit("test", i, "recolour") for i in range(99)) if len(e.after) == 1)
    away = np.roll(render(one.after), 9, axis=1)
    assert not judge(away, one)


@pytest.mark.parametrize(
    ("source", "text", "target"),
    [
        ("source", "instruction", "target"),
        ("input_image", "edit_prompt", "edited_image"),
        ("source_img", "instruction", "target_img"),
        ("before", "prompt", "after"),
    ],
)
def test_rows_of_edits_are_known_by_the_keys_that_people_use(tmp_path, source, text, target):
    (tmp_path / "a.png").write_bytes(png("red"))
    (tmp_path / "b.png").write_bytes(png("blue"))
    row = {source: "a.png", text: "make it blue", target: "b.png"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    found = scan(tmp_path)
    ((kind, records),) = found.sources
    assert kind == "generation" and not found.skipped
    assert (records[0].shown, records[0].images) == ((png("red"),), (png("blue"),))
    assert records[0].text == "make it blue"


def test_edits_in_shards_and_tables_are_those_of_lines(tmp_path):
    pytest.importorskip("datasets")
    import pyarrow
    from pyarrow import parquet

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        files = {"0.source.png": png("red"), "0.target.png": png("blue"), "0.txt": b"make it blue"}
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    columns = {"source": [png("red")], "target": [png("blue")], "instruction": ["make it blue"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    for path in ("a.tar", "a.parquet"):
        ((kind, records),) = scan(tmp_path / path).sources
        own = records[0]
        assert kind == "generation" and own.text == "make it blue"
        assert (own.shown, own.images) == ((png("red"),), (png("blue"),))


def test_an_edit_is_cut_as_its_source_is(tmp_path, processor):
    wide = Image.new("RGB", (64, 16))
    wide.paste("white", (0, 0, 8, 16))
    wide.save(tmp_path / "a.png")
    row = {"source": "a.png", "instruction": "stay", "target": "a.png"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    samples = open_data(tmp_path / "x.jsonl", processor).draw(0, counts={"generation": 4})
    for sample in samples:
        assert torch.equal(sample.shown, sample.pixel_values)
    assert len({float(sample.shown.mean()) for sample in samples}) > 1  # each cut elsewhere


def test_the_packed_pass_of_edits_is_that_of_the_sampler(edits, tiny_folder, tiny_pipe, processor):
    model = JanusFlowModel.from_pretrained(tiny_folder).eval()
    samples = open_data(edits / "train.jsonl", processor).draw(0, counts={"generation": 2})
    latents = encode(tiny_pipe.vae, torch.cat([s.pixel_values for s in samples]))
    samples = [replace(s, latents=x) for s, x in zip(samples, latents, strict=True)]
    x, t = torch.randn_like(latents), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        packed = forward(model, samples, x, t).velocity
        alone = model.velocity(x, t, rollouts.prompts(model, samples))
        assert torch.allclose(packed, alone, rtol=0, atol=2e-5)
        hidden = forward(model, samples, x, t, torch.tensor([True, True])).velocity
        none = model.encode_prompt(*rollouts.padded(samples), unconditional=True)
        assert torch.allclose(hidden, model.velocity(x, t, none), atol=1e-4)
        others = [replace(s, shown=-s.shown) for s in samples]
        moved = (forward(model, others, x, t).velocity - packed).abs().max()
        assert moved > 1e-4


@pytest.mark.filterwarnings("ignore:image is for models trained to edit")
def test_a_model_that_edits_takes_the_image_of_the_samples_prompt(edits, tiny_pipe, processor):
    image = Image.open(edits / "images/train-000000-before.png")
    how = dict(num_inference_steps=2, output_type="pt", seed=0)
    own, other = (tiny_pipe("a", image=i, **how).images for i in (image, Image.new("RGB", (9, 9))))
    assert not torch.equal(own, other)
    several = tiny_pipe(["a", "a"], image=[image, image], num_inference_steps=2, seed=0)
    assert len(several.images) == 2
    with pytest.raises(ValueError, match="2 images came for 1 prompts"):
        tiny_pipe("a", image=[image, image])
    inputs = processor.prompt("a", [[image]])
    assert inputs["image_token_mask"].sum() == processor.num_image_tokens + 1


def test_an_image_for_a_model_that_was_not_trained_to_edit_is_warned_of(tiny_pipe):
    how = dict(image=Image.new("RGB", (9, 9)), num_inference_steps=1, output_type="latent")
    with pytest.warns(UserWarning, match=r"image is for models trained to edit.*pipe\.edit"):
        tiny_pipe("a", **how)


def test_an_exported_editor_says_that_it_is_one(edits, tiny_folder, tmp_path, recwarn):
    run, short = tmp_path / "run", TINY | {"training.steps": 1}
    job.of_stage("tune", str(tiny_folder), edits / "train.jsonl", run, short).run()
    export.export(run, tmp_path / "model")
    pipe = janusflow.load(tmp_path / "model")
    assert pipe.model.config.image_editing
    recwarn.clear()
    pipe("a", image=Image.new("RGB", (9, 9)), num_inference_steps=1, output_type="latent")
    assert not [w for w in recwarn if "trained to edit" in str(w.message)]


def test_a_stage_trains_on_edits_and_resumes_in_the_same_bits(edits, tiny_folder, tmp_path):
    for out in (tmp_path / "whole", tmp_path / "cut"):
        job.of_stage("tune", str(tiny_folder), edits / "train.jsonl", out, TINY).run()
    checkpoints.path_of(tmp_path / "cut", 2).unlink()
    job.of_stage("tune", str(tiny_folder), edits / "train.jsonl", tmp_path / "cut", TINY).run()
    ours, theirs = (checkpoints.read(tmp_path / name, 2)[0] for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


DOCUMENTS = [
    {"texts": ["one", None, "two"], "images": [None, "a.png", None]},
    {"content": [{"type": "text", "text": "one"}, {"type": "image", "image": "a.png"}, "two"]},
    {"text": "one<image>two", "images": ["a.png"]},
]


@pytest.mark.parametrize("row", DOCUMENTS)
def test_of_an_interleaved_document_every_text_is_learnt_and_no_image(tmp_path, processor, row):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    mixture = open_data(tmp_path / "x.jsonl", processor)
    (sample,) = mixture.draw(0, counts={"understanding": 1})
    learnt = sample.labels[sample.labels != -100]
    assert processor.decode(learnt).split() == ["one", "two"]
    assert learnt[-1] == processor.tokenizer.eos_token_id
    assert sample.pixel_values.shape[0] == 1
    assert sample.image_token_mask.sum() == processor.num_image_tokens + 1
    assert (sample.labels[sample.image_token_mask] == -100).all()


def test_a_document_of_unequal_lists_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    row = {"texts": ["one"], "images": [None, "a.png"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="1 texts and 2 images"):
        scan(tmp_path / "x.jsonl")


def test_the_command_writes_edits_that_are_the_functions(janusflow, edits, tmp_path):
    code, told, err = janusflow("data", "edits", "-o", tmp_path / "e", "--count", 6)
    assert code == 0 and "6 edits in train.jsonl" in told, err
    ours, theirs = (folder / "train.jsonl" for folder in (tmp_path / "e", edits))
    assert ours.read_text() == theirs.read_text()
