"""The state of a call lives in the call: threads never change another's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from janusflow import JanusFlowPipeline
from janusflow.models import lora
from janusflow.models.lora import Adapter
from janusflow.pipelines.weight_gate import gate_of
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene


def run(pipe, prompt="a star", **options):
    options = dict(num_inference_steps=4, output_type="latent", seed=0) | options
    return pipe(prompt, **options)


# Threads


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    """Two adapters on disk, by name."""
    found = {}
    for seed, name in enumerate(("first", "second")):
        folder = found[name] = tmp_path_factory.mktemp(name)
        trained = JanusFlowPipeline.from_pretrained(tiny_folder).model
        lora.add(trained, Adapter(rank=2, modules=("q_proj", "up_proj")), seed)
        tensors = {n: p.detach() for n, p in trained.named_parameters() if ".lora_" in n}
        for tensor in tensors.values():
            tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
        lora.save(folder, Adapter(rank=2), tensors, "tiny")
    return found


@pytest.fixture(scope="module")
def adapted(tiny_folder, folders):
    """A pipeline with two adapters."""
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    for name, folder in folders.items():
        pipe.load_lora_weights(folder, adapter_name=name)
    return pipe


def test_an_adapter_that_comes_amid_a_call_does_not_join_it(tiny_folder, folders):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    alone = run(pipe).images

    def load(pipe, step, _t, _tensors):
        if step == 1:
            pipe.load_lora_weights(folders["first"], adapter_name="first")

    assert torch.equal(run(pipe, callback_on_step_end=load).images, alone)
    assert not torch.equal(run(pipe).images, alone)
    assert torch.equal(run(pipe, adapters={}).images, alone)


def test_images_edits_and_answers_beside_adapters_that_come_are_as_alone(tiny_folder, folders):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    image, none = render(scene("test", 1).objects), dict(adapters={})
    edits = dict(num_inference_steps=4, seed=1, output_type="latent", **none)
    found = [
        lambda: run(pipe, **none).images,
        lambda: pipe.edit(image, "a star", **edits).images,
        lambda: pipe.chat("what?", [image], max_new_tokens=6, **none),
    ]
    alone = [job() for job in found]
    with ThreadPoolExecutor(8) as pool:
        ends = [[pool.submit(job) for job in found] for _ in range(2)]
        loads = [pool.submit(pipe.load_lora_weights, f, n) for n, f in folders.items()]
        ends += [[pool.submit(job) for job in found]]
        assert [load.result() for load in loads] == [None, None]
        for row in ends:
            for end, told in zip(row, alone, strict=True):
                assert same(end.result(), told)


def test_an_adapter_goes_and_the_others_stay(tiny_folder, folders):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    plain = run(pipe).images
    for name, folder in folders.items():
        pipe.load_lora_weights(folder, adapter_name=name)
    pipe.set_adapters(["first", "second"], [0.5, 1.0])
    half = run(pipe, adapters={"first": 0.5}).images
    pipe.delete_adapters("second")
    assert pipe.get_list_adapters() == ["first"] and torch.equal(run(pipe).images, half)
    pipe.delete_adapters(["first"])
    assert pipe.get_list_adapters() == [] and torch.equal(run(pipe).images, plain)
    with pytest.raises(ValueError, match="no adapter named 'first'"):
        pipe.delete_adapters("first")


@pytest.mark.parametrize("weight", [float("nan"), "x", {"unet": 1}, True])
def test_an_adapters_weight_is_a_number(adapted, weight):
    for call in (
        lambda: adapted.set_adapters("first", weight),
        lambda: run(adapted, adapters={"first": weight}),
    ):
        with pytest.raises(ValueError, match="the weight of 'first' is"):
            call()


def test_an_adapter_of_tensors_is_refused_in_a_sentence(tiny_pipe):
    with pytest.raises(TypeError, match="the adapter is a dict; expected the name of a folder"):
        tiny_pipe.load_lora_weights({})


def test_the_adapters_of_a_call_are_its_own(adapted):
    ends = {}
    for name in ("first", "second"):
        adapted.set_adapters(name, 0.5)
        ends[name] = run(adapted).images
    for name, end in ends.items():
        assert torch.equal(run(adapted, adapters={name: 0.5}).images, end)
    adapted.disable_lora()
    plain = run(adapted).images
    adapted.enable_lora()
    assert torch.equal(run(adapted, adapters={}).images, plain)
    assert not torch.equal(ends["first"], plain) and not torch.equal(*ends.values())
    assert adapted.chat("what?", adapters="first", max_new_tokens=4)
    with pytest.raises(ValueError, match="no adapter named 'third'"):
        run(adapted, adapters=["third"])


def test_adapters_switched_meanwhile_do_not_change_a_call(adapted):
    adapted.set_adapters("first")
    alone = run(adapted).images

    def switch(pipe, _step, _t, tensors):
        pipe.set_adapters("second", 2.0)
        return tensors

    assert torch.equal(run(adapted, callback_on_step_end=switch).images, alone)
    assert adapted.get_active_adapters() == ["second"]


def jobs(pipe):
    """Eight things that people do at once, each (name, function) with a result to compare."""
    picture = render(scene("test", 1).objects)
    limit = pipe.forecast(2).decoding - 1

    def stopped():
        def stop(pipe, step, _t, _tensors):
            pipe._interrupt = step == 2

        return run(pipe, callback_on_step_end=stop, num_inference_steps=8)

    def cut():
        def end(pipe, step, _t, tensors):
            pipe._guidance_scale = 0.0 if step == 2 else pipe._guidance_scale
            return tensors

        return run(pipe, seed=3, callback_on_step_end=end, num_inference_steps=8)

    def talked():
        talk = pipe.conversation([picture])
        return [talk.ask("what is it?", max_new_tokens=4), talk.ask("and?", max_new_tokens=4)]

    def left():
        for piece in pipe.chat("what is it?", [picture], stream=True, max_new_tokens=50):
            return piece

    return {
        "plain": lambda: run(pipe, seed=1, num_inference_steps=8),
        "stopped": stopped,
        "cut": cut,
        "limited": lambda: run(pipe, ["a", "b"], seed=2, memory_limit=limit, output_type="np"),
        "adapted": lambda: run(pipe, seed=4, adapters={"second": 0.7}, num_inference_steps=6),
        "edited": lambda: pipe.edit(picture, "a star", seed=5, num_inference_steps=6),
        "talked": talked,
        "left": left,
    }


def bits(result):
    images = getattr(result, "images", result)
    if isinstance(images, list) and not isinstance(images[0], str):
        return [image.tobytes() for image in images]
    return images.tobytes() if isinstance(images, np.ndarray) else images


def same(a, b) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_eight_threads_in_one_pipeline_get_what_they_get_alone(adapted):
    adapted.set_adapters("first", 0.0)
    found = jobs(adapted)
    alone = {name: bits(job()) for name, job in found.items()}
    begin = threading.Barrier(len(found))

    def together(job):
        begin.wait()
        return bits(job())

    with ThreadPoolExecutor(len(found)) as pool:
        ends = dict(zip(found, pool.map(together, found.values()), strict=True))
    for name, end in ends.items():
        assert same(end, alone[name]), name


def test_a_stop_button_of_another_thread_ends_what_runs(tiny_pipe):
    begun, go = threading.Event(), threading.Event()

    def wait(_pipe, step, _t, _tensors):
        begun.set()
        if step == 1:
            go.wait(10)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, tiny_pipe, num_inference_steps=6, callback_on_step_end=wait)
        begun.wait(10)
        tiny_pipe._interrupt = True
        go.set()
        assert running.result().calls <= 4
    assert run(tiny_pipe).calls == 8  # and nothing that begins later


# Weights that change


@pytest.fixture
def fused(tiny_folder, folders):
    """A pipeline with one adapter that a test may merge and take out."""
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(folders["first"], adapter_name="first")
    return pipe


CHANGES = {
    "fuse_lora": lambda pipe: pipe.fuse_lora(),
    "unload_lora_weights": lambda pipe: pipe.unload_lora_weights(),
    "delete_adapters": lambda pipe: pipe.delete_adapters("first"),
    "to": lambda pipe: pipe.to(torch.bfloat16),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_another_thread_changes_wait_for_running_calls(fused, change):
    alone = run(fused, num_inference_steps=6).images
    talk = fused.chat("what?", max_new_tokens=4)
    begun, done = threading.Event(), threading.Event()

    def let_the_other_try(_pipe, step, _t, _tensors):
        begun.set()
        assert step > 1 or not done.wait(0.1)  # it waits while this call runs

    def other():
        begun.wait(10)
        CHANGES[change](fused)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other)
        end = run(fused, num_inference_steps=6, callback_on_step_end=let_the_other_try).images
        waiting.result(20)
    assert torch.equal(end, alone)
    assert isinstance(fused.chat("what?", max_new_tokens=4), type(talk))


@pytest.mark.parametrize("change", CHANGES)
def test_a_call_cannot_change_the_weights_that_it_computes_with(fused, change):
    with pytest.raises(RuntimeError, match=f"{change} was called during a call"):
        run(fused, callback_on_step_end=lambda pipe, *_: CHANGES[change](pipe))
    CHANGES[change](fused)  # and afterwards nothing waits


def test_a_call_inside_another_pipelines_call_keeps_to_its_own_weights(fused, tiny_folder):
    other = JanusFlowPipeline.from_pretrained(tiny_folder)
    alone, held, done = run(fused).images, threading.Event(), threading.Event()

    def change():
        with gate_of(fused.model).changing():
            held.set()
            done.wait(0.3)  # nothing sets it: so long the change takes
            done.set()

    def inner(_pipe, step, _t, _tensors):
        if step == 0:
            pool.submit(change)
            held.wait(10)
            assert torch.equal(run(fused).images, alone) and done.is_set()

    with ThreadPoolExecutor(1) as pool:
        run(other, callback_on_step_end=inner)


def test_a_stream_that_is_not_read_lets_adapters_be_merged(fused):
    pieces = fused.chat("what is it?", stream=True, max_new_tokens=12)
    first = next(pieces, "")
    fused.fuse_lora()
    assert isinstance(first + "".join(pieces), str)


def test_a_merge_that_would_not_be_finite_leaves_the_weights(fused):
    alone = run(fused).images
    broken = [m for m in fused.model.modules() if hasattr(m, "lora_A")][-1]
    with torch.no_grad():
        kept = broken.lora_B["first"].weight.clone()
        broken.lora_B["first"].weight.fill_(float("inf"))
    with pytest.raises(ValueError):
        fused.fuse_lora()
    with torch.no_grad():
        broken.lora_B["first"].weight.copy_(kept)
    assert torch.allclose(run(fused).images, alone, atol=1e-4)


def test_a_call_searches_the_device_once_and_the_next_call_searches_again(tiny_pipe, monkeypatch):
    from diffusers import DiffusionPipeline

    found, searched = DiffusionPipeline._execution_device.fget, []

    def search(pipe):
        searched.append(pipe)
        return found(pipe)

    monkeypatch.setattr(DiffusionPipeline, "_execution_device", property(search))
    for calls in (1, 2):
        run(tiny_pipe)
        assert len(searched) == calls
    assert tiny_pipe._execution_device == torch.device("cpu") and len(searched) == 3
