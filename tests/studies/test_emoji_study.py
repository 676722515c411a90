"""The study of emoji: its scores on cases whose right answer is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from janusflow.data.collections.batches import ImageEntry
from janusflow.training import collection_model
from janusflow.training.recipes import Recipe
from studies.real_images import alignment, emoji


def vectors(count, seed=0):
    found = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(found, dim=1)


def items(count, toned=()):
    return [
        ImageEntry(
            i, f"{i}.png", f"{i // 2}", f"thing {i}" + (": dark skin tone" if i in toned else "")
        )
        for i in range(count)
    ]


class Mean(nn.Module):
    side = 4

    def forward(self, pixels):
        return pixels.flatten(2).mean(2)


def test_images_that_are_their_concepts_are_all_retrieved():
    found = emoji.retrieval(vectors(30), vectors(30), seed=0)
    assert found["own"][0] == 1 and found["shuffled"][0] < 0.2
    assert found["candidates"] == 30 and found["chance"] == 0.0333


def test_images_of_nothing_are_retrieved_by_chance():
    found = emoji.retrieval(vectors(200), vectors(200, seed=1), seed=0)
    assert found["own"][1] <= 1 / 200 <= found["own"][2]


def test_the_kid_of_equal_sets_is_nothing_and_of_others_more():
    same = emoji.kid(vectors(200), vectors(200, seed=1), seed=0)
    other = emoji.kid(vectors(200), vectors(200, 2) + 1, seed=0)
    assert same[1] <= 0 <= same[2] < other[1]


def test_the_mean_of_a_concept_s_images_is_of_length_one():
    shown = emoji.Pictures(items(6), torch.zeros(6, 3, 2, 2), vectors(6), vectors(6))
    means = emoji.centroids(shown, ["0", "2"])
    assert means.shape == (2, 16) and torch.allclose(means.norm(dim=1), torch.ones(2))


def test_an_image_of_the_training_set_is_nearest_to_itself():
    pixels = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    shown = emoji.Pictures(items(5), pixels.to(torch.uint8), vectors(5), vectors(5))
    found = emoji.nearest(shown.pixels[2:4], shown.vectors[2:4], shown)
    for place, distance in found.values():
        assert place.tolist() == [2, 3] and distance.max() < 1e-3


def test_chosen_prompts_are_of_different_concepts_and_untoned():
    found = emoji.chosen(items(20, toned=(1, 3)), 10, seed=0)
    assert len({x.concept for x in found}) == 10 and not any(x.toned for x in found)
    assert found == emoji.chosen(items(20, toned=(1, 3)), 10, seed=0)


@pytest.mark.parametrize("name", emoji.COLORS)
def test_a_coloured_thing_on_white_has_its_colour(name):
    image = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    image[:, 4:12, 4:12] = torch.tensor(emoji.COLORS[name], dtype=torch.uint8)[:, None, None]
    assert emoji.main_color(image) == name


def test_the_judge_s_features_have_length_one():
    judge = emoji.Judge(Mean(), torch.tensor([1.0, 2.0, 3.0]))
    pixels = torch.randint(0, 256, (70, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(judge(pixels).norm(dim=1), torch.ones(70))


def test_every_image_of_the_sheet_has_two_beside_it():
    pixels = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    shown = emoji.Pictures(items(3), pixels, vectors(3), vectors(3))
    near = emoji.nearest(pixels, shown.vectors, shown)
    sheet = emoji.sheet(pixels, ["a", "b", "c"], near, shown)
    assert isinstance(sheet, Image.Image) and sheet.width >= 3 * 3 * 16
    assert np.asarray(sheet).shape[2] == 3


def test_an_arm_is_compared_with_no_alignment_seed_by_seed():
    runs, bare = ([{"held-out loss": x} for x in xs] for xs in ((1.0, 2.0, 3.1), (1.1, 2.1, 3.2)))
    found = alignment.row("some", runs, bare)
    assert found["held-out loss"] == 2.0333 and found["loss - none"] == [-0.1, -0.1, -0.1]
    assert alignment.row("some", runs[:1], bare[:1])["loss - none"] == -0.1


SAID = {
    "heart": "red heart",
    "hand": "hand",
    "hand-a": "hand: light skin tone",
    "hand-b": "hand: dark skin tone",
    "cat": "cat",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of noise: things and tones for every split, as `janusflow data emoji` writes them."""
    found, rng = tmp_path_factory.mktemp("emoji"), np.random.default_rng(0)
    rows = []
    for name, text in SAID.items():
        shown = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(shown).save(found / f"{name}.png")
        row = dict(image=f"{name}.png", concept=name.partition("-")[0], language="en", text=text)
        rows.append(json.dumps(row))
    parts = {"train": rows, "test": rows, "compositions": rows[3:4]}
    for split, lines in parts.items():
        (found / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("model")
    small = dict(hidden=32, blocks=1, heads=2, mlp=32, channels=16, latent_channels=8)
    vision = dict(vision_width=16, vision_blocks=1, vision_heads=2)
    recipe = Recipe(collection="emoji", image_size=32, **small, **vision)
    collection_model.first_model(recipe, folder, base)
    return base


def test_the_study_of_a_model_says_everything_that_the_page_shows(
    folder, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(emoji.features, "network", lambda *_: Mean())
    monkeypatch.setenv("JANUSFLOW_CACHE", str(tmp_path / "cache"))
    how = dict(count=3, shown=2, steps=1, guidance=2.0, seed=0, note="tiny", figures=tmp_path)
    found = emoji.measure(SimpleNamespace(model=model, data=folder, features=Path("x"), **how))
    assert [row["prompts"] for row in found["rows"]] == ["train", "test"]
    assert found["rows"][0]["images"] == 3 and len(found["rows"][0]["own"]) == 3
    assert set(found["compositions"]) == {"skin tone", "colour"}
    assert len(found["distances"]) == 3 and found["note"].startswith("tiny")
    assert Image.open(tmp_path / "train.png").width > 100
