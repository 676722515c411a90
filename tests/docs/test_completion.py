"""Tab completion finds the public names, in a file and at a prompt, without loading a model."""

import importlib
import subprocess
import sys

import pytest

jedi = pytest.importorskip("jedi")

FILE = [
    ("import janusflow\njanusflow.Ja", {"JanusFlowPipeline", "JanusFlowModel", "JanusProPipeline"}),
    ("import samplers\nsamplers.g", {"guide", "grid", "guidance_interval"}),
    ("from samplers import lo", {"log_likelihood"}),
    (
        "from janusflow import JanusFlowPipeline\n"
        "pipe = JanusFlowPipeline.from_pretrained('janusflow/scenes')\npipe.",
        {"chat", "edit", "conversation", "forecast", "load_lora_weights", "to"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("text", "wanted"), FILE)
def test_an_editor_completes(text, wanted):
    found = {one.name for one in jedi.Script(text).complete()}
    assert wanted <= found, wanted - found


@pytest.mark.slow
def test_a_prompt_completes_what_was_imported():
    imported = {name: importlib.import_module(name) for name in ("janusflow", "samplers")}
    for text, name in (("janusflow.Ja", "JanusFlowPipeline"), ("samplers.pil", "pilot")):
        assert name in {one.name for one in jedi.Interpreter(text, [imported]).complete()}


@pytest.mark.slow
def test_listing_the_names_imports_nothing_heavy():
    code = "import sys, janusflow; dir(janusflow); print('transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "False", out.stderr
