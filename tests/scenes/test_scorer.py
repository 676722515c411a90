"""The scorer reads what was drawn, through blur, noise and an autoencoder, and is not fooled."""

import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from janusflow.scenes.scorer import Found, Score, judge, read, score
from janusflow.scenes.shapes import BACKGROUND, COLORS, SHAPES, Obj, render, render_batch
from janusflow.scenes.world import Need, Prompt, describe, prompt, realise, scene

ROOT = Path(__file__).parent.parent.parent
SCENES = [scene(("test", "pairs", "long", "counts")[i % 4], i) for i in range(200)]
PICTURES = render_batch(shown.objects for shown in SCENES)


def everything(objects):
    """A prompt that asks for exactly these objects."""
    groups = Counter((obj.shape, obj.color) for obj in objects)
    needs = tuple(Need(shape, color, count) for (shape, color), count in groups.items())
    return Prompt(describe(objects), "mixed", needs)


def accuracy(pictures):
    right = [
        score(picture, everything(shown.objects)).strict
        for picture, shown in zip(pictures, SCENES, strict=False)
    ]
    return np.mean(right)


def worn(pictures, blur, sigma):
    soft = ndimage.gaussian_filter(pictures.astype(np.float32), (0, blur, blur, 0))
    soft += np.random.default_rng(0).normal(0, sigma, soft.shape)
    return soft.round().clip(0, 255).astype(np.uint8)


def reconstructed(pictures, components):
    """Through a linear autoencoder on 8 x 8 patches."""

    def patches(batch):
        grid = batch.reshape(len(batch), 12, 8, 12, 8, 3).transpose(0, 1, 3, 2, 4, 5)
        return grid.reshape(-1, 192).astype(np.float32)

    known = patches(render_batch(scene("train", i).objects for i in range(150)))
    basis = np.linalg.eigh(np.cov(known.T))[1][:, -components:].astype(np.float32)
    coded = (patches(pictures) - known.mean(0)) @ basis @ basis.T + known.mean(0)
    grid = coded.reshape(len(pictures), 12, 12, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(pictures.shape).round().clip(0, 255).astype(np.uint8)


def test_clean_renders_are_read_without_error():
    assert accuracy(PICTURES) == 1


@pytest.mark.parametrize(("blur", "sigma"), [(1, 0), (0, 10), (0.8, 8)])
def test_light_blur_and_noise_do_not_matter(blur, sigma):
    assert accuracy(worn(PICTURES[:120], blur, sigma)) >= 0.99


@pytest.mark.parametrize("components", [24, 12])
def test_a_linear_autoencoder_does_not_matter(components):
    assert accuracy(reconstructed(PICTURES[:120], components)) >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_recognised_in_every_colour_at_every_size_anywhere(shape):
    rng = np.random.default_rng(len(shape))
    for color in COLORS:
        obj = Obj(shape, color, *rng.uniform(25, 70, 2), rng.uniform(22, 44))
        (found,) = read(render([obj]))
        assert (found.shape, found.color) == (shape, color)
        there = (found.x, found.y, found.size)
        np.testing.assert_allclose(there, (obj.x, obj.y, obj.size), atol=0.3)


def test_pictures_of_another_size_are_read_in_the_same_units():
    objects = SCENES[0].objects
    small, large = (read(render(objects, size)) for size in (96, 192))
    assert [obj.shape for obj in small] == [obj.shape for obj in large]
    np.testing.assert_allclose([o.x for o in small], [o.x for o in large], atol=0.3)


def test_specks_are_ignored_and_an_empty_picture_holds_nothing():
    picture = render([])
    assert read(picture) == []
    picture[40:44, 40:44] = 0
    assert read(picture) == []


def test_a_wrong_colour_or_shape_or_number_is_never_accepted():
    rng = np.random.default_rng(0)
    for shown in SCENES[:40]:
        first, *rest = shown.objects
        color = rng.choice([name for name in COLORS if name != first.color])
        shape = rng.choice([name for name in SHAPES if name != first.shape])
        asked = everything(shown.objects)
        for changed in ([replace(first, color=color)], [replace(first, shape=shape)], []):
            assert not score(render([*changed, *rest]), asked).strict
        if rest:
            one_too_many = score(render(shown.objects), everything(rest))
            assert not one_too_many.strict and one_too_many.lenient


def test_swapped_positions_are_never_accepted():
    for i in range(40):
        shown = scene("train", i, "position")
        a, b = shown.objects
        assert score(render([a, b]), shown.prompt).strict
        swapped = score(render([replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)]), shown.prompt)
        assert not swapped.strict and not swapped.lenient


@pytest.mark.parametrize("overlap", [4, 8, 14])
def test_touching_objects_are_never_read_as_one_good_object(overlap):
    for shape in ("circle", "square", "cross", "ring"):
        one = Obj(shape, "blue", 30, 48, 30)
        for color in ("blue", "red"):
            other = replace(one, color=color, x=60 - overlap)
            assert not score(render([one, other]), everything([one])).strict
            assert [obj.shape for obj in read(render([one, other]))] == [None]


