"""Notebooks are kept with their outputs, and beside each a script with the same cells."""

import json
import re
import sys
from pathlib import Path

import pytest

from checks import notebooks

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 1_500_000

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of_notebook(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def cells_of_script(path: Path) -> list[tuple[str, str]]:
    """(kind, text) of each cell in jupytext's percent format."""
    parts = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    cells = []
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        if title.strip() == "[markdown]":
            cells.append(("markdown", re.sub(r"^# ?", "", text, flags=re.MULTILINE).strip()))
        else:
            cells.append(("code", text.strip()))
    return cells


def code(path: Path) -> list[dict]:
    return [cell for cell in cells_of_notebook(path) if cell["cell_type"] == "code"]


def kinds(cell: dict) -> set[str]:
    """Sorts of output: the streams' names, "error", and the media types of what was displayed."""
    outputs = cell["outputs"]
    return {name for o in outputs for name in o.get("data", [o.get("name", o["output_type"])])}


NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
NOT_COMPUTED = re.compile(r"95 % (intervals|bands)|et al\. \d{4}")


def numbers(text: str) -> set[str]:
    return set(NUMBER.findall(NOT_COMPUTED.sub("", text)))


def test_every_notebook_has_a_script_and_every_script_a_notebook():
    assert NOTEBOOKS
    assert {p.stem for p in NOTEBOOKS} == {p.stem for p in FOLDER.glob("*.py")}


@each
def test_notebook_and_script_hold_the_same_cells(path):
    cells = [(c["cell_type"], "".join(c["source"]).strip()) for c in cells_of_notebook(path)]
    assert cells == cells_of_script(path.with_suffix(".py"))


@each
def test_the_stored_run_went_from_top_to_bottom_without_an_error(path):
    cells = code(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(kinds(cell) & {"error", "stderr"} for cell in cells)


@each
def test_whatever_is_drawn_or_printed_is_stored(path):
    for cell in code(path):
        if notebooks.NOT_STORED in cell["metadata"].get("tags", []):
            assert not cell["outputs"]
            continue
        source = "".join(cell["source"])
        shows = "plt.show()" in source or "display(" in source
        assert ("image/png" in kinds(cell)) == shows
        assert ("stdout" in kinds(cell)) == bool(re.search(r"^print\(", source, re.MULTILINE))
    assert path.stat().st_size < MAX_BYTES


@each
def test_a_number_in_the_text_is_set_or_printed_by_the_code(path):
    known = "".join("".join(cell["source"]) for cell in code(path))
    outputs = [output for cell in code(path) for output in cell["outputs"]]
    known += "".join("".join(output.get("text", "")) for output in outputs)
    for cell in cells_of_notebook(path):
        if cell["cell_type"] == "markdown":
            assert not numbers("".join(cell["source"])) - numbers(known)


@each
def test_another_model_is_one_line(path):
    script = path.with_suffix(".py")
    changed = "".join(cell.source for cell in notebooks.read(script, "other/model").cells)
    assert "'other/model'" in changed and '"janusflow/scenes"' not in changed


@each
def test_the_question_stands_first_and_the_answer_last(path):
    first, *_, title, last = cells_of_notebook(path)
    assert "**Question.**" in "".join(first["source"])
    assert "The answer" in "".join(title["source"])
    assert re.search(r"\d", "".join(last["outputs"][0]["text"]))


def test_the_page_of_janus_pro_shows_the_table_that_notebook_7_stored():
    page = (FOLDER.parent / "docs" / "janus-pro.md").read_text(encoding="utf-8")
    outputs = [
        o for cell in code(FOLDER / "07_autoregressive_against_flow.ipynb") for o in cell["outputs"]
    ]
    printed = ["".join(o["text"]).splitlines() for o in outputs if "text" in o]
    rows = next(lines[1:] for lines in printed if "parameters" in lines[0])
    for row in rows:
        assert "| " + " | ".join(re.split(r" {2,}", row.strip())) + " |" in page


def test_a_notebook_that_fails_fails_the_run(tmp_path, monkeypatch, capfd):
    for name, line in (("01_good", "1 + 1"), ("02_bad", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(f"# %%\n{line}\n")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebooks", "--jobs", "2"])
    with pytest.raises(SystemExit, match=r"failed: 02_bad$"):
        notebooks.main()
    out = capfd.readouterr().out
    assert "ZeroDivisionError" in out and "01_good: " in out and "02_bad: " in out
