"""An evaluation says what it measured, can be cut off anywhere, and gives the same twice."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_plan import PLAN
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import main
from janusflow.evaluation import figures, report, report_comparison, runner
from janusflow.evaluation.resume import batches
from janusflow.evaluation.tasks.scenes import jobs
from janusflow.scenes.shapes import render
from janusflow.scenes.world import generator, realise
from janusflow.scenes.world import generator as generator_of
from janusflow.utils.locked_dir import alone


class Painter:
    """Draws what is asked, or nothing for prompts with the words it does not know."""

    def __init__(self, plan=PLAN, ignorant=(), stop_after=None):
        self.prompts = {job.prompt.text: job.prompt for job in jobs(plan, "model")}
        self.ignorant, self.left, self.made = ignorant, stop_after, 0

    def __call__(self, texts, generator, **_settings):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.made += len(texts)
        assert len(generator) == len(texts)
        return SimpleNamespace(images=[self.draw(text) for text in texts], calls=60)

    def draw(self, text):
        if any(word in text for word in self.ignorant):
            return Image.new("RGB", (96, 96), "white")
        scene = realise(self.prompts[text], generator(text))
        return Image.fromarray(render(scene.objects))

    def encode(self, images):
        return images

    def decode(self, latents):
        return latents


def evaluate(folder, plan=PLAN, **painter):
    return runner.run(lambda: Painter(plan, **painter), plan, folder, {})


def timeless(result):
    return {name: value for name, value in result.items() if name != "times"}


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perfect") / "out"
    return evaluate(folder), folder


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poor") / "out"
    return evaluate(folder, ignorant=("a", "e")), folder


def test_a_perfect_painter_and_the_oracle_score_one(perfect):
    result, _ = perfect
    for split, scores in result["scores"].items():
        groups = {**scores["groups"], "overall": scores["overall"]}
        assert len(groups) == (7 if split == "test" else 2)
        for group in groups.values():
            assert {e["score"] for e in group["scores"].values()} == {1.0}
            assert all(e == {"strict": 1.0, "lenient": 1.0} for e in group["beside"].values())
    assert result["protocol"]["network_calls"] == 60
    assert len(result["items"]) == 7 * 2 * 2


def test_what_is_not_drawn_is_counted_as_wrong(poor):
    result, _ = poor
    blank = [item for item in result["items"] if set(item["wanted"]) & {"a", "e"}]
    assert blank and {item["said"] for item in blank} == {"nothing"}
    assert not any(score for item in blank for score in item["scores"].values())
    assert result["scores"]["test"]["overall"]["beside"]["oracle"]["strict"] == 1.0


def test_no_two_pictures_start_from_the_same_noise():
    plan = replace(PLAN, prompts=20)
    todo = jobs(plan, "model")
    assert len({job.noise for job in todo}) == len(todo)
    assert len({job.prompt.text for job in todo}) < len(todo) / plan.seeds  # texts do repeat


@pytest.mark.parametrize("calls", [0, 1, 3])  # batches are of 3 and 1 in each category
def test_an_evaluation_that_was_cut_off_makes_only_what_is_missing(perfect, tmp_path, calls):
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "out", stop_after=calls)
    done = len(list((tmp_path / "out").rglob("*.png")))
    painter = Painter()
    result = runner.run(lambda: painter, PLAN, tmp_path / "out", {})
    assert done == {0: 0, 1: 3, 3: 7}[calls] and painter.made == 28 - done
    assert timeless(result) == timeless(perfect[0])


def test_damaged_and_half_written_pictures_are_made_again(perfect, tmp_path):
    evaluate(tmp_path / "out")
    first, second, *_ = sorted((tmp_path / "out" / "model").rglob("*.png"))
    first.write_bytes(first.read_bytes()[:200])
    second.unlink()
    half = second.with_name(f".{second.name}.part")
    half.write_bytes(b"half")
    painter = Painter()
    result = runner.run(lambda: painter, PLAN, tmp_path / "out", {})
    assert painter.made == 3 and not half.exists()  # one batch, made whole
    assert timeless(result) == timeless(perfect[0])


class Rounding(Painter):
    """Paints a corner with what else is in the batch, as rounding does in the last bits."""

    def __call__(self, texts, generator, **settings):
        out = super().__call__(texts, generator, **settings)
        beside = generator_of("|".join(texts), len(texts)).integers(256, size=(3, 3, 3))
        for image in out.images:
            image.paste(Image.fromarray(beside.astype(np.uint8)), (0, 0))
        return out


def test_pictures_are_the_same_bits_wherever_an_evaluation_was_cut_off(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        runner.run(Rounding, PLAN, folder, {})
    made = sorted(path.relative_to(cut) for path in cut.rglob("*.png"))
    for path in made[::3] + made[1::5]:
        (cut / path).unlink(missing_ok=True)
    runner.run(Rounding, PLAN, cut, {})
    assert [p for p in made if (cut / p).read_bytes() != (whole / p).read_bytes()] == []


def test_whole_batches_stay_the_same_when_a_plan_grows():
    small, large = (
        list(batches(jobs(replace(PLAN, prompts=n), "model"), 3, lambda job: job.category))
        for n in (3, 50)
    )
    assert all(len(batch) <= 3 for batch in large)
    assert [batch for batch in small if len(batch) == 3 and batch not in large] == []
    assert [job for batch in small for job in batch] == jobs(replace(PLAN, prompts=3), "model")


def test_two_evaluations_of_one_folder_refuse(tmp_path):
    with alone(tmp_path / "out"), pytest.raises(ValueError, match="another run is at work"):
        evaluate(tmp_path / "out")
    assert evaluate(tmp_path / "out")["protocol"]["task"] == "scenes"


def test_a_larger_plan_keeps_what_there_is(tmp_path):
    evaluate(tmp_path / "out")
    larger = replace(PLAN, prompts=3)
    painter = Painter(larger)
    runner.run(lambda: painter, larger, tmp_path / "out", {})
    assert painter.made == 7 * 3  # the first batch of three stays, the second grows from one


def test_rescoring_the_saved_pictures_agrees(perfect, poor):
    for result, folder in (perfect, poor):
        assert timeless(runner.rescore(folder)) == timeless(result)


def test_a_second_reader_of_the_saved_pictures_gives_the_same_scores(tmp_path):
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    from checks import reread

    folder = tmp_path / "out"
    report.save(evaluate(folder, ignorant=("two", "three", "left", "above")), folder)
    found = reread.compare(folder)
    assert set(found) == {(True, True), (False, False)} and sum(found.values()) == 28
    source = Path(reread.__file__).read_text()
    assert "janusflow.scenes.scorer" not in source and "janusflow.scenes.world" not in source


def test_the_protocol_says_all_that_a_repetition_needs(poor):
    told = poor[0]["protocol"]
    wanted = "fingerprint weights sampler grid steps network_calls guidance guided_between dtype"
    wanted += " seeds prompts splits batch device side evaluator packages model task"
    assert set(wanted.split()) <= set(told)
    shown = report.described(
        told | {"reuse": 0.1, "generated_by": "", "guided_between": [0.0, 0.25]}
    )
    assert "first_block_cache: 0.1" in shown and "guided_between: 0.0 to 0.25" in shown
    assert not [line for line in shown if line.startswith("generated_by")]
    assert runner.guided_between("guidance_interval:4,0.3") == [0.3, 0.9]
    assert runner.guided_between("guidance_interval:4,0.2,0.6") == [0.2, 0.6]
    assert runner.guided_between("3") == [0, 1]


def test_pictures_tell_their_own_story(perfect):
    _, folder = perfect
    path = next((folder / "model" / "long").rglob("*.png"))
    story = Image.open(path).text
    assert story["fingerprint"] == PLAN.fingerprint and story["sampler"] == "euler"
    assert story["split"] == "long" and story["calls"] == "60" and story["guidance"] == "2"


def test_another_protocol_gets_another_folder(perfect):
    changes = [dict(steps=7), dict(guidance="4"), dict(weights={"a": "1"}), dict(dtype="x")]
    for change in [*changes, dict(batch=4), dict(device="cpu, 64 threads")]:
        with pytest.raises(ValueError, match="choose another --out"):
            evaluate(perfect[1], replace(PLAN, **change))


@pytest.mark.parametrize("numbers", [{}, {"prompts": 100, "seeds": 4}])
def test_reports_fit_80_columns_and_files_read_back(poor, tmp_path, numbers):
    result = copy.deepcopy(poor[0])
    result["protocol"] |= numbers
    for scores in result["scores"].values():
        scores["overall"]["items"] = 2400
    assert max(map(len, report.terminal(result).splitlines())) <= 80
    path, text = report.save(result, tmp_path)
    assert report.load(path) == json.loads(json.dumps(result))
    assert PLAN.fingerprint in text.read_text() and "| two_object |" in text.read_text()


def test_failures_and_bars_are_drawn(poor):
    made = figures.draw(poor[0], poor[1])
    names = {path.name for path in made}
    assert {"failures-test.png", "failures-long.png"} <= names
    sheets = {path.name: np.asarray(Image.open(path).convert("L")) for path in made}
    assert all(sheet.std() > 1 for sheet in sheets.values())


def test_nothing_is_better_than_itself(poor):
    rows = report_comparison.compare(poor[0], poor[0])
    assert {row["better"] for row in rows} == {None} and {row["p"] for row in rows} == {1.0}
    assert {(row["low"], row["high"]) for row in rows} == {(0.0, 0.0)}


def test_a_ranking_appears_only_where_intervals_are_apart(tmp_path):
    plan = replace(PLAN, splits=("test",), prompts=6)
    a = evaluate(tmp_path / "a", plan, ignorant=("a", "e"))
    b = evaluate(tmp_path / "b", plan)
    for row in report_comparison.compare(a, b):
        entry = [
            (r["scores"]["test"]["groups"] | {"overall": r["scores"]["test"]["overall"]})[
                row["group"]
            ]["scores"][row["measure"]]
            for r in (a, b)
        ]
        apart = entry[0]["high"] < entry[1]["low"]
        assert row["better"] == ("b" if apart and row["p"] < 0.05 else None)
        assert row["difference"] == pytest.approx(entry[1]["score"] - entry[0]["score"])
    assert row["group"] == "overall" and row["better"] == "b"
    assert max(map(len, report_comparison.terminal(a, b).splitlines())) <= 80


def test_reports_of_other_prompts_are_not_compared(poor):
    other = copy.deepcopy(poor[0])
    for item in other["items"]:
        item["seed"] += 100
    with pytest.raises(ValueError, match="have no prompt"):
        report_comparison.compare(poor[0], other)


def test_the_command_evaluates_a_model_and_repeats_itself(tiny_folder, tmp_path):
    out, again = tmp_path / "one", tmp_path / "two"
    options = ["--model", str(tiny_folder), "--prompts", "1", "--seeds", "1", "--steps", "1"]
    for folder in (out, again):
        done = CliRunner().invoke(
            main.app, ["evaluate", *options, "--device", "cpu", "-o", str(folder)]
        )
        assert done.exit_code == 0, done.output
        assert "color_attr" in done.output
    one, two = (timeless(report.load(folder / "report.json")) for folder in (out, again))
    assert one == two and one["protocol"]["network_calls"] == 2
    pair = [str(folder / "report.json") for folder in (out, again)]
    assert "one protocol" in CliRunner().invoke(main.app, ["evaluate", "--compare", *pair]).output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "magic"], "no task named 'magic'"),
        (["--split", "train"], "choose one of test"),
        (["--prompts", "0"], "prompts is 0"),
        (["--sampler", "magic"], "magic"),
        (["--grid", "magic"], "no grid named"),
        (["--rescore", "nowhere"], "holds no protocol.json"),
        (["--compare", "a.json", "b.json"], "cannot be read"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_code_2(
    options, sentence, tiny_folder, monkeypatch, capsys
):
    model = ["--model", str(tiny_folder), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["janusflow", "evaluate", *model, *options])
    with pytest.raises(SystemExit) as stop:
        main.main()
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and sentence in said and said.startswith("janusflow: ")


def test_pictures_that_do_not_belong_are_named(tmp_path):
    folder = tmp_path / "out"
    evaluate(folder)
    path = next((folder / "model" / "long").rglob("*.png"))
    whole = path.read_bytes()
    Image.new("RGB", (64, 64)).save(path)
    with pytest.raises(ValueError, match="64 x 64 pixels, expected 96 x 96"):
        runner.rescore(folder)
    Image.new("RGB", (96, 96)).save(path)
    with pytest.raises(ValueError, match="was generated for None"):
        runner.rescore(folder)
    path.unlink()
    with pytest.raises(ValueError, match="lacks 1 of 28 images"):
        runner.rescore(folder)
    path.write_bytes(whole)
    (folder / "protocol.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        runner.rescore(folder)


def test_a_folder_of_other_things_and_other_files_are_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds files but no"):
        evaluate(tmp_path)
    (tmp_path / "report.json").write_text('{"items": []}')
    with pytest.raises(ValueError, match="is not a report"):
        report.load(tmp_path / "report.json")
