"""With --json a command writes one object on stdout and nothing else."""

import json
import sys

import pytest
import typer

from janusflow.cli import main

NAMES = sorted(typer.main.get_command(main.app).commands)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def go(*words) -> dict:
        monkeypatch.setattr(sys, "argv", ["janusflow", *map(str, words), "--json"])
        main.main()
        return json.loads(capsys.readouterr().out)

    return go


def test_a_picture_and_an_answer_come_with_their_story(run, tiny_folder, tmp_path):
    words = ("generate", "a star", "a ring", "--steps", 2, "--model", tiny_folder, "-o", "a.png")
    made = run(*words, "--seed", 5)
    assert made["files"] == ["a.png"] and (tmp_path / "a.png").exists()
    assert [p["seed"] for p in made["images"]] == [5, 6]
    assert [p["prompt"] for p in made["images"]] == ["a star", "a ring"]
    told = run("chat", "a.png", "what is it?", "--model", tiny_folder, "--max-new-tokens", 2)
    assert told["question"] == "what is it?" and isinstance(told["answer"], str)
    run("generate", "a star", "--steps", 1, "--model", tiny_folder, "-o", "c.png")
    changed = run("edit", "c.png", "a cross", "--steps", 2, "--model", tiny_folder, "-o", "b.png")
    assert changed["files"] == ["b.png"] and changed["images"][0]["prompt"] == "a cross"


def test_parts_of_either_family_add_up(run):
    for model in ("janusflow/scenes", "janusflow/scenes-pro"):
        told = run("info", model)
        assert sum(told["parts"].values()) == told["parameters"]
        assert told["bytes"]["float32"] == 4 * told["parameters"]


def test_the_rows_of_a_benchmark_are_those_of_its_file(run, tiny_folder, tmp_path):
    words = ("--solvers", "euler", "--nfe", 4, "--samples", 1, "--reference", 16, "--no-peers")
    told = run("bench", "samplers", "--model", tiny_folder, *words, "--save", "rows.json")
    assert told["rows"] == json.loads((tmp_path / "rows.json").read_text())["rows"]


def test_a_refusal_leaves_stdout_empty(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["janusflow", "generate", "--json"])
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "command", [name for name in NAMES if name not in ("bench", "demo", "serve")]
)
def test_every_command_takes_it(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["janusflow", command, "--help"])
    main.main()
    out = capsys.readouterr().out
    assert "--json" in out
    assert max(map(len, out.splitlines())) <= 80
