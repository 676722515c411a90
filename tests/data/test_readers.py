"""Data of one's own: what is read from which files, what is refused, and a stage trained on it."""

import io
import json
import pickle
import sys
import tarfile
from functools import partial

import pytest
import torch
from PIL import Image

from janusflow import JanusFlowProcessor
from janusflow.data import prefetch
from janusflow.data.read_options import Data
from janusflow.data.readers import find, open_data
from janusflow.data.sample_files import READERS
from janusflow.data.samples import BrokenSample, take
from janusflow.scenes.world import render, scene
from janusflow.training import checkpoints, job, loop
from janusflow.training.config_stages import STAGES
from janusflow.utils import plugins
from janusflow.utils.hub import locate


@pytest.fixture(scope="module")
def processor():
    return JanusFlowProcessor.from_pretrained(locate("janusflow/scenes"))


@pytest.fixture
def folder(tmp_path):
    """Six captioned images, two conversations, a text."""
    for index in range(6):
        drawn = scene("train", index)
        Image.fromarray(render(drawn.objects)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(drawn.caption, encoding="utf-8")
    asked = {"image": "0.png", "question": "how many shapes are there?", "answer": "two"}
    told = {"image": "1.png", "messages": [{"role": "user", "content": "<image>is there a star?"}]}
    told["messages"] += [{"role": "assistant", "content": "no"}]
    asked["question"] = "<image>" + asked["question"]
    lines = "\n".join(map(json.dumps, [asked, told]))
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "words.txt").write_text("a red circle\n\na blue square", encoding="utf-8")
    return tmp_path


def test_a_folder_is_known_by_what_it_holds(folder, processor):
    found = {kind: len(records) for kind, records in find(folder)}
    assert found == {"understanding": 2, "generation": 6, "text": 2}
    drawn = open_data(folder, processor).draw(0, counts={"generation": 6, "text": 2})
    assert {s.name.rsplit("/")[-1] for s in drawn[:6]} == {f"{i}.png" for i in range(6)}
    assert all(s.pixel_values.shape == (1, 3, 96, 96) for s in drawn[:6])


def test_an_answer_and_its_end_are_what_is_learnt(folder, processor):
    sample = open_data(folder, processor).draw(0, counts={"understanding": 2})[0]
    learnt = sample.labels[sample.labels >= 0]
    text = processor.tokenizer.decode(learnt)
    assert text.strip().startswith(("two", "no")) and learnt[-1] == processor.tokenizer.eos_token_id


def test_parquet_is_read_as_json_is(folder):
    datasets = pytest.importorskip("datasets")
    picture = (folder / "0.png").read_bytes()
    rows = {"image": [{"bytes": picture, "path": None}], "text": ["a red circle"]}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(str(folder / "more.parquet"))
    (kind, records), *_ = find(folder / "more.parquet")
    assert kind == "generation" and records[0].images == (picture,)


def test_a_table_without_rows_is_refused_by_name(folder):
    datasets = pytest.importorskip("datasets")
    empty = datasets.Dataset.from_dict({"image": [], "text": []})
    empty.to_parquet(str(folder / "empty.parquet"))
    with pytest.raises(ValueError, match=r"empty\.parquet has no rows"):
        find(folder / "empty.parquet")


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_one_batch_whatever_their_number(folder, processor, world):
    mixture, counts = open_data(folder, processor), {"generation": 5, "understanding": 1}
    parts = [mixture.draw(3, rank, world, counts) for rank in range(world)]
    names = sorted(s.name for part in parts for s in part)
    assert names == sorted(s.name for s in mixture.draw(3, 0, 1, counts))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no line of JSON"),
        ("[1]", "expected a JSON object"),
        ('{"image": "none.png", "question": "q", "answer": "a"}', "does not exist"),
        ('{"image": "../0.png", "question": "q", "answer": "a"}', "is outside the folder"),
        ('{"image": 7, "question": "q", "answer": "a"}', "expected the name of a file"),
        ('{"image": "words.txt", "question": "q", "answer": "a"}', "not a complete image"),
        ('{"question": "", "answer": "a"}', "empty"),
        ('{"question": "is it red?", "answer": true}', "'answer' is a bool; expected a text"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "no answer"),
        ('{"image": "0.png", "question": "<image> <image>", "answer": "a"}', "1 images"),
    ],
)
def test_a_broken_line_is_named_with_the_reason(folder, processor, line, why):
    good = '{"question": "q", "answer": "a"}'
    (folder / "questions.jsonl").write_text(f"{good}\n{line}\n", encoding="utf-8")
    source = open_data(folder / "questions.jsonl", processor).sources["understanding"].sources[0]
    whole, broken = take(source, [0, 1])
    assert whole.kind == "understanding"
    assert isinstance(broken, BrokenSample) and why in str(broken) and "line 2" in broken.name


