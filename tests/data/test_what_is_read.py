"""Data that says what it read: every row its own kind, everything left out with its reason."""

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.data import dataset_report, folders
from janusflow.data.documents import image_of
from janusflow.data.mixture import Mixture
from janusflow.data.preparation import Prepared
from janusflow.data.read_options import Data
from janusflow.data.readers import find, open_data, scan
from janusflow.data.records import to_record
from janusflow.data.rows import kind_of
from janusflow.data.sample_files import READERS, fetch
from janusflow.data.samples import BrokenSample, Sample


@pytest.fixture(autouse=True)
def without_the_readers_of_other_tests(monkeypatch):
    for suffix in list(READERS):
        monkeypatch.delitem(READERS, suffix)


def picture(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path)
    return path


def lines(path: Path, *rows) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def kinds(path, **options) -> dict[str, int]:
    found = find(path, Data(**options))
    return {kind: sum(len(r) for k, r in found if k == kind) for kind, _ in found}


@pytest.mark.parametrize(
    "key",
    ["image", "image_path", "img", "path", "filename", "file", "image_url", "file_name", "url"],
)
def test_a_picture_is_found_under_the_keys_that_people_use(tmp_path, key):
    picture(tmp_path / "a.png")
    path = lines(tmp_path / "x.jsonl", {key: "a.png", "caption": "a red square"})
    ((kind, records),) = find(path)
    assert kind == "generation" and records[0].text == "a red square"
    assert records[0].images == ((tmp_path / "a.png").read_bytes(),)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "'chosen' is not read"),
        ({"prompt": "p", "completion": "c"}, "'completion' is not read"),
        ({"target_file": "a.png", "caption": "c"}, "'target_file' names an image"),
        ({"image": "a.png", "mask": "m.png", "caption": "c"}, "'mask' names an image"),
        ({"image_base64": "iVBO", "caption": "c"}, "'image_base64' looks like an image"),
        ({"url": "https://x.org/a.jpg", "caption": "c"}, "on the web"),
        ({"image_id": 7, "caption": "c"}, "'image_id' looks like an image"),
        ({"Image": "a.png", "Caption": "c"}, "'Image' names an image"),
        ({"path": "a", "caption": "c"}, "'path' of a caption"),
        ({"messages": [{"role": "user", "content": "a"}], "system": "b"}, "the role 'system'"),
        ({"blob": {"bytes": None, "path": "a"}, "text": "c"}, "'blob' holds a file"),
    ],
)
def test_a_key_that_seems_to_name_a_file_is_refused_by_name(tmp_path, row, says):
    path = lines(tmp_path / "x.jsonl", {"text": "fine"}, row)
    with pytest.raises(ValueError, match=says) as caught:
        find(path)
    assert "x.jsonl line 2" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a page", "url": "https://x.org/page", "timestamp": "2020", "id": 3},
        {"text": "print()", "path": "src/a.py"},
        {"text": "words", "image": None},
    ],
)
def test_what_only_says_where_a_text_is_from_is_passed_over(row):
    assert kind_of(row) == "text"


def test_a_key_may_be_passed_over_by_name(tmp_path):
    row = {"image": "a.png", "mask": "m.png", "caption": "c"}
    assert kinds(lines(tmp_path / "x.jsonl", row), ignore=("mask",)) == {"generation": 1}


TWICE = {
    "text": {"image": "a.png", "text": "a red square", "caption": "a blue square"},
    "captions": {"image": "a.png", "text": "a red square", "captions": ["one", "two"]},
    "words": {"text": "one", "prompt": "two"},
    "edit": {"source": "a.png", "target": "a.png", "edit": "redder", "instruction": "bluer"},
    "image": {"image": "a.png", "image_path": "b.png", "text": "a red square"},
    "talk": {"question": "what?", "answer": "red", "messages": [{"role": "user", "content": "a"}]},
}


@pytest.mark.parametrize("row", TWICE.values(), ids=TWICE)
def test_two_texts_or_images_of_which_one_is_learnt_are_refused_by_name(tmp_path, row):
    with pytest.raises(
        ValueError, match=r"x.jsonl line 1: '\w+' and '\w+' hold different \w+s, and"
    ):
        find(lines(tmp_path / "x.jsonl", row))


