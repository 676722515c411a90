"""Links in a folder of data are followed, and an image's text counts once."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.data import dataset_report
from janusflow.data.mixture import Mixture
from janusflow.data.preparation import Prepared
from janusflow.data.readers import fetch, scan
from janusflow.utils import images


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, "PNG")
    return path


def captioned(path: Path, text: str = "a caption") -> Path:
    image(path).with_suffix(".txt").write_text(text)
    return path


def rows(path: Path, *given: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def counts(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind, records in scan(folder).sources:
        found[kind] = found.get(kind, 0) + sum(1 for i in range(len(records)) if records[i])
    return found


@pytest.fixture
def cached(tmp_path):
    """A folder as the hub's cache holds it: every file is a link to a blob elsewhere."""
    blobs, shown = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    shown.mkdir(parents=True)
    image(blobs / "one")
    rows(blobs / "two", {"file_name": "a.png", "text": "a red square"})
    (blobs / "three").write_text("a caption")
    links = {"a.png": "one", "metadata.jsonl": "two", "b.png": "one", "b.txt": "three"}
    for name, blob in links.items():
        (shown / name).symlink_to(Path("..", "..", "blobs", blob))
    return shown


def test_a_snapshot_of_the_hubs_cache_is_a_data_folder(cached):
    assert counts(cached) == {"generation": 2} and not scan(cached).skipped


def test_a_parquet_file_may_name_linked_images(cached):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (cached / "metadata.jsonl").unlink()
    table = pyarrow.table({"image": ["a.png"], "text": ["a red square"]})
    parquet.write_table(table, cached / "x.parquet")
    assert counts(cached) == {"generation": 2}


@pytest.mark.parametrize("name", ["../out.png", "in/../../out.png", "{out}", "link/../../out.png"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    image(tmp_path / "out.png")
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside the folder of the data"):
        fetch(tmp_path / "data", name.format(out=tmp_path / "out.png"))


def test_a_name_is_read_as_it_is_written_and_not_through_a_link(tmp_path):
    image(tmp_path / "far" / "away" / "a.png")
    image(tmp_path / "data" / "b.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "far" / "away")
    assert fetch(tmp_path / "data", "link/a.png") == fetch(tmp_path / "data", "link/../b.png")
    assert fetch(tmp_path / "data", str(tmp_path / "data" / "b.png"))


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    captioned(tmp_path / "far" / "a.png")
    (tmp_path / "far" / "up").symlink_to(tmp_path / "far")
    data = tmp_path / "data"
    captioned(data / "own" / "b.png")
    for name, target in {"far": tmp_path / "far", "again": tmp_path / "far", "x": data}.items():
        (data / name).symlink_to(target)
    (data / "own" / "same").symlink_to(data / "own")
    assert counts(data) == {"generation": 2}


def test_a_link_to_nothing_is_told(tmp_path):
    captioned(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert scan(tmp_path).skipped == {str(tmp_path / "b.png"): "a link that leads to nothing"}


NAMES = ["jsonl", "json", "parquet"]


def metadata(folder: Path, form: str, row: dict) -> None:
    if form == "jsonl":
        rows(folder / "metadata.jsonl", row)
    elif form == "json":
        (folder / "metadata.json").write_text(json.dumps([row]))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.table({key: [value] for key, value in row.items()})
        parquet.write_table(table, folder / "metadata.parquet")


@pytest.mark.parametrize("form", NAMES)
def test_an_image_with_a_row_and_a_caption_counts_once_by_its_row(tmp_path, form):
    captioned(tmp_path / "a.png")
    captioned(tmp_path / "b.png", "another")
    metadata(tmp_path, form, {"file_name": "./a.png", "text": "the row's text"})
    found = scan(tmp_path)
    texts = {records[i].text for _, records in found.sources for i in range(len(records))}
    assert texts == {"the row's text", "another"} and counts(tmp_path) == {"generation": 2}
    why = {str(tmp_path / "a.txt"): "a caption of an image whose text is in a row of another file"}
    assert found.skipped == why
    sources = {kind: Prepared(records, kind, None) for kind, records in found.sources}
    told = dataset_report.describe(Mixture(sources, skipped=found.skipped))
    assert f"skipped {tmp_path / 'a.txt'}: a caption of an image" in told


def test_a_question_about_an_image_leaves_its_caption(tmp_path):
    captioned(tmp_path / "a.png")
    rows(tmp_path / "x.jsonl", {"image": "a.png", "question": "what?", "answer": "a square"})
    assert counts(tmp_path) == {"generation": 1, "understanding": 1}


def test_of_two_caption_files_the_first_counts_and_the_second_is_told(tmp_path):
    captioned(tmp_path / "a.png", "the first")
    (tmp_path / "a.caption").write_text("the second")
    found = scan(tmp_path)
    assert found.sources[0][1][0].text == "the first"
    assert found.skipped == {str(tmp_path / "a.caption"): "a second caption; a.txt counts"}


@pytest.mark.parametrize("turned", [False, True])
def test_a_text_file_of_a_shard_counts_before_its_json_in_any_order(tmp_path, turned):
    content = image(tmp_path / "a.png").read_bytes()
    members = [
        ("0.json", b'{"text": "of the json"}'),
        ("0.png", content),
        ("0.txt", b"of the text"),
    ]
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, found in reversed(members) if turned else members:
            member = tarfile.TarInfo(name)
            member.size = len(found)
            tar.addfile(member, io.BytesIO(found))
    ((_, records),) = scan(tmp_path / "x.tar").sources
    assert records[0].text == "of the text"


def test_why_a_caption_or_image_is_not_read_is_one_reason(tmp_path):
    captioned(tmp_path / "a.png", "a\0b")
    captioned(tmp_path / "b.png", " ")
    ((_, records),) = scan(tmp_path).sources
    with pytest.raises(ValueError, match="'text' holds a NUL character; remove it"):
        records[0]
    with pytest.raises(ValueError, match="'text' is empty; write some text"):
        records[1]
    Image.fromarray(np.full((8, 8), 70000, np.int32)).save(tmp_path / "c.tif")
    with pytest.raises(
        ValueError, match=r"c\.tif' cannot be used: the image's values run from 700"
    ):
        images.read(tmp_path / "c.tif")
