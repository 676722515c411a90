"""Every command that a page shows is one: its name, its options, its module."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from janusflow.cli.main import app
from janusflow.cli.old_names import ALSO

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "janusflow" / "weights").glob("*/README.md")),
]
COMMANDS = typer.main.get_command(app).commands
MARK = re.compile(r"(?:^|\s)(?:\S*/)?(janusflow|python -m|-m) (?=\S)")


def shown(page: Path) -> list[str]:
    """What stands in sh blocks, line by line, and in inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return lines + [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", plain)]


def parts(text: str) -> list[list[str]]:
    """The commands of a line: of a, b in `a && b`, each as words."""
    pieces = re.split(r"&&|\|\||[|;]", text.replace("...", " "))
    return [shlex.split(piece, comments=True) for piece in pieces]


def commands(page: Path) -> list[list[str]]:
    """The words from `janusflow` or a module's name on."""
    found = []
    for text in shown(page):
        if not MARK.search(text):
            continue
        for words in parts(text):
            for i, word in enumerate(words[:-1]):
                if (Path(word).name == "janusflow" and words[i - 1] != "-m") or word == "-m":
                    found.append(words[i + (word == "-m") :])
                    break
    return found


def fault(words: list[str]) -> str | None:
    name, *rest = words[: words.index("--")] if "--" in words else words  # the rest: another's
    options = [word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    if Path(name).name == "janusflow":
        if not rest or rest[0].startswith("-"):
            return None
        if rest[0] not in COMMANDS:
            return f"no command {rest[0]}"
        command = COMMANDS[rest[0]]
        if rest[1:] and rest[1] in getattr(command, "commands", {}):
            command = command.commands[rest[1]]
        known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {*ALSO}
        strange = [option for option in options if option not in known | {"--help"}]
        return f"{rest[0]} has no {strange}" if strange else None
    top = name.split(".")[0]
    if top == "tests":  # the extra `eval` installs a package of that name
        return f"{name} has to stand in checks"
    if top not in ("janusflow", "samplers", "checks", "studies"):
        return None
    spec = importlib.util.find_spec(name)
    if spec is None:
        return f"no module {name}"
    source = Path(spec.origin).with_name("__main__.py") if spec.submodule_search_locations else None
    files = source.parent.glob("*.py") if source else [Path(spec.origin)]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    strange = [o for o in options if o.lstrip("-").removeprefix("no-") not in text]
    return f"{name} has no {strange}" if strange else None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_of_a_page_exists_with_its_options(page):
    faults = [(" ".join(words), fault(words)) for words in commands(page)]
    assert not [pair for pair in faults if pair[1]]


def test_a_command_that_is_none_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`janusflow generate 'a b' --stepz 3`, `janusflow paint`\n\n"
        "```sh\njanusflow info \\\n  --models x && python -m checks.nothing\n```\n"
        "`python -m checks.heldout --loud`, `python -m tests.golden` but `torchrun -m janusflow "
        "generate --quality fast`\n"
    )
    found = [fault(words) for words in commands(page)]
    assert sorted(map(bool, found)) == [False, True, True, True, True, True, True]


def test_the_pages_show_many_commands():
    assert sum(len(commands(page)) for page in PAGES) > 100
