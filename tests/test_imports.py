"""The shape of the house: which file may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The floors of janusflow, the lowest first: a file imports from its own floor or from below it.
FLOORS = [
    (
        "limits",
        "finite",
        "heap",
        "statistics",
        "pixels",
        "reading",
        "folders",
        "model_files",
        "stored",
    ),
    ("configuration_janusflow", "shapes", "sources", "tokenizer", "chat", "times", "losses"),
    (
        "autoencoder",
        "autoencoder_files",
        "optimizers",
        "similarity",
        "adapters",
        "attention_maps",
        "asking",
    ),
    ("scenes", "convnext", "vision", "recipes", "processor_files", "devices", "linear", "prompts"),
    (
        "questions",
        "captions",
        "scorer",
        "modeling_janusflow",
        "processing_janusflow",
        "scene_patches",
    ),
    ("vision_training", "memory", "data", "compiled", "reuse", "sharing", "conversation"),
    ("inspection", "scene_batches", "teachers", "alignment"),
    ("training", "cli_train", "cli_precompute"),
    ("ablate_world", "ablate_lab", "ablate_report"),
    ("train", "runs", "editing", "adapted", "pipeline_janusflow", "ablate_measure", "loading"),
    ("ablate", "evaluation"),
]
INTEGRATES = {"training", "runs", "editing", "pipeline_janusflow", "ablate_measure", "evaluation"}
BELOW_THE_PIPELINE = {name for floor in FLOORS for name in floor} - INTEGRATES


def imports(path: Path) -> set[str]:
    """Modules of this repository that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("janusflow", "samplers")}


def imports_of(name: str) -> set[str]:
    """Of a file of janusflow, or of all files of a package in it."""
    file = ROOT / "janusflow" / f"{name}.py"
    files = [file] if file.exists() else (ROOT / "janusflow" / name).glob("*.py")
    return set().union(*map(imports, files))


def test_samplers_know_nothing_of_janusflow():
    for path in (ROOT / "samplers").glob("*.py"):
        assert not any(name.startswith("janusflow") for name in imports(path)), path.name


@pytest.mark.parametrize("name", sorted(BELOW_THE_PIPELINE))
def test_below_the_pipeline_nothing_knows_how_it_is_integrated(name):
    names = imports_of(name)
    assert not any(other.split(".")[0] == "samplers" for other in names)


def test_imports_point_down():
    level = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name, floor in level.items():
        for other in imports_of(name):
            part = other.split(".")[1] if other.count(".") else None
            assert level.get(part, -1) <= floor, f"{name} imports {other}"


def test_importing_samplers_costs_torch_and_nothing_else():
    heavy = ["torchdiffeq", "diffusers", "scipy", "matplotlib", "sklearn", "transformers"]
    code = f"import sys, samplers; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "[]", out.stdout + out.stderr
