"""Lists of rows in one JSON file, and lists of captions of one image."""

import json

import pytest
from PIL import Image

from janusflow.data import dataset_report, readers
from janusflow.data.preparation import one_caption
from janusflow.data.readers import find, open_data, scan

WORDS = ["a red circle", "a circle", "something red"]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (96, 96), "red").save(tmp_path / name)
    return tmp_path


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_a_json_list_is_read_as_its_rows_in_a_folder_and_alone(folder):
    turns = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a circle"}]
    rows = [
        {"image": "a.png", "caption": "a red circle"},
        {"id": 1, "image": "b.png", "conversations": turns},
        {"id": 2},
        "no row",
    ]
    path = write(folder / "llava.json", rows)
    for found in (scan(folder), scan(path)):
        kinds = {kind: [record.name for record in records] for kind, records in found.sources}
        assert kinds == {
            "generation": [f"{path} entry 1"],
            "understanding": [f"{path} entry 2"],
        }
        told = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        assert "entry 3: no text" in told and "entry 4: it is no JSON object" in told
        assert "without a caption" not in told  # the rows name the images


def test_other_json_is_skipped_by_name(folder):
    (folder / "a.txt").write_text("a red circle")
    write(folder / "a.json", {"caption": "a star"})
    write(folder / "map.json", {"b.png": "a star"})
    (folder / "broken.json").write_text("{")
    told = {name.rsplit("/", 1)[1]: why for name, why in scan(folder).skipped.items()}
    assert "beside an image" in told["a.json"] and "no list of objects" in told["map.json"]
    assert "cannot be read as JSON" in told["broken.json"]
    with pytest.raises(ValueError, match=r"nothing to learn from; JSON that is no list"):
        scan(folder / "map.json")
    with pytest.raises(ValueError, match=r"entry 1: 'mask' names an image"):
        scan(write(folder / "rows.json", [{"image": "a.png", "text": "a", "mask": "b.png"}]))


@pytest.mark.parametrize("key", ["captions", "caption", "text"])
def test_of_several_captions_each_drawing_takes_one(folder, tiny_pipe, key):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"image": "a.png", key: WORDS}) + "\n")
    records = find(path)[0][1]
    assert (records[0].text, records[0].captions) == (WORDS[0], tuple(WORDS))
    drawn = [one_caption(records[0], number).text for number in range(200)]
    assert drawn[0] == WORDS[0] and set(drawn) == set(WORDS)
    assert drawn == [one_caption(records[0], number).text for number in range(200)]
    source = open_data(path, tiny_pipe.processor).sources["generation"].sources[0]
    ids = {tuple(source.read(0, number).input_ids.tolist()) for number in range(50)}
    assert len(ids) == 3


def test_lists_of_captions_count_for_the_fingerprint_of_the_data(folder, tiny_pipe):
    path, found = folder / "rows.jsonl", []
    for words in (WORDS, [WORDS[0], "a star"], WORDS[0]):
        path.write_text(json.dumps({"image": "a.png", "text": words}) + "\n")
        found.append(dataset_report.fingerprint(readers.open_data(path, tiny_pipe.processor)))
    assert len({str(one) for one in found}) == 3


@pytest.mark.parametrize(("words", "why"), [([], "empty list"), (["a", 3, None], "NoneType")])
def test_a_list_that_holds_no_captions_is_a_broken_sample(folder, words, why):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"image": "a.png", "text": words}) + "\n")
    with pytest.raises(ValueError, match=why):
        find(path)[0][1][0]


def test_a_video_with_a_caption_is_no_text(folder):
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({"video": "a.mp4", "text": "a star moves"}) + "\n")
    with pytest.raises(ValueError, match=r"'video' names a video or sound \('a.mp4'\)"):
        scan(path)


def test_a_folder_without_samples_says_what_it_holds(folder):
    with pytest.raises(
        ValueError, match=r"a\.png: an image without a caption.*1 x \.svg: this for"
    ):
        (folder / "v.svg").write_text("<svg/>")
        scan(folder)