def test_a_pale_object_half_hidden_by_a_strong_one_does_not_go_unnoticed():
    square, star = Obj("square", "black", 40, 48, 30), Obj("star", "pink", 35, 28, 30)
    assert [obj.shape for obj in read(render([star, square]))] == [None]


def test_misshapen_and_half_coloured_objects_get_no_name():
    y, x = np.mgrid[:96, :96]
    inside = {
        "half disc": (np.hypot(x - 48, y - 48) < 16) & (y < 48),
        "long box": (abs(x - 48) < 20) & (abs(y - 48) < 10),
        "mouth": (np.hypot(x - 48, y - 48) < 16) & ~((x > 48) & (abs(y - 48) < (x - 48) / 2)),
    }
    for mask in inside.values():
        (found,) = read(np.where(mask[..., None], COLORS["red"], BACKGROUND).astype(np.uint8))
        assert found.shape is None and found.color == "red"
    red, blue = (render([Obj("circle", color, 48, 48, 32)]) for color in ("red", "blue"))
    (mixed,) = read(np.concatenate([red[:, :48], blue[:, 48:]], 1))
    assert mixed.shape is None


def test_counting_is_exact_about_the_shape_even_in_the_lenient_score():
    stars = [Found("star", "red", 20 * i, 20, 28, 0) for i in range(1, 4)]
    ring = Found("ring", "red", 50, 80, 28, 0)
    asked = Prompt("two stars", "counting", (Need("star", None, 2),))
    assert judge(stars[:2], asked).strict and judge(stars[:2], asked).lenient
    assert not judge(stars, asked).lenient
    assert judge([*stars[:2], ring], asked).lenient
    assert not judge([*stars[:2], ring], asked).strict


def test_an_object_without_name_spoils_the_strict_score_only():
    asked = Prompt("a ring", "single_object", (Need("ring"),))
    ring, blob = Found("ring", "red", 20, 20, 28, 0), Found(None, "red", 70, 70, 28, 0.5)
    assert judge([ring], asked).strict
    assert not judge([ring, blob], asked).strict and judge([ring, blob], asked).lenient
    assert not judge([replace(ring, color=None)], asked).strict
    assert not judge([], asked).lenient


@pytest.mark.parametrize("category", ["two_object", "position", "color_attr", "counting"])
def test_the_oracle_scores_full_marks(category):
    for i in range(12):
        asked = prompt("test", category, i)
        for seed in range(2):
            shown = realise(asked, np.random.default_rng(seed))
            result = score(render(shown.objects), asked)
            assert result.strict and result.lenient


def test_pictures_without_sense_hold_nothing_with_a_name():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 96)[:, None, None], (96, 96, 3)).astype(np.uint8)
    board = np.where(np.indices((96, 96)).sum(0)[..., None] // 24 % 2, [255, 0, 0], [0, 255, 255])
    for picture in (noise, ramp, board.astype(np.uint8), np.zeros((96, 96, 3), np.uint8)):
        assert not any(obj.shape for obj in read(picture))


@pytest.fixture(scope="module")
def counts():
    """The module behind `python -m checks.scorer`."""
    sys.path.insert(0, str(ROOT))
    from checks import scorer

    return scorer


def test_errors_on_fresh_renders_and_on_pictures_with_one_fault_are_counted(counts, monkeypatch):
    rows = counts.table(24, seed=5)
    assert len(rows) == 2 + 2 * len(counts.FAULTS)
    assert {(wrong, total) for *_, wrong, total in rows} == {(0, 24), (0, 6)}
    always = Score(True, True, ())
    monkeypatch.setattr(counts, "score", lambda _picture, _prompt: always)
    assert [wrong for *_, wrong, _ in counts.table(8, seed=5)] == [0, 0, *[2] * 12]


def test_every_fault_changes_what_is_there(counts):
    for name in counts.FAULTS:
        for shown, objects in islice(counts.faulty(name, seed=9), 5):
            assert sorted(map(str, objects)) != sorted(map(str, shown.objects)), name
            if name == "touching":
                a, b = shown.objects[0], objects[-1]
                assert max(abs(a.x - b.x), abs(a.y - b.y)) <= (a.size + b.size) / 2


def test_the_autoencoder_in_numpy_is_the_shipped_one(counts):
    import torch

    from janusflow.models.autoencoder import PatchAutoencoder

    shipped, picture = PatchAutoencoder.from_pretrained(counts.VAE.parent), PICTURES[3]
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    back = shipped.decode(shipped.encode(pixels).latent_dist.mode()).sample
    shown = ((back[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).detach().numpy()
    assert abs(shown - counts.Autoencoder()(picture)).max() <= 1


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"expected a \(H, W, 3\) uint8 image, got \(96, 96\)"):
        read(np.zeros((96, 96), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        read(np.zeros((96, 96, 3), np.float32))
