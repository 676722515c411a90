"""GenEval and DPG-Bench: official folders out, official results in."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_evaluate import PLAN, timeless

from janusflow.evaluation import report, runner
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.tasks import find as task
from janusflow.scenes.world import generator as seeded

PROMPTS = [
    {"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a cup"},
    {"tag": "counting", "include": [{"class": "cat", "count": 2}], "prompt": "two cats"},
    {"tag": "counting", "include": [{"class": "dog", "count": 3}], "prompt": "three dogs"},
]


class Brush:
    """Noise of each generator, so that an image depends on its seed."""

    def __init__(self, stop_after=None):
        self.made, self.left = 0, stop_after

    def __call__(self, texts, generator, **_settings):
        if self.left is not None and (left := self.left - len(texts)) < 0:
            raise KeyboardInterrupt(left)
        self.left = None if self.left is None else left
        self.made += len(texts)
        grey = [seeded(g.initial_seed()).integers(256, size=(96, 96, 3)) for g in generator]
        images = [Image.fromarray(g.astype(np.uint8)) for g in grey]
        return SimpleNamespace(images=images, calls=60)


def planned(name, path, **changes):
    paths = {"prompts": str(path)}
    values = {f: getattr(PLAN, f) for f in ("model", "weights", "dtype", "side", "batch")}
    return Plan(task=name, paths=paths, digests=task(name).inputs(paths), **values | changes)


@pytest.fixture
def geneval(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in PROMPTS))
    return planned("geneval", path)


@pytest.fixture
def dpg(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in ("partiprompts1", "COCOval2014000000", "7"):
        (folder / f"{name}.txt").write_text(f"a long story about {name}\n")
    return planned("dpg", folder)


def official_lines(plan, folder, correct=lambda index, seed: (index + seed) % 2 == 0):
    rows = []
    for index, entry in enumerate(PROMPTS):
        for seed in range(plan.seeds):
            name = f"{folder}/{index:05d}/samples/{seed:05d}.png"
            row = dict(filename=name, tag=entry["tag"], prompt=entry["prompt"], reason="")
            row |= dict(correct=correct(index, seed), metadata=json.dumps(entry), details="{}")
            rows.append(json.dumps(row))
    return rows[::-1]  # the official order is that of the file system


def test_geneval_pictures_lie_where_the_official_evaluator_looks(geneval, tmp_path):
    folder, brush = tmp_path / "out", Brush()
    result = runner.run(lambda: brush, geneval, folder, {})
    places = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
    assert places == {f"{i:05d}/samples/{s:05d}.png" for i in range(3) for s in range(4)}
    for index, entry in enumerate(PROMPTS):
        lines = (folder / f"{index:05d}" / "metadata.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [entry]
    assert result["scores"] == {} and "evaluate_images.py" in report.terminal(result)
    assert len({p.read_bytes() for p in folder.rglob("*.png")}) == 12
    assert result["protocol"]["seeds"] == 4 and result["protocol"]["network_calls"] == 60


def test_geneval_results_become_a_report_with_intervals_by_tag(geneval, tmp_path):
    from janusflow.cli.commands import evaluate_actions

    folder = tmp_path / "out"
    runner.run(Brush, geneval, folder, {})
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(official_lines(geneval, folder)))
    result = evaluate_actions.results(file, folder)
    groups = result["scores"]["geneval"]["groups"]
    assert groups["single_object"]["scores"]["correct"]["score"] == 0.5
    assert groups["counting"]["items"] == 8 and groups["counting"]["texts"] == 2
    assert result["scores"]["geneval"]["overall"]["scores"]["correct"]["score"] == 0.5
    assert result["protocol"]["sampler"] == "euler" and len(result["items"]) == 12
    assert timeless(runner.rescore(folder)) == timeless(result)
    assert "single_object" in report.markdown(result)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda rows: rows[1:], "lacks 1"),
        (lambda rows: [*rows[1:], rows[1].replace("00000/", "00099/")], "lacks 1"),
        (lambda rows: [rows[0].replace("three dogs", "no dogs"), *rows[1:]], "was generated for"),
        (lambda rows: ["{}", *rows], "is not GenEval's"),
        (lambda rows: ["oh", *rows], "not valid JSON"),
        (lambda _rows: [], "is empty"),
    ],
)
def test_results_that_do_not_fit_are_one_sentence(geneval, tmp_path, spoil, sentence):
    from janusflow.cli.commands import evaluate_actions

    folder = tmp_path / "out"
    runner.run(Brush, geneval, folder, {})
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(spoil(official_lines(geneval, folder))))
    with pytest.raises(ValueError, match=sentence):
        evaluate_actions.results(file, folder)


def test_dpg_grids_are_named_after_their_prompts_and_hold_four_pictures(dpg, tmp_path):
    folder = tmp_path / "out"
    result = runner.run(Brush, dpg, folder, {})
    names = {p.name for p in (folder / "images").iterdir()}
    assert names == {"partiprompts1.png", "COCOval2014000000.png", "7.png"}
    grid = np.asarray(Image.open(folder / "images" / "7.png"))
    assert grid.shape == (192, 192, 3)
    for seed, (top, left) in enumerate([(0, 0), (0, 96), (96, 0), (96, 96)]):
        single = np.asarray(Image.open(folder / "single" / f"7-{seed}.png"))
        np.testing.assert_array_equal(grid[top : top + 96, left : left + 96], single)
    assert "compute_dpg_bench.py" in report.terminal(result)


def dpg_lines(folder):
    rows, scores = [], {}
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        scores[path.stem] = [0.25, 0.5, 0.75, 1.0 - i / 10]
        mean = sum(scores[path.stem]) / 4
        rows.append(", ".join(map(str, [path, *scores[path.stem], mean])))
    mean = np.mean(list(scores.values()))
    ends = ["Model: images", "L1 category scores:", "\tentity: 87.5", "L2 category scores:"]
    ends += ["\tentity - whole: 87.5", f"Image path: {folder}", f"DPG-Bench score: {mean * 100}"]
    return [*rows, *ends], scores


def test_dpg_results_are_read_back_beside_the_official_averages(dpg, tmp_path):
    from janusflow.cli.commands import evaluate_actions

    folder, file = tmp_path / "out", tmp_path / "results.txt"
    runner.run(Brush, dpg, folder, {})
    lines, scores = dpg_lines(folder)
    file.write_text("\n".join(lines))
    result = evaluate_actions.results(file, folder)
    entry = result["scores"]["dpg"]["overall"]["scores"]["share"]
    assert entry["score"] == pytest.approx(np.mean(list(scores.values())))
    assert entry["low"] < entry["score"] < entry["high"]
    assert result["protocol"]["official"]["entity"] == 87.5
    file.write_text("\n".join(lines).replace("DPG-Bench score: ", "DPG-Bench score: 9"))
    with pytest.raises(ValueError, match="check that the file is complete"):
        evaluate_actions.results(file, folder)


@pytest.mark.parametrize("after", [0, 3, 7])
def test_what_was_cut_off_goes_on_in_the_same_bits(geneval, dpg, tmp_path, after):
    for plan in (geneval, dpg):
        cut, whole = tmp_path / f"{plan.task}-cut", tmp_path / f"{plan.task}-whole"
        with pytest.raises(KeyboardInterrupt):
            runner.run(lambda: Brush(after), plan, cut, {})
        there = len(list(cut.rglob("*.png")))
        brush = Brush()
        runner.run(lambda: brush, plan, cut, {})  # noqa: B023
        runner.run(Brush, plan, whole, {})
        assert brush.made == 12 - there and there == after // 3 * 3
        for path in whole.rglob("*.png"):
            assert path.read_bytes() == (cut / path.relative_to(whole)).read_bytes()


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_the_pictures_and_make_none_twice(geneval, tmp_path, monkeypatch, ranks):
    from janusflow.evaluation import resume

    brushes = [Brush() for _ in range(ranks)]
    for rank, brush in enumerate(brushes):
        monkeypatch.setattr(resume, "share", lambda rank=rank: (rank, ranks))
        task("geneval").make(lambda b=brush: b, geneval, tmp_path, {})
    assert sum(b.made for b in brushes) == 12 and min(b.made for b in brushes) > 0
    assert len(list(tmp_path.rglob("*.png"))) == 12


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("geneval", None, "cannot be opened"),
        ("geneval", "", "holds no prompts"),
        ("geneval", "a cup\n", "not valid JSON"),
        ("geneval", '{"prompt": "a cup"}\n', "lacks a text 'tag'"),
        ("geneval", '{"prompt": 3, "tag": "x"}\n', "lacks a text 'prompt'"),
        ("geneval", '{"prompt": "a\\u0000b", "tag": "x"}\n', "holds a NUL"),
        ("geneval", b"\xff\xfe", "not UTF-8"),
        ("dpg", "a file", "is not a folder"),
        ("dpg", {}, "holds no .txt"),
        ("dpg", {"a.txt": ""}, "holds no prompts"),
    ],
)
def test_prompts_that_are_none_are_one_sentence(name, content, sentence, tmp_path, janusflow):
    path = tmp_path / "given"
    if isinstance(content, dict):
        path.mkdir()
        for file, text in content.items():
            (path / file).write_text(text)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, said = janusflow("evaluate", "--task", name, "--prompts", path, "-o", tmp_path / "o")
    assert code == 2 and sentence in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_a_task_without_its_files_says_which(tmp_path, janusflow):
    for options, sentence in [
        (["--task", "geneval"], "--prompts names no file of GenEval's prompts"),
        (["--task", "dpg", "--reference", tmp_path], "--reference is for fid and kid"),
        (["--task", "scenes", "--prompts", "x.txt"], "is for other tasks"),
        (["--results", tmp_path / "x", "-o", tmp_path], "holds no protocol.json"),
    ]:
        code, _, said = janusflow("evaluate", *options)
        assert code == 2 and sentence in said and len(said.strip().splitlines()) == 1


def test_pictures_of_another_size_are_named(geneval, tmp_path):
    folder = tmp_path / "out"
    runner.run(Brush, geneval, folder, {})
    path = Path(folder, "00001", "samples", "00002.png")
    Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(ValueError, match="64 x 64 pixels, expected 96 x 96"):
        runner.run(Brush, geneval, folder, {})
