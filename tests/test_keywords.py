"""No keyword is swallowed: every public function refuses one that is misspelt, by its name."""

import inspect

import pytest
from PIL import Image

import janusflow
from janusflow.models import family
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janusflow.auto_processing import VLMImageProcessor
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.pipelines import answering, auto_pipeline, image_io, memory, presets
from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline
from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.utils import images, keywords

FLOW, PRO = "janusflow/scenes", "janusflow/scenes-pro"
WRONG = {"dtpye": "float16"}
REFUSED = (TypeError, ValueError)


@pytest.fixture(scope="module")
def pro():
    return JanusProPipeline.from_pretrained(PRO)


def refused(call) -> None:
    """The call fails and says which keyword it was; no other error hides it."""
    with pytest.raises(REFUSED, match="dtpye"):
        call()


@pytest.mark.parametrize(
    "door",
    [
        lambda: JanusFlowPipeline.from_pretrained(FLOW, **WRONG),
        lambda: JanusProPipeline.from_pretrained(PRO, **WRONG),
        lambda: janusflow.load(FLOW, **WRONG),
        lambda: janusflow.load(PRO, **WRONG),
        lambda: JanusFlowModel.from_pretrained(FLOW, **WRONG),
        lambda: JanusFlowConfig.from_pretrained(FLOW, **WRONG),
        lambda: VLMImageProcessor.from_pretrained(FLOW, **WRONG),
        lambda: JanusFlowProcessor.from_pretrained(FLOW, **WRONG),
        lambda: JanusProProcessor.from_pretrained(PRO, **WRONG),
        lambda: family.family(FLOW, **WRONG),
        lambda: family.side(FLOW, **WRONG),
    ],
)
def test_what_loads_refuses_a_misspelt_keyword(door):
    refused(door)


IMAGE = Image.new("RGB", (96, 96), "red")
CALLS = {
    "__call__": lambda p: p("a star", **WRONG),
    "chat": lambda p: p.chat("what?", **WRONG),
    "stream": lambda p: list(p.chat("what?", stream=True, **WRONG)),
    "conversation": lambda p: p.conversation(**WRONG),
    "ask": lambda p: p.conversation().ask("what?", **WRONG),
    "talk": lambda p: list(p.conversation().stream("what?", **WRONG)),
    "encode": lambda p: p.encode(IMAGE, **WRONG),
    "decode": lambda p: p.decode(None, **WRONG),
    "load_lora_weights": lambda p: p.load_lora_weights("nowhere", **WRONG),
    "set_adapters": lambda p: p.set_adapters("a", **WRONG),
    "fuse_lora": lambda p: p.fuse_lora(**WRONG),
    "set_progress_bar_config": lambda p: p.set_progress_bar_config(**WRONG),
    "from_pipe": lambda p: type(p).from_pipe(p, **WRONG),
    "processor": lambda p: p.processor("what?", **WRONG),
    "save_pretrained": lambda p: p.save_pretrained("nowhere", **WRONG),
    "processor.decode": lambda p: p.processor.decode([5], **WRONG),
    "processor.batch_decode": lambda p: p.processor.batch_decode([[5]], **WRONG),
    "apply_chat_template": lambda p: p.processor.apply_chat_template("what?", **WRONG),
    "processor.save_pretrained": lambda p: p.processor.save_pretrained("nowhere", **WRONG),
}
FLOWS = {
    "edit": lambda p: p.edit(IMAGE, "a star", **WRONG),
    "invert": lambda p: p.invert(IMAGE, **WRONG),
    "trajectory": lambda p: p.trajectory("a star", **WRONG),
    "forecast": lambda p: p.forecast(1, **WRONG),
    "field": lambda p: p.field(["a star"], **WRONG),
    "limit_memory": lambda p: p.limit_memory(1, **WRONG),
    "prepare_latents": lambda p: p.prepare_latents(1, None, None, **WRONG),
    "encode_prompts": lambda p: p.encode_prompts(["a"], **WRONG),
    "model.save_pretrained": lambda p: p.model.save_pretrained("nowhere", **WRONG),
    "config.save_pretrained": lambda p: p.model.config.save_pretrained("nowhere", **WRONG),
}


@pytest.mark.parametrize("name", [*CALLS, *FLOWS])
def test_a_flow_pipelines_methods_refuse_a_misspelt_keyword(tiny_pipe, name):
    refused(lambda: (CALLS | FLOWS)[name](tiny_pipe))


@pytest.mark.parametrize("name", CALLS)
def test_janus_pros_methods_refuse_a_misspelt_keyword(pro, name):
    refused(lambda: CALLS[name](pro))


@pytest.mark.parametrize("module", [answering, auto_pipeline, image_io, memory, presets, images])
def test_functions_take_no_keywords_that_they_do_not_name(module):
    """What hands keywords on says so here, with what refuses them."""
    checked = {"ask", "load", "family", "side", "check", "forecast", "of_folder", "resolve"}
    for name, function in inspect.getmembers(module, inspect.isfunction):
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        own = function.__module__ == module.__name__ and not name.startswith("_")
        if own and name not in checked:
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_a_signature_shows_what_a_call_takes():
    for method in (JanusFlowPipeline.__call__, JanusFlowPipeline.edit, JanusProPipeline.__call__):
        names = inspect.signature(method).parameters
        assert {"guidance_scale", "generator", "seed", "output_type"} <= set(names)
        assert not any(p.kind is p.VAR_KEYWORD for p in names.values())


def test_an_unknown_keyword_is_told_with_the_nearest_or_with_all():
    with pytest.raises(
        TypeError, match="f got 'sede', which is not an argument; did you mean 'seed'"
    ):
        keywords.refuse_unknown("f", ["seed", "sede"], ["seed", "height"])
    with pytest.raises(
        TypeError, match="f got 'zzz', which is not an argument; it takes seed, height"
    ):
        keywords.refuse_unknown("f", ["zzz"], ["seed", "height"])


def test_an_old_name_works_with_a_warning_and_not_beside_the_new_one(tiny_pipe):
    few = dict(num_inference_steps=2, seed=0)
    with pytest.warns(DeprecationWarning, match="'reuse' .* is now 'first_block_cache'"):
        old = tiny_pipe("a star", reuse=0.0, **few)
    assert old.skipped == tiny_pipe("a star", first_block_cache=0.0, **few).skipped
    with pytest.raises(TypeError, match="which are one; leave 'reuse' out"):
        tiny_pipe("a star", reuse=0.0, first_block_cache=0.0, **few)
    with pytest.warns(DeprecationWarning, match="'pictures' of forecast is now 'images'"):
        assert tiny_pipe.forecast(pictures=2) == tiny_pipe.forecast(images=2)


def test_options_are_an_object_or_keywords(tiny_pipe):
    from janusflow.pipelines.call_options import EditOptions, GenerateOptions

    options = GenerateOptions(num_inference_steps=2, seed=4, output_type="np")
    one, two = tiny_pipe("a star", options=options), tiny_pipe("a star", options=options, seed=5)
    same = tiny_pipe("a star", num_inference_steps=2, seed=4, output_type="np")
    assert (one.images == same.images).all() and not (one.images == two.images).all()
    with pytest.raises(TypeError, match="expected GenerateOptions"):
        tiny_pipe("a star", options=EditOptions())