def test_what_is_ignored_leaves_the_other_of_two_texts(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {"text": "one", "caption": "two"}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps([row]))
    paths = lines(tmp_path / "x.jsonl", row), tmp_path / "x.json", tmp_path / "x.parquet"
    for path in paths:
        for ignored, left in (("text", "two"), ("caption", "one")):
            ((_, records),) = find(path, Data(ignore=(ignored,)))
            assert records[0].text == left
    ((_, records),) = find(lines(tmp_path / "y.jsonl", {"text": " ", "caption": "two"}))
    assert records[0].text == "two"
    same = {"text": "one", "caption": "one", "image": "a.png", "image_path": "below/a.png"}
    assert kind_of(same) == "generation"


def test_a_tar_s_two_texts_are_refused_and_its_text_file_counts_before_its_json(tmp_path):
    def packed(*files) -> Path:
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for name, content in files:
                (tmp_path / name).write_bytes(content)
                tar.add(tmp_path / name, name)
        return tmp_path / "x.tar"

    image = ("0.png", picture(tmp_path / "a.png").read_bytes())
    two = packed(image, ("0.txt", b"one"), ("0.caption", b"two"))
    with pytest.raises(ValueError, match=r"0\.png: it has two texts, \.txt and \.caption"):
        find(two)
    ((_, records),) = find(two, Data(ignore=("txt",)))
    assert records[0].text == "two"
    told = packed(image, ("0.txt", b"one"), ("0.json", b'{"caption": "two"}'))
    ((kind, records),) = find(told)
    assert kind == "generation" and records[0].text == "one"


def test_every_line_of_a_mixed_file_is_its_own_kind(tmp_path):
    picture(tmp_path / "a.png")
    path = lines(
        tmp_path / "x.jsonl",
        {"text": "only words"},
        {"image": "a.png", "text": "a red square"},
        {"question": "what is 2 + 2?", "answer": 4},
        {"img_path": "a.png", "text": "a square"},
    )
    found = dict(find(path))
    assert {k: len(r) for k, r in found.items()} == {
        "text": 1,
        "generation": 2,
        "understanding": 1,
    }
    assert found["generation"][1].name.endswith("line 4")
    assert found["understanding"][0].messages[1]["content"] == "4"


