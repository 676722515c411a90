"""Tables of the documents come from docs/results, and these from today's weights."""

import json

import pytest

from checks import results

FILES = sorted(path.stem for path in results.RESULTS.glob("*.json"))


@pytest.mark.parametrize("page", results.PAGES, ids=lambda p: str(p.relative_to(results.ROOT)))
def test_a_page_shows_what_the_files_hold(page):
    text = page.read_text(encoding="utf-8")
    assert results.rendered(text) == text, "run python -m checks.results render"


@pytest.mark.parametrize("name", FILES)
def test_a_file_was_measured_on_todays_weights(name):
    assert results.stale(name) is None


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_its_command(name):
    assert results.load(name)["command"]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    rows = [
        {"quality": "fast", "strict": 0.5, "low": 0.4, "high": 0.6, "evaluations": 12},
        {"quality": "exact", "strict": 0.75, "low": 0.7, "high": 0.8, "evaluations": 60},
    ]
    told = {"command": "janusflow evaluate", "rows": rows, "model": None, "fingerprint": None}
    (tmp_path / "scores.json").write_text(json.dumps(told))
    return told


@pytest.mark.usefixtures("measured")
def test_a_table_and_a_value_are_filled_in():
    page = (
        "<!-- table: scores columns: quality, strict where: quality=fast -->\n"
        "<!-- /table -->\n"
        "It is <!-- value: scores strict where: quality=exact -->?<!-- /value -->."
    )
    shown = results.rendered(page)
    assert "| fast | 0.500 [0.400, 0.600] |" in shown and "`janusflow evaluate`" in shown
    assert "-->0.750 [0.700, 0.800]<!--" in shown
    assert results.rendered(shown) == shown


@pytest.mark.usefixtures("measured")
def test_what_a_file_lacks_is_named():
    with pytest.raises(ValueError, match="no column 'lenient'"):
        results.rendered("<!-- table: scores columns: lenient -->\n<!-- /table -->")
    with pytest.raises(ValueError, match="no results named 'others'"):
        results.rendered("<!-- table: others -->\n<!-- /table -->")


def test_other_weights_make_a_file_stale(measured, tmp_path):
    told = measured | {"model": "janusflow/scenes", "fingerprint": "0" * 16}
    (tmp_path / "scores.json").write_text(json.dumps(told))
    assert "other weights" in results.stale("scores")


def test_another_solver_makes_a_file_stale(measured, tmp_path):
    before = results.suite.probe()
    for probe, told in ((before, None), ([2 * before[0], *before[1:]], "another solver")):
        (tmp_path / "scores.json").write_text(json.dumps(measured | {"probe": probe}))
        found = results.stale("scores")
        assert found is None if told is None else told in found


def test_a_file_of_two_models_depends_on_both():
    one, two = "janusflow/scenes", "janusflow/scenes-few"
    found = {results.fingerprint(name) for name in (one, two, f"{one} + {two}")}
    assert len(found) == 3
