"""Recipes on a captioned folder: what is drawn of it, and a run from nothing to a loaded model."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

import janusflow
from janusflow.data.collections.batches import (
    read_items,
    vocabulary,
    worded,
    words_of,
)
from janusflow.training import collection_model, job, loop
from janusflow.training.recipes import RECIPES, Recipe

SMALL = dict(
    image_size=32,
    hidden=32,
    blocks=2,
    heads=2,
    mlp=64,
    channels=16,
    latent_channels=8,
    vision_width=16,
    vision_blocks=1,
    vision_heads=2,
    images=4,
    questions=2,
    steps=2,
    warmup=1,
)
SAID = {
    "heart": ["red heart", "love", "red"],
    "hand": ["waving hand", "hand", "hello"],
    "hand-dark": ["waving hand: dark skin tone", "hand", "hello"],
    "flag": ["flag: Japan", "flag"],
    "cat": ["cat", "pet", "animal"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("emoji"), 32)


def written(found, size):
    """Writes five images of noise with captions as `janusflow data emoji --keywords` does."""
    rng, rows = np.random.default_rng(0), []
    for name, texts in SAID.items():
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(found / f"{name}.png")
        row = dict(image=f"{name}.png", concept=name.partition("-")[0], language="en")
        rows += [json.dumps(row | {"text": text}) for text in texts]
    for split in ("train", "test"):
        (found / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    job.of_recipe("emoji-pico", out, SMALL | {"run.evaluate_every": 2}, data=[folder]).run()
    return out


@pytest.fixture(scope="module")
def batches(folder, run):
    recipe = Recipe(**SMALL, collection="emoji")
    return collection_model.batches(run / "base", recipe, folder)


def test_a_run_becomes_a_model_that_draws_and_answers(run, tmp_path):
    loop.export(run, tmp_path / "model")
    pipe = janusflow.load(tmp_path / "model")
    assert pipe("a red heart", num_inference_steps=1).images[0].size == (32, 32)
    assert isinstance(
        pipe.chat("What is this?", [Image.new("RGB", (32, 32))], max_new_tokens=2), str
    )
    assert (run / "evaluations.jsonl").exists()


def test_a_step_is_a_pure_function_of_its_number(batches):
    first, again = (batches.draw(3, 0, 1, {"generation": 4, "understanding": 2}) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.name == other.name and torch.equal(one.input_ids, other.input_ids)
    assert [s.kind for s in first] == ["generation"] * 4 + ["understanding"] * 2


def test_processes_share_a_step_without_overlap(batches):
    counts = {"generation": 5, "understanding": 3}
    whole = [s.name for s in batches.draw(1, 0, 1, counts)]
    parts = [[s.name for s in batches.draw(1, rank, 2, counts)] for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_flags_and_skin_tones_do_not_flood_the_rest(batches):
    drawn = Counter(batches.image(i).name for i in range(2000))
    assert drawn["flag.png"] < 0.4 * drawn["cat.png"]
    assert drawn["hand-dark.png"] < drawn["hand.png"]


def test_an_answer_is_the_name_or_yes_or_no(batches):
    names = {texts[0].lower() for texts in SAID.values()}
    answers = set()
    for index in range(60):
        sample = batches.question(index)
        told = sample.labels[sample.labels != -100][:-1].tolist()
        answers.add(batches.tokenizer.decode(told).strip())
        assert int(sample.image_token_mask.sum()) == batches.tokens + 1
    assert answers <= names | {"yes", "no"} and {"yes", "no"} < answers


def test_a_caption_keeps_the_words_of_its_image(folder):
    rng = np.random.default_rng(0)
    for item in read_items(folder, "train"):
        known = set(words_of(" ".join((item.name, *item.keywords, "a an of"))))
        for _ in range(20):
            assert set(words_of(worded(item, rng))) <= known


def test_words_of_few_concepts_are_no_tokens(folder):
    items = read_items(folder, "train")
    assert "japan" not in vocabulary(items, least=2) and "japan" in vocabulary(items, least=1)


def test_upper_case_is_read_as_lower_case(run):
    tokenizer = Tokenizer.from_file(str(run / "base" / "tokenizer.json"))
    assert tokenizer.encode("A Red HEART").ids == tokenizer.encode("a red heart").ids


@pytest.mark.parametrize("data", [[], ["one", "two"]])
def test_a_collection_s_recipe_says_which_folder_it_needs(tmp_path, data):
    with pytest.raises(ValueError, match="janusflow data emoji"):
        job.of_recipe("emoji-pico", tmp_path, data=data)


def test_a_folder_of_another_size_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="images of 32 pixels, the recipe takes 64"):
        collection_model.first_model(RECIPES["emoji-pico"], folder, tmp_path)


def test_a_language_without_captions_is_refused(folder):
    with pytest.raises(ValueError, match="no captions in 'xx'"):
        read_items(folder, "train", ("xx",))


def test_the_packaged_model_of_emoji_is_trained_on(tmp_path, folder):
    (tmp_path / "emoji").mkdir()
    changes = {"steps": 1, "images": 2, "questions": 1, "warmup": 1}
    data, start = [written(tmp_path / "emoji", 64)], "janusflow/emoji"
    plan = job.of_recipe("emoji-pico", tmp_path / "run", changes, start, data)
    assert plan.run().finished
    with pytest.raises(ValueError, match=r"images of 32 pixels.*reads images of 64"):
        job.of_recipe("emoji-pico", tmp_path / "other", changes, start, [folder])


@pytest.mark.parametrize("given", [{"languages": "de"}, {"languages": "en,", **SMALL}])
def test_languages_that_nothing_would_read_are_refused(given):
    with pytest.raises(ValueError, match="separated by commas"):
        Recipe(**given)


def test_captions_come_in_every_language_and_answers_in_the_first(folder, tmp_path):
    said = {"heart.png": "Herz", "cat.png": "Katze", "flag.png": "Flagge: Japan"}
    for name in said:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    rows = [
        dict(image=name, concept=name, language=code, text=SAID[name[:-4]][0] if english else text)
        for name, text in said.items()
        for code, english in (("en", True), ("de", False))
    ]
    for split in ("train", "test"):
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    recipe = Recipe(collection="emoji", languages="en, de", **SMALL)
    collection_model.first_model(recipe, tmp_path, tmp_path / "base")
    source = collection_model.batches(tmp_path / "base", recipe, tmp_path)
    assert len(source.pixels) == 3 and len(source.items) == 6
    assert {source._item(source._rng(i, 0)).language for i in range(20)} == {"en", "de"}
    assert {source._answer(item) for item in source.items} == {"red heart", "cat", "flag: Japan"}
    assert len({i.place for i in source.items if i.flag}) == 1
