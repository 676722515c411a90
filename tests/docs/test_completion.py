"""Tab completion finds the public names, in a file and at a prompt, without loading a model."""

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
    import janusflow
    import samplers

    found = {one.name for one in jedi.Interpreter("janusflow.Ja", [locals()]).complete()}
    assert "JanusFlowPipeline" in found
    found = {one.name for one in jedi.Interpreter("samplers.pil", [locals()]).complete()}
    assert "pilot" in found


def test_listing_the_names_imports_nothing_heavy():
    code = "import sys, janusflow; dir(janusflow); print('transformers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "False", out.stderr