def test_every_row_of_a_mixed_table_is_its_own_kind(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = picture(tmp_path / "p" / "a.png").read_bytes()
    table = {"image": [content, None, content], "text": ["one", "two", "three"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    found = dict(find(tmp_path / "x.parquet"))
    assert {k: len(r) for k, r in found.items()} == {"generation": 2, "text": 1}
    assert found["generation"][1].text == "three" and found["text"][0].text == "two"
    bad = {"image_b64": ["x"], "caption": ["c"]}
    parquet.write_table(pyarrow.table(bad), tmp_path / "y.parquet")
    with pytest.raises(ValueError, match=r"y\.parquet row 1: 'image_b64'"):
        find(tmp_path / "y.parquet")


def test_messages_may_be_lists_of_parts(tmp_path):
    picture(tmp_path / "a.png")
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what is it?"}]
    said = {"role": "assistant", "content": [{"type": "text", "text": "a square"}]}
    path = lines(tmp_path / "x.jsonl", {"messages": [{"role": "user", "content": parts}, said]})
    ((kind, records),) = find(path)
    record = records[0]
    assert kind == "understanding" and len(record.images) == 1
    assert [m["content"] for m in record.messages] == ["<image>\nwhat is it?", "a square"]


def test_a_message_s_own_images_are_read(tmp_path):
    picture(tmp_path / "a.png")
    for key, value in (("images", ["a.png"]), ("image", "a.png"), ("path", "a.png")):
        asked = {"role": "User", "content": "what?", key: value}
        path = lines(tmp_path / "x.jsonl", {"messages": [asked, {"role": "A", "content": "red"}]})
        ((kind, records),) = find(path)
        record = records[0]
        assert kind == "understanding" and len(record.images) == 1
        assert record.messages[0]["content"] == "<image>\nwhat?"


def test_a_picture_that_no_message_places_stands_first(tmp_path):
    picture(tmp_path / "a.png")
    row = {"image": "a.png", "question": "what is it?", "answer": "a square"}
    record = find(lines(tmp_path / "x.jsonl", row))[0][1][0]
    assert record.messages[0]["content"] == "<image>\nwhat is it?"


def test_what_a_folder_holds_beside_its_samples_is_named_and_not_learnt(tmp_path):
    for name in ("a", "b", "kohya"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("a red square")
    (tmp_path / "kohya.caption").write_text("another")
    (tmp_path / "README.txt").write_text("about this folder\n\nin two paragraphs")
    (tmp_path / "c.avif").write_bytes(b"?")
    (tmp_path / "c.txt").write_text("a caption of an unread format")
    (tmp_path / "d.txt").write_text("a caption whose image is gone")
    (tmp_path / "table.csv").write_text("x")
    found = scan(tmp_path)
    assert {kind: len(records) for kind, records in found.sources} == {"generation": 2}
    why = {Path(name).name: reason for name, reason in found.skipped.items()}
    assert "without a caption" in why["b.png"] and "about the folder" in why["README.txt"]
    assert "c.avif" in why["c.txt"] and "without its image" in why["d.txt"]
    assert {"1 x .csv", "1 x .avif"} <= why.keys()


def test_pictures_that_a_file_of_lines_names_are_not_missed(tmp_path):
    picture(tmp_path / "in" / "a.png")
    lines(tmp_path / "metadata.jsonl", {"file_name": "in/a.png", "text": "a red square"})
    assert not scan(tmp_path).skipped


def test_a_runs_own_folder_is_no_data(tmp_path):
    picture(tmp_path / "a.png").with_suffix(".txt").write_text("a red square")
    for name in ("old", "new"):
        picture(tmp_path / name / "samples" / "step-1.png")
        (tmp_path / name / "log.jsonl").write_text('{"step": 1}')
    (tmp_path / "old" / "settings.yaml").write_text("training: {}")
    found = scan(tmp_path, exclude=[tmp_path / "new"])
    assert [kind for kind, _ in found.sources] == ["generation"]
    assert list(found.skipped.values()) == ["the folder of a run"]
    for name in ("log.jsonl", "evaluations.jsonl"):
        (tmp_path / name).write_text('{"step": 1}')
    (tmp_path / "settings.yaml").write_text("training: {}")  # a run in the data's own folder
    assert [kind for kind, _ in scan(tmp_path, exclude=[tmp_path / "new"]).sources] == [
        "generation"
    ]


def test_an_empty_name_is_a_broken_picture_and_no_text(tmp_path):
    ((kind, records),) = find(lines(tmp_path / "x.jsonl", {"image": "", "text": "a red square"}))
    assert kind == "generation"
    with pytest.raises(BrokenSample, match="an image is ''"):
        records[0]


def test_the_start_says_how_many_of_which_kind_and_shows_one(tmp_path):
    picture(tmp_path / "a.png").with_suffix(".txt").write_text("a red square")
    lines(tmp_path / "x.jsonl", {"question": "q", "answer": "a"})
    picture(tmp_path / "bare.png")
    assert "1 generation, as" in (said := dataset_report.describe(mixture(tmp_path)))
    assert "'a red square'" in said and "1 understanding" in said and "skipped" in said


def mixture(path) -> Mixture:
    found = scan(path)
    sources = {kind: Prepared(records, kind, None) for kind, records in found.sources}
    return Mixture(sources, skipped=found.skipped)


def test_the_fingerprint_is_of_what_is_used(tmp_path):
    one = tmp_path / "one"
    picture(one / "a.png").with_suffix(".txt").write_text("a red square")
    before = dataset_report.fingerprint(mixture(one))
    (one / "README.txt").write_text("a note")
    one.rename(tmp_path / "two")
    assert dataset_report.fingerprint(mixture(tmp_path / "two")) == before
    picture(tmp_path / "two" / "a.png", "blue")
    now = dataset_report.fingerprint(mixture(tmp_path / "two"))
    assert "another content" in dataset_report.first_difference(now, before)
    picture(tmp_path / "two" / "b.png").with_suffix(".txt").write_text("more")
    now = dataset_report.fingerprint(mixture(tmp_path / "two"))
    assert dataset_report.first_difference(now, before) == "1 generation samples then, 2 now"


def test_a_disk_that_fails_on_one_picture_breaks_that_one_alone(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    path.with_suffix(".txt").write_text("a red square")

    def fails(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(ValueError, match="Input/output error"):
        fetch(tmp_path, "a.png")
    with pytest.raises(BrokenSample, match="Input/output error"):
        folders.Captioned((path,))[0]


def test_a_pass_over_shares_that_are_no_whole_numbers_shows_everything_once():
    from janusflow.training.config import changed, of_stage

    changes = {"training.batch": 7, "training.mixture": {"generation": 70, "text": 9}}
    schedule = changed(of_stage("3"), changes).schedule
    seen: list[int] = []
    for step in range(200):
        start = schedule.start(step).get("generation", 0)
        count = schedule.counts(step)["generation"]
        seen += range(start, start + count)
    assert seen == list(range(len(seen)))


SIZES = {
    "dot": (1, 1),
    "strip": (4000, 1),
    "icon": (32, 32),
    "banner": (960, 200),
    "fine": (96, 96),
}


def test_images_that_are_too_small_enlarged_or_cropped_are_counted_and_the_first_are_broken(
    tmp_path, tiny_pipe
):
    for name, size in SIZES.items():
        path = picture(tmp_path / f"{name}.png")
        Image.new("RGB", size).save(path)
        path.with_suffix(".txt").write_text("a red square")
    opened = open_data(tmp_path, tiny_pipe.processor)
    said = dataset_report.describe(opened)
    for count, what, name in (
        (2, "have a side of fewer than 8 pixels and are skipped", "(dot.png, 1 x 1|strip.png)"),
        (1, "are enlarged to 96 x 96", "icon.png, 32 x 32"),
        (1, "are cropped to less than half of their area", "banner.png, 960 x 200"),
    ):
        assert re.search(f"{count} of 5 images looked at {what}[^\\n]*as [^\\n]*{name}", said)
    (source,) = opened.sources["generation"].sources
    names = {}
    for found in source.many(range(5), [0] * 5):
        names[Path(found.name).stem] = str(found)
    assert "its image is 1 x 1; each side needs at least 8 pixels (data.min_side)" in names["dot"]
    assert "its image is 4000 x 1" in names["strip"] and "its image" not in names["icon"]
    every = open_data(tmp_path, tiny_pipe.processor, options=Data(min_side=1))
    taken = every.sources["generation"].sources[0].many(range(5), [0] * 5)
    assert all(isinstance(one, Sample) for one in taken)
    with pytest.raises(ValueError, match=r"data.min_side is 0; expected at least 1"):
        Data(min_side=0)


def test_a_text_that_holds_an_images_tag_is_no_text_to_learn(tmp_path, tiny_pipe):
    path = lines(tmp_path / "x.jsonl", {"text": "<image_placeholder> a star"}, {"text": "fine"})
    (source,) = open_data(path, tiny_pipe.processor).sources["text"].sources
    broken, whole = source.many(range(2), [0, 0])
    assert "which stands for an image" in str(broken) and isinstance(whole, Sample)


def test_a_row_that_has_a_key_twice_is_broken(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{"text": "a", "text": "b"}\n')
    ((_, records),) = find(path)
    with pytest.raises(BrokenSample, match="it has the key 'text' twice"):
        [records[i] for i in range(2)]


@pytest.mark.parametrize("text", [float("nan"), True])
def test_a_missing_number_and_a_truth_value_are_no_text_to_learn(text):
    with pytest.raises(BrokenSample, match=r"'text' is (nan|a bool); expected a text"):
        to_record({"text": text}, "text", "row 1", fetch)


def test_the_image_of_a_part_may_be_an_array_and_empty_keys_are_passed_over():
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    assert image_of({"type": "image", "image": pixels}) is pixels
    assert image_of({"image": None, "image_url": {}, "path": "", "url": "a.png"}) == "a.png"
    assert image_of({"type": "image", "image": b""}) is None
