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
    "janusflow": "cli pipelines models utils",  # __init__ (for types), __main__, train, _moved
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


def test_a_file_imports_only_what_its_room_may():
    for path in FILES:
        here, names = room(path.relative_to(ROOT).parts), imported(path)
        allowed = {here, *USES[here].split()}
        wrong = {name for name in names if room(tuple(name.split("."))) not in allowed}
        assert not wrong, f"{path}: {here} may not import {', '.join(sorted(wrong))}"
        old = {name for name in names if any(f"{name}.".startswith(f"{o}.") for o in MOVED)}
        assert not old, f"{path}: {', '.join(sorted(old))} moved; see _moved.py for the new path"


def test_the_rooms_have_an_order_without_circles():
    """A topological order exists: rooms that use no remaining room leave one after the other."""
    left = {name: set(uses.split()) for name, uses in USES.items()}
    while left:
        bottom = {name for name, uses in left.items() if not uses & set(left)}
        assert bottom, f"{sorted(left)} use each other"
        left = {name: uses for name, uses in left.items() if name not in bottom}


def output(*words: str) -> str:
    out = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.mark.slow
def test_importing_samplers_costs_torch_and_nothing_else():
    heavy = ["torchdiffeq", "diffusers", "scipy", "matplotlib", "sklearn", "transformers"]
    heavy += ["torch._dynamo"]  # the compiler, which takes as long as the rest of torch
    code = f"import sys, samplers; print([m for m in {heavy} if m in sys.modules])"
    assert output("-c", code).strip() == "[]"


def test_every_old_path_leads_to_a_file():
    targets = {*janusflow._moved.MOVED.values(), *samplers._moved.MOVED.values()}
    for name in targets:
        place = ROOT.joinpath(*name.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), name


OLD = {
    "janusflow.scorer": "janusflow.scenes.scorer",
    "janusflow.modeling_janusflow": "janusflow.models.janusflow.modeling",
    "janusflow.pro.vq": "janusflow.models.janus_pro.vq",
    "samplers.peers": "samplers.benchmark.peers",
}


@pytest.mark.slow
def test_an_old_path_gives_the_same_module_and_a_warning():
    code = f"""import importlib, warnings
for old, new in {OLD}.items():
    warnings.simplefilter("error")
    n = importlib.import_module(new)
    try:
        importlib.import_module(old)
        raise SystemExit(f"no warning of {{old}}")
    except DeprecationWarning as told:
        assert new in str(told)
    warnings.simplefilter("ignore")
    assert importlib.import_module(old) is n and n.__spec__.name == new"""
    output("-c", code)


DOCUMENTED = (  # programs that the documents of release 0.1 ran
    "samplers.learn",
    "janusflow.ablate",
    "janusflow.pro.train",
    "janusflow.pro.versus",
    "janusflow.training.throughput",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTED)
def test_python_m_finds_a_program_under_its_old_path(name):
    assert "usage:" in output("-W", "ignore", "-m", name, "--help")