def test_broken_samples_are_replaced_up_to_the_limit(folder, processor):
    for index in range(3):
        (folder / f"{index}.png").write_bytes(b"\x89PNG broken")
    (folder / "questions.jsonl").unlink()
    counts = {"generation": 6}
    with pytest.warns(UserWarning, match="another sample stands in"):
        drawn = open_data(folder, processor, limit=3).draw(0, counts=counts)
    assert len(drawn) == 6 and not any(s.name.endswith(("0.png", "1.png", "2.png")) for s in drawn)
    with pytest.raises(ValueError, match="2 are allowed"), pytest.warns(UserWarning):
        open_data(folder, processor, limit=2).draw(0, counts=counts)


def mixed(folder, form, broken=3, good=5):
    """Captioned images of which some are broken, in one of the formats; the options they need."""
    files = [b"\x89PNG broken %d" % i for i in range(broken)]
    for index in range(good):
        file = io.BytesIO()
        Image.fromarray(render(scene("train", index).objects)).save(file, "PNG")
        files.append(file.getvalue())
    folder.mkdir()
    if form in ("parquet", "stream"):
        datasets = pytest.importorskip("datasets")
        rows = {"image": [{"bytes": x, "path": None} for x in files], "text": ["a"] * len(files)}
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        table.to_parquet(str(folder / "x.parquet"))
    for index, content in enumerate(files if form not in ("parquet", "stream") else []):
        (folder / f"{index}.png").write_bytes(content)
        if form != "jsonl":
            (folder / f"{index}.txt").write_text("a red circle")
    if form == "jsonl":
        lines = [json.dumps({"image": f"{i}.png", "text": "a"}) for i in range(len(files))]
        (folder / "x.jsonl").write_text("\n".join(lines))
    elif form == "tar":
        with tarfile.open(folder / "x.tar", "w") as tar:
            for path in sorted(folder.iterdir()):
                if path.suffix != ".tar":
                    tar.add(path, path.name)
                    path.unlink()
    return Data(streaming=form == "stream", buffer=2)


