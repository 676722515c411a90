"""Which room may import which: one table for every file of the three packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import janusflow
import samplers

ROOT = Path(__file__).parent.parent
BELOW = "training scenes pipelines data models utils samplers"
USES = {  # a room, and the rooms that it may import besides itself
    "samplers": "",
    "utils": "",
    "models": "utils",
    "data": "models utils",
    "pipelines": "models utils samplers",
    "scenes": "models data utils",
    "training": "models data scenes utils samplers",
    "evaluation": BELOW,
    "bench": f"evaluation {BELOW}",
    "demo": "evaluation scenes pipelines models utils samplers",
    "serve": "pipelines models utils samplers",
    "integrations": "evaluation scenes pipelines models utils samplers",
    "cli": f"bench demo serve integrations evaluation {BELOW}",
    "janusflow": "cli utils",  # __init__, __main__, train, _moved
    "studies": f"janusflow cli bench evaluation {BELOW}",
}
FILES = [p for part in ("janusflow", "samplers", "studies") for p in (ROOT / part).rglob("*.py")]

MOVED = {*(f"janusflow.{old}" for old in janusflow._moved.MOVED), *samplers._moved.MOVED}


def room(parts: tuple[str, ...]) -> str:
    """The room that a file's path or a module's dotted name lies in."""
    if parts[0] == "janusflow" and len(parts) > 1:
        return parts[1] if parts[1] in USES else "janusflow"
    return parts[0]


def imported(path: Path) -> set[str]:
    """Modules of this repository that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("janusflow", "samplers", "studies")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path):
    here = room(path.relative_to(ROOT).parts)
    allowed = {here, *USES[here].split()}
    wrong = {name for name in imported(path) if room(tuple(name.split("."))) not in allowed}
    assert not wrong, f"{here} may not import {', '.join(sorted(wrong))}"
    old = {name for name in imported(path) if any(f"{name}.".startswith(f"{o}.") for o in MOVED)}
    assert not old, f"{', '.join(sorted(old))} moved; see _moved.py for the new path"


def test_the_rooms_have_an_order_without_circles():
    """A topological order exists: rooms that use no remaining room leave one after the other."""
    left = {name: set(uses.split()) for name, uses in USES.items()}
    while left:
        bottom = {name for name, uses in left.items() if not uses & set(left)}
        assert bottom, f"{sorted(left)} use each other"
        left = {name: uses for name, uses in left.items() if name not in bottom}


def test_importing_samplers_costs_torch_and_nothing_else():
    heavy = ["torchdiffeq", "diffusers", "scipy", "matplotlib", "sklearn", "transformers"]
    code = f"import sys, samplers; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]", out.stdout + out.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("janusflow.scorer", "janusflow.scenes.scorer"),
        ("janusflow.modeling_janusflow", "janusflow.models.janusflow.modeling"),
        ("janusflow.pro.vq", "janusflow.models.janus_pro.vq"),
        ("samplers.peers", "samplers.benchmark.peers"),
    ],
)
def test_an_old_path_gives_the_same_module_and_a_warning(old, new):
    code = (
        f"import importlib, warnings; warnings.simplefilter('error')\n"
        f"n = importlib.import_module({new!r})\n"
        f"try: importlib.import_module({old!r}); raise SystemExit('no warning')\n"
        f"except DeprecationWarning as told: assert {new!r} in str(told)\n"
        f"warnings.simplefilter('ignore'); assert importlib.import_module({old!r}) is n\n"
        f"assert n.__spec__.name == {new!r}"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stdout + out.stderr


def test_python_m_finds_a_program_under_its_old_path():
    command = [sys.executable, "-W", "ignore", "-m", "samplers.learn", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0 and "usage:" in out.stdout, out.stderr
