"""Runs that go on: with other numbers, after a failure, in another place, as another stage."""

import io
import json
import shutil
import tarfile

import pytest
import torch
from PIL import Image

from janusflow import JanusFlowModel
from janusflow.scenes.world import render, scene
from janusflow.training import checkpoints, config, export, held_out, job, trainer

SMALL = {
    "training.steps": 12,
    "training.batch": 3,
    "training.warmup": 1,
    "training.lr": 1e-3,
    "training.trainable": "linear,generation",
    "run.save_every": 2,
    "run.keep": 99,
    "run.log_every": 1,
    "alignment": "none",
}


def picture(index: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(render(scene("train", index).objects)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What strangers have: a folder with captions, lines in two spellings, a shard, a table."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("data")
    for index in range(8):
        (folder / f"{index}.png").write_bytes(picture(index))
    for index in range(3):
        (folder / f"{index}.txt").write_text(scene("train", index).caption)
    rows = [
        {"image_path": "3.png", "caption": "a red circle"},
        {"img": "4.png", "text": "a star"},
        {"image": "5.png", "question": "how many shapes are there?", "answer": 2},
        {"text": "only words"},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for name, content in (("a.png", picture(6)), ("a.txt", b"a blue ring")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    table = {"image": [{"bytes": picture(7), "path": None}], "text": ["a green heart"]}
    table = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    table.to_parquet(str(folder / "table.parquet"))
    (folder / "6.png").unlink()
    (folder / "7.png").unlink()
    return folder


def planned(tiny_folder, data, out, stage=1, start=None, **changes) -> job.TrainJob:
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    model = None if start else str(tiny_folder)
    return job.of_stage(stage, model, data, out, SMALL | changes, start)


def cut(out, step: int) -> None:
    """As if the run had been killed before it wrote a later checkpoint."""
    for path in out.glob("step-*"):
        if int(path.stem[5:]) > step:
            path.unlink()


def same(one, other, step: int) -> bool:
    ours, theirs = (checkpoints.read(out, step)[0] for out in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_changed_on_the_way_and_killed_twice_is_the_one_done_at_once(
    tiny_folder, data, tmp_path, capsys
):
    parts, once = tmp_path / "parts", tmp_path / "once"
    planned(tiny_folder, data, parts, training__steps=6).run()
    cut(parts, 4)  # the first kill
    changes = {"training__lr": 1e-4, "training__schedule": "cosine", "training__batch": 4}
    planned(tiny_folder, data, parts, training__steps=9, **changes).run()
    assert "from step 4 on: training.lr 0.001 -> 0.0001" in capsys.readouterr().err
    cut(parts, 8)  # the second
    planned(tiny_folder, data, parts, training__steps=12, **changes, training__seed=3).run()
    assert len((parts / "changes.jsonl").read_text().splitlines()) == 2
    settings = config.read(parts / "settings.yaml")
    job.of_stage(1, str(tiny_folder), data, once, settings).run()
    assert same(parts, once, 12)
    lines = [json.loads(x) for x in (once / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12


def test_a_finished_run_can_be_given_more_steps(tiny_folder, data, tmp_path):
    more, once = tmp_path / "more", tmp_path / "once"
    planned(tiny_folder, data, more, training__steps=2).run()
    assert planned(tiny_folder, data, more, training__steps=4).run().finished
    planned(tiny_folder, data, once, training__steps=4).run()
    assert same(more, once, 4)


def test_a_run_moves_with_its_model(tiny_folder, data, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "here" / "model")
    planned(tmp_path / "here" / "model", data, tmp_path / "here" / "run", training__steps=2).run()
    there = (tmp_path / "here").rename(tmp_path / "there")
    assert str(tmp_path) not in checkpoints.latest(there / "run")[2]["model"]
    export.export(there / "run", tmp_path / "out")
    shutil.rmtree(there / "model")
    with pytest.raises(ValueError, match="--model"):
        export.export(there / "run", tmp_path / "out")
    export.export(there / "run", tmp_path / "again", model=str(tiny_folder))
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_other_weights_or_other_data_are_refused(tiny_folder, data, tmp_path):
    out, other = tmp_path / "run", tmp_path / "model"
    planned(tiny_folder, data, out, training__steps=2).run()
    shutil.copytree(tiny_folder, other)
    model = JanusFlowModel.from_pretrained(other)
    with torch.no_grad():
        model.language_model.model.norm.weight[0] += 1
    model.save_pretrained(other)
    with pytest.raises(ValueError, match="began with other weights"):
        planned(other, data, out).run()
    (tmp_path / "data").mkdir()
    for name in ("0.png", "0.txt"):
        shutil.copy(data / name, tmp_path / "data")
    with pytest.raises(ValueError, match=r"other data \(7 generation samples then, 1 now\)"):
        planned(tiny_folder, tmp_path / "data", out).run()
    allowed = planned(tiny_folder, tmp_path / "data", out, training__steps=3, run__allow="data")
    assert allowed.run().finished


@pytest.fixture
def bad_step(monkeypatch):
    """Losses that are not finite in the third step."""
    forward = trainer.Trainer._forward

    def spoilt(self, samples, number, rows, counts):
        total, sums = forward(self, samples, number, rows, counts)
        return (total, sums * float("nan")) if number == 2 else (total, sums)

    monkeypatch.setattr(trainer.Trainer, "_forward", spoilt)


@pytest.mark.usefixtures("bad_step")
def test_a_loss_that_is_not_finite_leaves_the_last_good_state_to_go_on_from(
    tiny_folder, data, tmp_path
):
    with pytest.raises(FloatingPointError, match=r"at step 2.*run\.max_bad_steps=1"):
        planned(tiny_folder, data, tmp_path, training__steps=4, run__save_every=9).run()
    assert checkpoints.complete(tmp_path) == [2]
    done = planned(tiny_folder, data, tmp_path, training__steps=4, run__max_bad_steps=1).run()
    assert done.finished and json.loads(checkpoints.latest(tmp_path)[2]["skipped"]) == [2]


@pytest.fixture
def spoil(monkeypatch):
    """Spoils micro-batches: {step: index of the micro-batch}, their loss or only their gradient."""
    forward = trainer.Trainer._forward

    def install(bad, of="loss"):
        calls = {}

        def spoilt(self, samples, number, rows, counts):
            total, sums = forward(self, samples, number, rows, counts)
            calls[number] = calls.get(number, -1) + 1
            hit = bad.get(number) == calls[number] % self.settings.run.accumulation
            if hit and of == "loss":
                return total, sums * float("inf")
            return (total * float("nan"), sums) if hit else (total, sums)

        monkeypatch.setattr(trainer.Trainer, "_forward", spoilt)

    return install


@pytest.mark.parametrize(
    ("bad", "of", "changes"),
    [
        ({3: 0, 4: 0}, "loss", {}),  # two in a row
        ({4: 1}, "loss", {"run__accumulation": 2, "training__batch": 4}),  # in the second part
        ({3: 0}, "gradient", {"run__accumulation": 2, "training__batch": 4}),
        ({5: 0}, "gradient", {}),  # the last
        ({0: 0, 5: 0}, "loss", {}),  # the first and the last
    ],
)
def test_bad_steps_anywhere_are_passed_over_and_nothing_else(
    tiny_folder, data, tmp_path, spoil, bad, of, changes
):
    spoil(bad, of)
    changes = {"training__steps": 6, "run__max_bad_steps": len(bad), **changes}
    assert planned(tiny_folder, data, tmp_path / "a", **changes).run().finished
    _, tensors, meta = checkpoints.latest(tmp_path / "a")
    assert checkpoints.complete(tmp_path / "a")[0] == 6
    assert json.loads(meta["skipped"]) == sorted(bad)
    assert all(bool(value.isfinite().all()) for value in tensors.values())
    logged = [json.loads(x)["step"] for x in (tmp_path / "a" / "log.jsonl").open()]
    assert logged == [step + 1 for step in range(6) if step not in bad]


def test_one_bad_step_too_many_ends_the_run_and_a_lower_rate_goes_on(
    tiny_folder, data, tmp_path, spoil
):
    spoil({2: 0, 4: 0})
    changes = {"training__steps": 6, "run__max_bad_steps": 1}
    with pytest.raises(FloatingPointError, match=r"at step 4.*max_bad_steps=2"):
        planned(tiny_folder, data, tmp_path, **changes).run()
    assert checkpoints.complete(tmp_path)[0] == 4
    spoil({})  # the lower rate has mended it
    done = planned(tiny_folder, data, tmp_path, **changes, training__lr=1e-5).run()
    assert done.finished and json.loads(checkpoints.latest(tmp_path)[2]["skipped"]) == [2]


@pytest.mark.usefixtures("bad_step")
def test_steps_passed_over_are_counted_over_the_whole_run(tiny_folder, data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for steps, out in ((4, whole), (3, parts), (4, parts)):
        found = planned(tiny_folder, data, out, training__steps=steps, run__max_bad_steps=1).run()
        assert found.finished
    assert same(whole, parts, 4)


def test_a_lack_of_memory_says_which_setting_helps(tiny_folder, data, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer.Trainer, "_forward", full)
    with pytest.raises(MemoryError, match=r"run\.accumulation=2 .*gradient_checkpointing.*rank"):
        planned(tiny_folder, data, tmp_path).run()


def test_the_papers_chain_is_three_commands(janusflow, tiny_folder, data, tmp_path):
    changes = SMALL | {"training.steps": 2, "alignment": "janusflow"}
    del changes["training.trainable"]
    words = [f"--set={name}={value}" for name, value in changes.items()]
    before = ["--model", tiny_folder]
    for stage in (1, 2, 3):
        out = tmp_path / str(stage)
        asked = ["--stage", stage, "--data", data, "--out", out, *before, *words, "--threads", 1]
        code, _, err = janusflow("train", *asked)
        assert code == 0, err
        before = ["--init-from", out]
    assert "generation" in err and "understanding" in err and "skipped" not in err
    found = checkpoints.latest(tmp_path / "1")[1]
    begun = JanusFlowModel.from_pretrained(tmp_path / "2" / "base", dtype=torch.float32)
    own = begun.state_dict()
    learnt = [n for n in found if n.startswith("ema.model.")]
    assert all(torch.equal(found[n], own[n.removeprefix("ema.model.")]) for n in learnt)
    shutil.rmtree(tmp_path / "1")  # what a run needs lies in its own folder
    export.export(tmp_path / "2", tmp_path / "model")
    code, _, err = janusflow("train", *asked)  # the same command goes on
    assert code == 0, err


def test_an_export_over_a_file_or_the_runs_model_is_refused_before_training(
    janusflow, tiny_folder, data, tmp_path
):
    (tmp_path / "file").touch()
    words = ["--stage", 1, "--model", tiny_folder, "--data", data, "--out", tmp_path / "run"]
    for target, why in ((tmp_path / "file", "is a file"), (tiny_folder, "the run began with")):
        code, _, err = janusflow("train", *words, "--export", target)
        assert code == 2 and why in err and not (tmp_path / "run").exists()


def test_a_run_on_an_adapter_is_a_model_to_begin_with(tiny_folder, data, tmp_path):
    adapter = {"adapter__rank": 2, "training__lr": 0.1, "training__steps": 2}
    planned(tiny_folder, data, tmp_path / "lora", **adapter).run()
    merged = export.start_from(tmp_path / "lora", tmp_path / "next")
    pipe = JanusFlowModel.from_pretrained(tiny_folder, dtype=torch.float32)
    before, after = pipe.state_dict(), JanusFlowModel.from_pretrained(merged).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name].float())}
    assert moved and not any("language_model" in name for name in moved)


def test_a_run_is_told_of_itself_and_keeps_its_best_state(tiny_folder, data, tmp_path):
    changes = {"run__evaluate_every": 2, "run__evaluate_count": 3, "run__evaluate_scorer": True}
    changes |= {"data__held_out": str(data), "run__keep_best": "held_out", "training__steps": 4}
    quiet, told = tmp_path / "quiet", tmp_path / "told"
    planned(tiny_folder, data, quiet, training__steps=4).run()
    planned(tiny_folder, data, told, **changes).run()
    assert same(quiet, told, 4)  # evaluations draw none of the training's numbers
    lines = held_out.history(told)
    assert [line["step"] for line in lines] == [2, 4] and 0 <= lines[0]["strict"] <= 1
    assert len(lines[0]["held_out_by_time"]) == 10
    best = min(lines, key=lambda line: line["held_out"])
    assert checkpoints.complete(told / "best") == [best["step"]]
    cut(told, 2)
    planned(tiny_folder, data, told, **changes).run()
    assert held_out.history(told) == lines
    export.export(told, tmp_path / "model", best=True)
    with pytest.raises(ValueError, match=r"data\.held_out"):
        planned(tiny_folder, data, quiet, run__evaluate_every=2).run()


@pytest.mark.slow
def test_loader_processes_change_no_bit(tiny_folder, data, tmp_path):
    """Samples come in the same order, and what is broken in a process is told to the run."""
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "0.png").write_bytes(b"\x89PNG broken")
    alone, many = tmp_path / "alone", tmp_path / "many"
    changes = {"training__steps": 3, "training__batch": 9, "alignment": "janusflow"}
    for out, workers in ((alone, 0), (many, 2)):
        with pytest.warns(UserWarning, match=r"0\.png.*another sample stands in"):
            planned(tiny_folder, tmp_path / "data", out, run__workers=workers, **changes).run()
    assert same(alone, many, 3)
    with pytest.raises(ValueError, match=r"0 are allowed; the last: .*0\.png"):
        limit = {"run__max_bad_samples": 0, "run__workers": 1, "training__steps": 6}
        planned(tiny_folder, tmp_path / "data", many, **changes | limit).run()


def test_a_run_that_is_longer_than_it_is_asked_to_be_says_so(tiny_folder, data, tmp_path, capsys):
    for _ in range(2):
        planned(tiny_folder, data, tmp_path, training__steps=2).run()
    assert "has all its 2 steps" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"2 steps already.*asks for fewer"):
        planned(tiny_folder, data, tmp_path, training__steps=1).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data__held_out": "/nowhere", "run__evaluate_every": 2},
            "'/nowhere' is neither a folder",
        ),
        ({"data__held_out": "."}, r"nothing evaluates on it; set run\.evaluate_every"),
        ({"run__evaluate_every": 2}, "needs something to evaluate on"),
    ],
)
def test_evaluations_that_cannot_be_are_refused_before_training(
    tiny_folder, data, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        planned(tiny_folder, data, tmp_path, **changes)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        planned(tiny_folder, data, tmp_path / "file")
