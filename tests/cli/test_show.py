"""`janusflow show` reads the log of a run as it is written, cut lines and all."""

import json

import pytest

from janusflow.cli.commands import show

LINE = {
    "loss": 2.0,
    "flow": 1.5,
    "next_token": 0.5,
    "flow_weighted": 1.5,
    "grad_norm": 1.0,
    "lr": 1e-3,
    "images_per_s": 3.0,
    "tokens_per_s": 200.0,
    "mfu": 0.2,
    "seconds_left": 90.0,
    "flow_by_time": [None, 1.0, *[0.5] * 8],
}


@pytest.fixture
def run(tmp_path):
    lines = [json.dumps({"step": 10 * i, **LINE, "loss": 3.0 - i / 10}) for i in range(1, 31)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 310, "lo')
    return tmp_path


def test_a_run_is_a_table_a_sentence_and_a_figure(run, janusflow):
    code, out, err = janusflow("show", run)
    assert (code, err) == (0, "") and (run / "losses.png").stat().st_size > 10_000
    lines = out.splitlines()
    assert lines[0].split() == ["step", "loss", "flow", "next_token", "grad_norm", "lr"]
    assert max(map(len, lines[:15])) <= 80 and lines[12].split()[0] == "300"
    assert "lowest loss 0 at step 300" in out and "2 min left" in out


def test_the_figure_of_a_single_report_shows_its_points():
    axes = show._figure([{"step": 2, **LINE}]).axes
    assert {line.get_marker() for ax in axes for line in ax.lines} == {"o"}


def test_its_lines_come_as_json(run, janusflow):
    told = json.loads(janusflow("show", run, "--json", "--no-figure")[1])
    assert len(told["lines"]) == 30 and told["figure"] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "holds no log.jsonl"), ("", "no entry yet"), ('[1]\n{"step": "x"}\nnull', "no entry")],
)
def test_a_folder_without_a_log_is_named(content, said, tmp_path):
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(ValueError, match=said):
        show.read(tmp_path)


def test_losses_are_told_from_rates_and_settings(run):
    assert show.losses(show.read(run)) == ["loss", "flow", "next_token"]
