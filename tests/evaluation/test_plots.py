"""Figures are returned, drawn into given axes, and hold the numbers they were given."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from janusflow.evaluation import plots

NOISE = np.random.default_rng(0)
PICTURES = [Image.fromarray(NOISE.integers(0, 255, (6, 8, 3), dtype=np.uint8)) for _ in range(6)]
SCORES = {
    "strict": {"colour": (0.5, 0.4, 0.6), "count": (0.2, 0.2, 0.3)},
    "lenient": {"count": (0.4, 0.1, 0.6)},
}
DRAW = {
    "images": lambda **k: plots.images(PICTURES, ["a"] * 6, **k),
    "strip": lambda **k: plots.strip({"x": PICTURES[:3], "y": PICTURES[3:]}, (0, 0.5, 1), **k),
    "work_precision": lambda **k: plots.work_precision({"e": ((2, 4), (1, 0.5))}, 0.1, **k),
    "bars": lambda **k: plots.bars(SCORES, **k),
    "curves": lambda **k: plots.curves({"a": ((1, 2), (0.1, 0.2))}, "block", "CKNNA", **k),
    "by_depth": lambda **k: plots.by_depth({"a": (0.1, 0.2), "b": [(0.1, 0, 1)] * 2}, **k),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_of_its_own_needs_no_screen_and_can_be_saved(name, tmp_path):
    figure = DRAW[name]()
    figure.savefig(tmp_path / "figure.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "figure.png")))) > 2
    assert "matplotlib.pyplot" not in sys.modules or getattr(figure, "number", None) is None


@pytest.mark.parametrize("name", DRAW)
def test_given_axes_are_drawn_into_and_their_figure_comes_back(name):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert DRAW[name](axes=right) is figure
    assert right.has_data() and not left.has_data()


def test_pictures_keep_their_order_and_pixels():
    axes = plots.images(PICTURES, columns=4).axes[0]
    drawn = {tuple(image.get_extent()[::3]): image.get_array() for image in axes.get_images()}
    places = sorted(drawn, key=lambda place: (place[1], place[0]))
    for place, picture in zip(places, PICTURES, strict=True):
        assert (drawn[place] == np.asarray(picture)).all()


def test_bars_reach_from_the_interval_to_the_score():
    axes = plots.bars(SCORES).axes[0]
    heights = [bar.get_height() for bar in axes.containers[1]]
    assert heights == pytest.approx([0.5, 0.2])
    ends = axes.containers[0].lines[2][0].get_segments()
    assert [end[:, 1].tolist() for end in ends] == [
        pytest.approx([0.4, 0.6]),
        pytest.approx([0.2, 0.3]),
    ]


MISTAKES = {
    "no images": (lambda: plots.images([]), "no images to draw"),
    "captions": (lambda: plots.images(PICTURES, ["a"]), "1 captions came where 6"),
    "times": (lambda: plots.strip({"x": PICTURES}, (0, 1)), "6 images of 'x' came where 2"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gets_one_sentence(case):
    call, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_row_of_short_captions_takes_less_height_than_one_of_long_ones():
    long = "a red circle left of a blue square"
    axes = plots.images(PICTURES[:4], ["a", "b", "c", long], columns=2).axes[0]
    tops = sorted({image.get_extent()[3] for image in axes.get_images()})
    assert tops[0] == pytest.approx(plots.LINE) and tops[1] - tops[0] > 0.75 + 2 * plots.LINE


@pytest.mark.parametrize("draw", ["work_precision", "curves"])
def test_every_line_looks_different_however_many_there_are(draw):
    lines = {str(i): ((2, 4), (1, 0.5)) for i in range(9)}
    words = () if draw == "work_precision" else ("x", "y")
    drawn = getattr(plots, draw)(lines, *words).axes[0].get_lines()
    looks = {(one.get_color(), one.get_marker(), one.get_linestyle()) for one in drawn}
    assert len(looks) == len(lines)
    assert len({one.get_marker() for one in drawn[:7]}) == 7, "lines differ without colours too"
