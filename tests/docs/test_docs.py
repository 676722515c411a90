"""What the pages show is run, page by page, and what they promise is there."""

import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import janusflow
import samplers
from janusflow.cli import main
from janusflow.training import losses, objectives, rewards
from janusflow.training.alignment import repa

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
REGISTRIES = (
    samplers.SOLVERS,
    samplers.GRIDS,
    samplers.RULES,
    losses.WEIGHTS,
    repa.SIMILARITIES,
    objectives.OBJECTIVES,
    rewards.REWARDS,
)


def snippets(page: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of each cheap command of janusflow in the page's sh blocks."""
    lines = "".join(snippets(page, "sh")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("janusflow ")]
    return [line[1:] for line in words if cheap(line[1:])]


def cheap(words: list[str]) -> bool:
    """Whether a command takes seconds and the model in the box."""
    short = words[0] in ("generate", "chat", "info")
    short |= words[0] == "bench" and "--reference" in words
    return short and not {"--model", "--lora"} & set(words)


# the server runs in test_server.py, for it needs fastapi
RUN_HERE = [p for p in PAGES if snippets(p, "python") and p.stem != "server"]


@pytest.fixture
def registries():
    """Puts back what a page adds."""
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, known in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(known)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda p: p.stem)
def test_the_snippets_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": page.stem}
    for snippet in snippets(page, "python"):
        exec(compile(snippet, str(page), "exec"), scope)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.stem)
def test_the_cheap_commands_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        monkeypatch.setattr(sys, "argv", ["janusflow", *words])
        main.main()
        assert capsys.readouterr().out


def test_each_thing_to_add_takes_fewer_than_fifteen_lines():
    blocks = snippets(ROOT / "docs" / "extending.md", "python")
    assert len(blocks) >= 7
    assert all(len(block.strip().splitlines()) < 15 for block in blocks)


def test_every_module_named_in_the_reference_is_there():
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            parts = name.split(".")
            assert (ROOT / Path(*parts[:2])).with_suffix(".py").exists() or (
                ROOT / Path(*parts[:2])
            ).is_dir(), name


def test_every_page_of_the_menu_is_there():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in re.findall(r": (\S+\.md)$", menu, re.MULTILINE):
        assert (ROOT / "docs" / name).is_file(), name


def test_the_reference_shows_every_public_name():
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/reference").glob("*.md"))
    shown = re.findall(r"^::: (\S+)", pages, re.MULTILINE)
    homes = [f"{home}.{name}" for name, home in janusflow._HOMES.items()]
    missing = [home for home in homes if f"janusflow.{home}" not in shown]
    for name in samplers.__all__:
        if name.isupper():  # registries, shown by what is registered
            continue
        home = home_of(name)
        if home not in shown and f"{home}.{name}" not in shown:
            missing.append(f"{home}.{name}")
    assert not missing


def home_of(name: str) -> str:
    """The module of `samplers` where a name is defined."""
    return getattr(samplers, name).__module__


def test_the_text_of_a_drawing_has_no_broken_entity():
    for drawing in (ROOT / "docs").glob("*.svg"):
        text = " ".join(ElementTree.parse(drawing).getroot().itertext())
        assert not re.search(r"#\d+;", text), drawing