@pytest.mark.parametrize("form", ["folder", "jsonl", "parquet", "stream", "tar"])
def test_every_reader_counts_names_and_skips_what_is_broken_up_to_the_limit(
    tmp_path, processor, form, monkeypatch
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    options, counts = mixed(tmp_path / "data", form), {"generation": 8}
    mixture = open_data(tmp_path / "data", processor, limit=3, options=options)
    with pytest.warns(UserWarning, match="another sample stands in"):
        drawn = mixture.draw(0, counts=counts)
    assert len(drawn) == 8 and len(mixture.tally.broken) == 3
    report = mixture.tally.report().splitlines()
    assert all("not a complete image" in line and str(tmp_path) in line for line in report)
    assert not {s.name for s in drawn} & set(mixture.tally.broken)
    with pytest.raises(ValueError, match="2 are allowed; the last: "), pytest.warns(UserWarning):
        open_data(tmp_path / "data", processor, limit=2, options=options).draw(0, counts=counts)


def test_weights_of_several_paths_say_how_often_each_is_drawn(tmp_path, processor):
    for name, count in (("a", 2), ("b", 6)):
        mixed(tmp_path / name, "folder", broken=0, good=count)
    paths = [tmp_path / "a", tmp_path / "b"]
    drawn = open_data(paths, processor, options=Data(weights=(3, 1)))
    places = [drawn.sources["generation"].locate(i, 0)[0] for i in range(4096)]
    assert places.count(0) == pytest.approx(3 * places.count(1), abs=4)
    with pytest.raises(ValueError, match="1 numbers for 2 --data"):
        open_data(paths, processor, options=Data(weights=(3,)))


def test_a_line_without_end_is_one_broken_sample(tmp_path, processor):
    path = tmp_path / "long.jsonl"
    good = json.dumps({"question": "q", "answer": "a"})
    path.write_bytes(good.encode() + b"\n" + b"x" * (17 * 2**20) + b"\n" + good.encode())
    source = open_data(path, processor).sources["understanding"].sources[0]
    kinds = [type(found).__name__ for found in take(source, range(len(source)))]
    assert kinds == ["Sample", "BrokenSample", "Sample"]


@pytest.mark.parametrize("name", ["nothing", "empty", "code.py"])
def test_what_holds_no_data_is_refused(tmp_path, processor, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "code.py").write_text("x")
    with pytest.raises(ValueError, match=r"--data|no \.jsonl"):
        open_data(tmp_path / name, processor)


@pytest.mark.slow
def test_a_stage_of_the_paper_trains_on_files_and_exports_a_model(folder, tmp_path):
    changes = {"training.steps": 2, "training.batch": 8, "training.warmup": 1, "run.save_every": 1}
    plan = job.of_stage(3, "janusflow/scenes", folder, tmp_path / "run", changes)
    assert plan.settings.training.mixture == STAGES["3"].mixture
    said = plan.describe()
    assert "vision_encoder" in said and "8: " in said and "steps       2" in said
    plan.run()
    assert checkpoints.complete(tmp_path / "run")[0] == 2
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"flow", "alignment", "next_token"} <= json.loads(lines[-1]).keys()
    loop.export(tmp_path / "run", tmp_path / "model", torch.float32)
    assert (tmp_path / "model" / "vae").is_dir()


def test_a_stage_without_its_data_says_what_is_missing(folder, tmp_path):
    with pytest.raises(ValueError, match="--data"):
        job.of_stage(1, "janusflow/scenes", None, tmp_path)
    with pytest.raises(ValueError, match="the stage trains on"):
        job.of_stage(1, "janusflow/scenes", folder / "words.txt", tmp_path)


PLUGIN = """
from janusflow.data.readers import reader
from janusflow.data.records import Record


class Phrases:
    def __init__(self, path):
        self.rows = path.read_text().splitlines()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return Record(name=str(index), text=self.rows[index])


@reader(".phrases")
def phrases(path):
    return [("text", Phrases(path))]
"""


def test_a_loader_process_knows_the_readers_of_plugins(tmp_path, processor, monkeypatch):
    (tmp_path / "my_phrases.py").write_text(PLUGIN)
    (tmp_path / "x.phrases").write_text("a star\na ring")
    monkeypatch.setattr(plugins, "LOADED", [])
    plugins.load_one(str(tmp_path / "my_phrases.py"))
    try:
        mixture = open_data(tmp_path / "x.phrases", processor)
        packed = pickle.dumps(prefetch._Steps(partial(mixture.draw, counts={"text": 2})))
        here = mixture.draw(0, counts={"text": 2})
        del sys.modules["my_phrases"]  # as a process that has just begun
        there = pickle.loads(packed)[0]
    finally:
        sys.modules.pop("my_phrases", None)
        READERS.pop(".phrases", None)
    assert [s.input_ids.tolist() for s in there] == [s.input_ids.tolist() for s in here]
