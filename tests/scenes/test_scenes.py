"""The small world: pure functions of a key, captions that say exactly what is there."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from janusflow.scenes.questions import TEMPLATES, ask, pieces, question, vocabulary
from janusflow.scenes.shapes import BACKGROUND, COLORS, SHAPES, Obj, coverage, render, render_batch
from janusflow.scenes.world import (
    CATEGORIES,
    FRAMES,
    GAP,
    HELD_COUNTS,
    HELD_PAIRS,
    HELD_RELATIONS,
    SPLITS,
    clearly,
    describe,
    generator,
    opposite,
    prompt,
    relates,
    scene,
)

SCENES = [scene(split, i) for split in SPLITS for i in range(60)]
TRAINING = [scene("train", i) for i in range(800)]


def pairs_of(shown):
    return {(obj.shape, obj.color) for obj in shown.objects}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_box_and_is_left_right_symmetric(shape):
    mask = coverage(shape, 20, 20, 36, 0, 0, 40, 40)
    assert mask.min() == 0 and mask.max() == 1
    assert 0.3 < mask.sum() / 36**2 < 0.8
    assert not mask[:1].any() and not mask[-1:].any() and mask[2:-2].any(1).sum() >= 30
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=1 / 16)


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_smooth_so_that_half_a_pixel_moves_half_the_mass(shape):
    still, moved, whole = (coverage(shape, 20 + d, 20, 30, 0, 0, 40, 40) for d in (0, 0.5, 1))
    assert abs((still + whole) / 2 - moved).sum() < 0.05 * still.sum()
    assert still.sum() == pytest.approx(moved.sum(), rel=0.02)


def test_no_two_shapes_and_no_two_colours_look_alike():
    masks = [coverage(shape, 20, 20, 32, 0, 0, 40, 40) for shape in SHAPES]
    assert min(abs(a - b).sum() / max(a.sum(), b.sum()) for a, b in combinations(masks, 2)) > 0.15
    tones = np.array([*COLORS.values(), BACKGROUND], float)
    assert min(np.linalg.norm(a - b) for a, b in combinations(tones, 2)) > 80


def test_a_render_has_the_background_and_the_colour_and_only_mixes_of_them():
    picture = render([Obj("heart", "purple", 48, 48, 32)])
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == BACKGROUND and tuple(picture[48, 48]) == COLORS["purple"]
    way = np.subtract(COLORS["purple"], BACKGROUND).astype(float)
    rest = picture - np.array(BACKGROUND, float)
    along = (rest @ way)[..., None] / (way @ way) * way
    assert abs(rest - along).max() < 1.5


def test_objects_beyond_the_edge_are_cut_off():
    whole = render([Obj("circle", "red", 48, 48, 30)])
    for x, y in ((0, 0), (96, 48), (48, -3), (200, 48), (-200, 200)):
        cut = render([Obj("circle", "red", x, y, 30)])
        inside = whole[max(48 - y, 0) : 144 - y, max(48 - x, 0) : 144 - x]
        seen = cut[max(y - 48, 0) :, max(x - 48, 0) :][: inside.shape[0], : inside.shape[1]]
        np.testing.assert_array_equal(seen, inside[: seen.shape[0], : seen.shape[1]])


def test_a_larger_picture_shows_the_same_scene():
    objects = SCENES[0].objects
    large = render(objects, size=192).reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert abs(large - render(objects)).mean() < 0.3


def test_a_batch_is_its_pictures():
    batch = render_batch(shown.objects for shown in SCENES[:5])
    np.testing.assert_array_equal(batch[3], render(SCENES[3].objects))


def test_scenes_depend_on_split_and_index_alone():
    assert [scene("train", i) for i in range(20)] == TRAINING[:20]
    assert scene("train", 7) != scene("train", 8)
    prompts = {prompt(split, "colors", i).text for split in ("train", "test") for i in range(50)}
    assert len(prompts) > 50


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_exactly_what_its_prompt_needs(split):
    for shown in (scene(split, i) for i in range(100)):
        needs = shown.prompt.needs
        assert len(shown.objects) == sum(need.count for need in needs) <= 4
        for need in needs:
            assert sum(need.matches(obj) for obj in shown.objects) == need.count
        if shown.prompt.relation:
            assert clearly(shown.objects[0], shown.prompt.relation, shown.objects[1])


def test_objects_lie_inside_and_apart():
    for shown in SCENES:
        for obj in shown.objects:
            assert obj.size / 2 + 1 < min(obj.x, obj.y, 96 - obj.x, 96 - obj.y)
        for a, b in combinations(shown.objects, 2):
            assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2 + GAP


def test_training_never_shows_or_asks_for_what_is_held_out():
    for shown in TRAINING:
        assert not pairs_of(shown) & HELD_PAIRS
        counts = Counter(obj.shape for obj in shown.objects)
        assert not HELD_COUNTS & set(counts.items())
        if relation := shown.prompt.relation:
            a, b = (need.shape for need in shown.prompt.needs)
            assert not {(a, relation, b), (b, opposite(relation), a)} & HELD_RELATIONS
    for text in (question("train", i).text for i in range(300)):
        assert not any(f"{color} {shape}" in text for shape, color in HELD_PAIRS)


def test_held_out_splits_consist_of_what_training_lacks():
    for i in range(100):
        assert pairs_of(scene("pairs", i)) <= HELD_PAIRS
        need = prompt("counts", "counting", i).needs[0]
        assert (need.shape, need.count) in HELD_COUNTS
        asked = prompt("relations", "position", i)
        a, b = (need.shape for need in asked.needs)
        around = {(a, asked.relation, b), (b, opposite(asked.relation), a)}
        assert around & HELD_RELATIONS
        assert len(prompt("long", "long", i).needs) >= 3
    assert {shape for shape, _ in HELD_PAIRS} == set(SHAPES)


def test_paraphrases_are_new_sentences_of_words_known_from_training():
    texts = [question("train", i).text for i in range(300)] + [s.caption for s in TRAINING]
    known = {piece for text in texts for piece in pieces(text)}
    for category in CATEGORIES:
        assert set(pieces(prompt("paraphrases", category, 0).text)) <= known
    assert not set(FRAMES["paraphrases"]) & set(FRAMES["train"])


def test_every_training_category_is_equally_frequent():
    counts = Counter(shown.category for shown in TRAINING)
    assert set(counts) == set(SPLITS["train"])
    assert min(counts.values()) > 70


def test_captions_are_english():
    captions = {shown.caption for shown in TRAINING}
    assert any("crosses" in caption for caption in captions)
    assert any("an orange" in caption for caption in captions)
    assert not any("a orange" in caption for caption in captions)
    objects = [Obj("star", "blue", 0, 0, 1), *[Obj("circle", "red", 0, 0, 1)] * 2]
    assert describe(objects) == "two red circles and a blue star"
    assert describe(objects[::-1]) == describe(objects)


def test_the_vocabulary_is_small_and_covers_every_text():
    words = vocabulary()
    assert words == sorted(set(words)) and len(words) < 80
    asked = [question("test", i) for i in range(300)]
    texts = [q.text for q in asked] + [q.answer for q in asked] + [s.caption for s in SCENES]
    assert {piece for text in texts for piece in pieces(text)} <= set(words)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_asks_and_asks_the_same_again(template):
    asked = question("test", 3, template)
    assert asked.template == template and asked.text[-1] in "?."
    assert question("test", 3, template) == asked


@pytest.mark.parametrize("template", ["existence", "adversarial", "comparison", "relation"])
def test_yes_and_no_are_balanced(template):
    answers = Counter(question("test", i, template).answer for i in range(200))
    assert 0.38 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.62


def test_existence_answers_agree_with_the_objects():
    for template in ("existence", "adversarial"):
        for asked in (question("test", i, template) for i in range(100)):
            wanted = set(pieces(asked.text)) - {"is", "there", "a", "an", "?"}
            there = any(wanted <= {obj.shape, obj.color} for obj in asked.scene.objects)
            assert asked.answer == ("yes" if there else "no")


def test_counting_answers_agree_with_the_objects():
    numbers = ["zero", "one", "two", "three", "four"]
    for asked in (question("test", i, "count") for i in range(200)):
        words = asked.text.split(" are ")[0].split()[2:]
        wanted = {w if w in COLORS else w.removesuffix("s") for w in words} - {"shape"}
        wanted = {"cross" if w in ("crosse",) else w for w in wanted}
        found = [obj for obj in asked.scene.objects if wanted <= {obj.shape, obj.color}]
        assert asked.answer == numbers[len(found)]


def test_relation_answers_agree_with_the_objects():
    for asked in (question("test", i, "relation") for i in range(200)):
        by_shape = {obj.shape: obj for obj in asked.scene.objects}
        relation = next(r for r in ("left of", "right of", "above", "below") if r in asked.text)
        names = [word for word in pieces(asked.text) if word in SHAPES]
        if asked.answer in SHAPES:
            found = [o for o in asked.scene.objects if o.shape == asked.answer]
            assert any(relates(obj, relation, by_shape[names[0]]) for obj in found)
        else:
            there = clearly(by_shape[names[0]], relation, by_shape[names[1]])
            assert asked.answer == ("yes" if there else "no")


def test_what_is_beside_a_shape_is_asked_only_if_the_other_shape_could_be_wrong():
    asked = [question("test", i, "relation") for i in range(200)]
    open_ended = [q for q in asked if q.answer in SHAPES]
    assert 5 < len(open_ended) < 100
    assert all(len({obj.shape for obj in q.scene.objects}) > 2 for q in open_ended)


def test_opposite_relations_exclude_each_other_and_diagonals_hold_both():
    a, b = Obj("star", "red", 20, 20, 30), Obj("ring", "red", 70, 70, 30)
    assert relates(a, "left of", b) and relates(a, "above", b)
    assert not relates(a, "right of", b) and not relates(a, "below", b)
    assert relates(b, "right of", a)
    assert not any(clearly(a, relation, b) for relation in ("left of", "above", "below"))


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"no split named 'tset' \(did you mean 'test'\?\); choose one of train"
    ):
        scene("tset", 0)
    with pytest.raises(ValueError, match=r"the split 'test' has no category 'long'"):
        prompt("test", "long", 0)
    with pytest.raises(ValueError, match=r"no template named 'who'"):
        ask(SCENES[0], "who", generator(0))
    with pytest.raises(ValueError, match=r"no scenes for 'relation'"):
        question("counts", 0, "relation")
