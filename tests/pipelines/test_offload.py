"""Offloading of both kinds makes the same images and answers, by diffusers' and accelerate's."""

import accelerate
import pytest
import tiny_pro
import torch
from PIL import Image

import janusflow

IMAGE = Image.new("RGB", (96, 96), "red")
Q = "what is it?"


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    pro = tiny_pro.write_published(tmp_path_factory.mktemp("pro"), tiny_pro.model())
    return {"flow": tiny_folder, "pro": pro}


def quiet(folder):
    pipe = janusflow.load(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def work(pipe) -> list:
    """An image, an answer in every way, and an edit where there is one."""
    steps = {"num_inference_steps": 2} if hasattr(pipe, "edit") else {}
    talk = pipe.conversation([IMAGE])
    found = [
        pipe("a star", seed=0, **steps).images[0].tobytes(),
        pipe.chat(Q, [IMAGE], max_new_tokens=4),
        pipe.chat([Q, Q], [[IMAGE], [IMAGE]], max_new_tokens=4),
        "".join(pipe.chat(Q, [IMAGE], max_new_tokens=4, stream=True)),
        [talk.ask(Q, max_new_tokens=3), talk.ask("and?", max_new_tokens=3)],
        pipe.encode(IMAGE).tolist(),
    ]
    if steps:
        found.append(pipe.edit(IMAGE, "a star", seed=0, **steps).images[0].tobytes())
        found.append(round(pipe.invert(IMAGE, **steps).psnr[0], 3))
    return [*found, pipe("a star", seed=0, **steps).images[0].tobytes()]


def by_model(pipe):
    pipe.enable_model_cpu_offload(device="cpu")


def by_layer(pipe):
    pipe.enable_sequential_cpu_offload(device="cpu")


def by_accelerate(pipe):
    for name in ("model", "vae"):
        if isinstance(module := getattr(pipe, name, None), torch.nn.Module):
            buffers = len(module._parameters) > 0
            accelerate.cpu_offload(module, torch.device("cpu"), offload_buffers=buffers)


@pytest.mark.parametrize("offload", [by_model, by_layer, by_accelerate])
@pytest.mark.parametrize("family", ["flow", "pro"])
def test_an_offloaded_pipeline_does_all_that_it_did(folders, family, offload):
    expected = work(quiet(folders[family]))
    pipe = quiet(folders[family])
    offload(pipe)
    assert work(pipe) == expected


def test_what_attention_does_already_is_said(folders):
    pipe = quiet(folders["flow"])
    for name in ("enable_attention_slicing", "enable_xformers_memory_efficient_attention"):
        with pytest.warns(UserWarning, match=f"{name} changes nothing"):
            getattr(pipe, name)()
    pipe.disable_attention_slicing()  # of these nothing is to be said
    pipe.disable_xformers_memory_efficient_attention()


def test_automatic_formats_are_those_that_the_card_computes_in(monkeypatch):
    import contextlib

    from janusflow.utils.devices import pick_dtype

    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    for real, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda r=real, **_: r)
        assert pick_dtype("auto", torch.device("cuda")) == dtype
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
