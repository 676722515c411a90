"""Tar shards and streams: what is read from them, in which order, and what is refused."""

import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from janusflow import JanusFlowProcessor
from janusflow.data.mixture import Blend
from janusflow.data.permutation import permuted
from janusflow.data.readers import find, open_data, scan
from janusflow.data.samples import BrokenSample, take
from janusflow.data.shards import Shards, index, open_shards
from janusflow.data.tar_index import members
from janusflow.scenes.world import render, scene
from janusflow.training import checkpoints, job
from janusflow.utils.hub import locate


@pytest.fixture(scope="module")
def processor():
    return JanusFlowProcessor.from_pretrained(locate("janusflow/scenes"))


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(render(scene("train", number).objects)).save(file, "PNG")
    return file.getvalue()


def shard(path, files, form=tarfile.PAX_FORMAT):
    """A tar of (name, content) pairs; a content may be a TarInfo that replaces the whole header."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            content = b"" if info is content else content
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pair(number: int, folder: str = "") -> list[tuple[str, bytes]]:
    caption = scene("train", number).caption.encode()
    return [(f"{folder}{number}.png", png(number)), (f"{folder}{number}.txt", caption)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "a/b.c/", f"{'d' * 90}/{'e' * 90}/", f"{'ü' * 120}/"])
def test_members_are_those_that_tarfile_finds(tmp_path, form, folder):
    if form == tarfile.USTAR_FORMAT and len(folder.encode()) > 200:
        folder = ""  # which that format cannot name
    files = [(f"{folder}{i}.txt", bytes([i]) * size) for i, size in enumerate((0, 1, 512, 1000))]
    path = shard(tmp_path / "x.tar", files, form)
    with open(path, "rb") as file:
        ours = list(members(file, path.stat().st_size))
        found = [(m.name, file.seek(m.start) and file.read(m.size)) for m in ours]
    assert found == files and not any(m.fault for m in ours)


def test_neighbours_with_one_key_are_a_sample(tmp_path, processor):
    told = {"caption": "a red circle", "image": "/etc/passwd"}
    asked = {"question": "<image><image>is there a star?", "answer": "no"}
    pictures = [
        *pair(0),
        *pair(1, "deep/"),
        ("2.png", png(2)),
        ("2.json", json.dumps(told).encode()),
    ]
    questions = [("q.0.png", png(3)), ("q.1.png", png(4)), ("q.json", json.dumps(asked).encode())]
    words = [("w.txt", b"a blue square"), ("README", b"of no sample")]
    for name, files in (("a", pictures), ("b", questions), ("c", words)):
        shard(tmp_path / f"{name}.tar", files)
    found = {kind: records for kind, records in find(tmp_path)}
    assert {k: len(r) for k, r in found.items()} == {"generation": 3, "understanding": 1, "text": 1}
    assert found["generation"][2].text == "a red circle"
    assert found["generation"][2].images == (png(2),)
    assert found["understanding"][0].images == (png(3), png(4))
    sample = open_data(tmp_path, processor).draw(0, counts={"understanding": 1})[0]
    assert sample.pixel_values.shape[0] == 2


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shards_are_read_in_an_order_of_seed_and_step(tmp_path, processor, world):
    for number in range(3):
        shard(tmp_path / f"{number}.tar", [f for i in range(4) for f in pair(4 * number + i)])
    counts = {"generation": 6}

    def names(step, ranks, seed=0):
        mixture = open_data(tmp_path, processor, seed=seed)
        return [s.name for r in range(ranks) for s in mixture.draw(step, r, ranks, counts)]

    assert names(1, world) == names(1, 1) != names(0, 1)
    assert sorted(names(0, world) + names(1, world)) == sorted({*names(0, 1), *names(1, 1)})
    assert len({*names(0, 1), *names(1, 1)}) == 12 and names(0, 1, seed=1) != names(0, 1)


def link(name, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([("../1.png", png(1)), ("../1.txt", b"x")], "leads out of the archive"),
        ([("/1.png", png(1)), ("/1.txt", b"x")], "leads out of the archive"),
        ([("a/../../1.png", png(1)), ("a/../../1.txt", b"x")], "leads out of the archive"),
        ([("1.png", link("1.png", tarfile.SYMTYPE)), ("1.txt", b"x")], "a link"),
        ([("1.png", link("1.png", tarfile.LNKTYPE)), ("1.txt", b"x")], "a link"),
        ([("1.png", link("1.png", tarfile.CHRTYPE)), ("1.txt", b"x")], "a device"),
        ([("1.png", b"no image"), ("1.txt", b"x")], "not a complete image"),
        ([("1.png", png(1)), ("1.txt", b"\xff\xfe\xfd")], "no UTF-8"),
        ([("1.png", png(1)), ("1.json", b"[1]")], "expected a JSON object"),
        ([("1.png", png(1)), ("1.txt", b"")], "empty"),
        ([(f"1.{i}.cls", b"") for i in range(300)], "more than 256"),
    ],
)
def test_a_broken_sample_is_named_and_those_beside_it_are_read(tmp_path, processor, files, why):
    path = shard(tmp_path / "x.tar", [*pair(0), *files, *pair(2)])
    source = open_data(path, processor).sources["generation"].sources[0]
    first, broken, last = take(source, range(3))
    assert first.kind == last.kind == "generation"
    assert isinstance(broken, BrokenSample) and why in str(broken) and "x.tar" in broken.name


def test_an_image_and_its_text_that_stand_apart_are_refused(tmp_path):
    images, texts = ([pair(number)[part] for number in (0, 1)] for part in (0, 1))
    path = shard(tmp_path / "x.tar", [*images, *texts])
    with pytest.raises(ValueError, match="do not stand together; write the tar with sorted names"):
        open_shards([path])


def test_what_is_no_sample_of_a_shard_is_named_at_the_start_and_not_drawn(tmp_path):
    files = [("1.png", png(1)), ("2.cls", b"3"), ("2.png", png(1)), ("3.txt", b"alone")]
    files += [("4.mp4", b"x"), ("4.txt", b"a film"), ("5.heic", b"x"), ("5.json", b'{"text": "a"}')]
    path = shard(tmp_path / "x.tar", [*pair(0), *files, *pair(6)])
    found = scan(path)
    assert {kind: len(records) for kind, records in found.sources} == {"generation": 2}
    whys = " ".join(found.skipped.values())
    for why in ("without a text", "without its image", "text of a .mp4", "text of a .heic"):
        assert why in whys
    assert f"{path} 1.png and 1 more" in found.skipped


def test_a_huge_member_is_refused_without_being_read(tmp_path, processor, monkeypatch):
    path = shard(tmp_path / "x.tar", [*pair(0), ("1.png", bytes(9000)), ("1.txt", b"x")])
    monkeypatch.setenv("JANUSFLOW_MAX_IMAGE_BYTES", "8000")
    source = open_data(path, processor).sources["generation"].sources[0]
    assert "9000 bytes" in str(take(source, [1])[0])


def test_a_shard_cut_at_any_place_is_refused_or_ends_in_broken_samples(tmp_path):
    path = shard(tmp_path / "x.tar", [*pair(0), *pair(1)])
    whole, starts = path.read_bytes(), index(path)
    end = max(i for i, byte in enumerate(whole) if byte) // 512 * 512 + 512
    for cut in range(0, end, 331):
        path.write_bytes(whole[:cut])
        try:
            records = open_shards([path]).sources[0][1]
        except ValueError as error:
            assert "x.tar" in str(error)
            continue
        found = take(records, range(len(records)))
        whole_ones = sum(stop <= cut for stop in (starts[1], end))
        broken = [isinstance(one, BrokenSample) for one in found]
        assert not any(broken[:whole_ones]) and broken == sorted(broken), cut
        assert 1 <= sum(broken) <= 2  # one that is cut, the lack of an end mark


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 511, b"x" * 2000, bytes(1024), b"\x1f\x8b" + bytes(1000), b"PK\x03\x04" * 500],
)
def test_what_is_no_tar_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tar is (no tar|compressed)"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz"])
def test_a_compressed_shard_is_refused_and_not_passed_over(tmp_path, name):
    (tmp_path / "words.txt").write_text("a red circle")
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match="is compressed"):
            find(path)


def test_lies_in_headers_end_in_a_sentence(tmp_path):
    """Sizes beyond the file, negative, in base 256, and extended headers that claim gigabytes."""
    whole = shard(tmp_path / "x.tar", [*pair(0), *pair(1)]).read_bytes()
    second = index(tmp_path / "x.tar")[1]
    lies = {124: [b"77777777777\0", b"-0000000001\0", b"\xff" * 12, b"\x80" + b"\xff" * 11]}
    lies |= {156: [b"x", b"L", b"g", b"K", b"S", b"\xff"], 0: [b"\0" * 100, b"." * 99 + b"\0"]}
    for place, values in lies.items():
        for value in values:
            header = bytearray(whole[second : second + 512])
            header[place : place + len(value)] = value
            header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
            (tmp_path / "x.tar").write_bytes(whole[:second] + header + whole[second + 512 :])
            said = open_shards([tmp_path / "x.tar"])
            records = said.sources[0][1]
            found = take(records, range(len(records)))
            assert not isinstance(found[0], BrokenSample)
            broken = any(isinstance(one, BrokenSample) for one in found[1:])
            assert broken or said.skipped, (place, value)


def test_an_index_keeps_eight_bytes_a_sample(tmp_path):
    path = shard(tmp_path / "x.tar", [(f"{i}.txt", b"words") for i in range(2000)])
    starts = index(path)
    assert starts.itemsize == 8 and len(starts) == 2000
    assert Shards((path,), (starts,), "text")[1999].text == "words"


def test_broken_shards_stop_a_run_beyond_the_limit(tmp_path, processor):
    shard(
        tmp_path / "x.tar",
        [*pair(0), *[(f"b{i}.{s}", b"x") for i in range(3) for s in ("png", "txt")]],
    )
    with pytest.warns(UserWarning, match=r"b\d.*another sample stands in"):
        drawn = open_data(tmp_path, processor, limit=3).draw(0, counts={"generation": 4})
    assert len(drawn) == 4 and all(s.name.endswith("0.png") for s in drawn)
    with pytest.raises(ValueError, match="2 are allowed"), pytest.warns(UserWarning):
        open_data(tmp_path, processor, limit=2).draw(0, counts={"generation": 4})


# Streams


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Two parquet files with twelve captioned images."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(
        datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False
    )  # 5 s at every end
    folder = tmp_path / "tables"
    folder.mkdir()
    for part in range(2):
        numbers = range(6 * part, 6 * part + 6)
        rows = {
            "image": [{"bytes": png(i), "path": None} for i in numbers],
            "text": [f"{scene('train', i).caption}" for i in numbers],
        }
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        table.to_parquet(str(folder / f"{part}.parquet"))
    return folder


STREAM = {"data.streaming": True, "data.buffer": 4}


def stream(folder, processor, **options):
    from janusflow.data.read_options import Data

    return open_data(folder, processor, options=Data(streaming=True, buffer=4), **options)


def ids(samples):
    return [tuple(s.input_ids.tolist()) for s in samples]


def test_a_stream_is_a_function_of_seed_and_step(tables, processor):
    counts = {"generation": 4}
    running = stream(tables, processor)
    steps = [running.draw(step, counts=counts) for step in range(6)]  # two rounds
    for step in (5, 2):  # taken up anew at any step
        fresh = stream(tables, processor).draw(step, counts=counts)
        assert [s.name for s in fresh] == [s.name for s in steps[step]]
        assert all(
            torch.equal(a.pixel_values, b.pixel_values)
            for a, b in zip(fresh, steps[step], strict=True)
        )
    rounds = ([s for step in steps[i : i + 3] for s in step] for i in (0, 3))
    first, second = (sorted(map(repr, ids(drawn))) for drawn in rounds)
    rows = [records[i].text for _, records in find(tables) for i in range(len(records))]
    whole = [tuple(processor.prompt(text)["input_ids"][0].tolist()) for text in rows]
    assert first == second == sorted(map(repr, whole))  # each row once a round
    assert ids(steps[0]) != ids(steps[3])  # in another order
    assert ids(stream(tables, processor, seed=1).draw(0, counts=counts)) != ids(steps[0])
    parts = [stream(tables, processor).draw(1, rank, 2, counts) for rank in range(2)]
    assert [s.name for part in parts for s in part] == [s.name for s in steps[1]]


def test_broken_rows_of_a_stream_are_replaced_without_starting_over(tables, processor, monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(i) if i % 5 else b"x%d" % i, "path": None} for i in range(20)]}
    rows["text"] = ["a red circle"] * 20
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(str(tables / "0.parquet"))
    (tables / "1.parquet").unlink()
    mixture = stream(tables, processor)
    source, started = mixture.sources["generation"].sources[0].records, []
    begin = type(source)._round
    monkeypatch.setattr(type(source), "_round", lambda s, t: started.append(t) or begin(s, t))
    with pytest.warns(UserWarning, match="row .* another sample stands in"):
        drawn = [mixture.draw(step, counts={"generation": 5}) for step in range(4)]
    assert len(mixture.tally.broken) == 4 and sum(map(len, drawn)) == 20
    assert len(started) <= 3  # the stream, a second that runs behind, perhaps the next round


def test_a_stream_among_other_sources_still_runs_forward():
    class Endless:
        sequential = True

        def __len__(self):
            return 10

        def __getitem__(self, number):
            raise NotImplementedError

    blend = Blend([Endless(), Endless(), [0] * 7], [2.0, 1.0, 1.0])
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for position in range(200):
        which, number = blend.locate(position, 5)
        seen[which].append(number)
    assert seen[0] == list(range(len(seen[0]))) and seen[1] == list(range(len(seen[1])))
    assert sorted(permuted(i, 4096, 5, 0) for i in range(4096)) == list(range(4096))


def test_a_damaged_table_is_refused_in_a_sentence(tables, processor):
    path = tables / "0.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    for streaming in (True, False):
        with pytest.raises(ValueError, match=r"0\.parquet cannot be read as parquet"):
            stream(tables, processor) if streaming else open_data(tables, processor)
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(ValueError, match="cannot be read"):
        stream(tables, processor).draw(0, counts={"generation": 12})


@pytest.mark.parametrize("kind", ["tar", "stream"])
def test_a_run_on_shards_or_a_stream_is_taken_up_in_the_same_bits(tables, tmp_path, kind):
    data, changes = tables, STREAM
    if kind == "tar":
        data = shard(tmp_path / "x.tar", [f for i in range(8) for f in pair(i)])
        changes = {}
    changes = changes | {"training.steps": 2, "training.batch": 4, "run.save_every": 1}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        job.of_stage(1, "janusflow/scenes", data, out, changes).run()
    checkpoints.path_of(cut, 2).unlink()
    job.of_stage(1, "janusflow/scenes", data, cut, changes).run()
    ours, theirs = checkpoints.read(cut, 2)[0], checkpoints.read(whole, 2)[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
