"""What the README shows first."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_snippets_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), scope)
    assert (tmp_path / "circle.png").exists()
    assert scope["out"].calls == 16 and scope["v"].calls == 16


def test_the_two_commands_of_the_start_are_those_that_ci_runs():
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in ("pip install", '-e ".[dev]"', "pytest -q"):
        assert part in commands[1] and part in ci
