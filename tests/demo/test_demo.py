"""The page's server, met by programs: who asks gets what was asked for, and nothing else."""

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", minversion="6", reason="the extra `demo` is not installed")
from demo_client import ASKED, client
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from janusflow import JanusFlowPipeline
from janusflow.demo import actions, jobs, launch, parts, requests
from janusflow.demo.requests import GenerationRequest, InvalidRequest


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def direct(pipe, seed, prompt="a red circle", steps=3):
    generator = torch.Generator().manual_seed(seed)
    return np.asarray(pipe(prompt, num_inference_steps=steps, generator=generator).images[0])


BAD_REQUESTS = {
    "no prompt": dict(prompt=" "),
    "no text": dict(prompt=["a"]),
    "a NUL": dict(prompt="a\0"),
    "a long prompt": dict(prompt="a" * 401),
    "no sampler": dict(sampler="../euler"),
    "an adaptive sampler": dict(sampler="dopri5"),
    "a stochastic sampler": dict(sampler="churn"),
    "no calls": dict(nfe=0),
    "calls without end": dict(nfe=101),
    "half a call": dict(nfe=1.5),
    "calls that are true": dict(nfe=True),
    "calls in words": dict(nfe="3"),
    "too few calls": dict(sampler="rk4", nfe=3),
    "guidance below": dict(guidance=-1),
    "guidance that is no number": dict(guidance=float("nan")),
    "a seed below": dict(seed=-1),
    "a seed too large": dict(seed=2**31),
    "no seed": dict(seed=None),
    "no quality": dict(quality="best"),
    "many images": dict(count=5),
    "a long negative prompt": dict(negative_prompt="a" * 401),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_what_passes_a_limit_is_refused_in_a_sentence_that_repeats_nothing(case):
    with pytest.raises(InvalidRequest, match=r"^[A-Z][\w\s,.;-]+\.$") as caught:
        GenerationRequest(**ASKED | BAD_REQUESTS[case])
    assert "../" not in str(caught.value)


@pytest.mark.parametrize("name", requests.samplers())
def test_no_sampler_spends_more_evaluations_than_allowed(name):
    request = GenerationRequest(**ASKED | dict(sampler=name, nfe=17))
    assert request.solver.cost(request.steps) <= 17 < request.solver.cost(request.steps + 1)


def bomb():
    """A PNG of 50,000 x 50,000 that says so in 57 bytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def png():
    file = io.BytesIO()
    Image.radial_gradient("L").save(file, "PNG")
    return file.getvalue()


BAD_FILES = {
    "empty": (b"", "not a complete image"),
    "text": (b"no image", "not a complete image"),
    "cut": (png()[:300], "not a complete image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a complete image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a complete image"),
    "bomb": (bomb(), "million pixels"),
    "large": (b"\0" * (8 * 2**20 + 1), "larger than 8 MB"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_upload_is_refused_without_its_path(case, tmp_path):
    content, message = BAD_FILES[case]
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(InvalidRequest, match=message) as caught:
        requests.image(tmp_path / "p.png")
    assert str(tmp_path) not in str(caught.value)


def test_an_upload_is_read_as_everywhere_turned_upright_and_shrunk(tmp_path):
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGBA", (3000, 20), (255, 0, 0, 0)).save(tmp_path / "p.png", exif=turned)
    image = requests.image(tmp_path / "p.png")
    assert image.mode == "RGB" and image.height == requests.SIDE > image.width
    assert image.getpixel((0, 0)) == (255, 0, 0)
    Image.new("I;16", (20, 20), 32896).save(tmp_path / "q.png")
    assert requests.image(tmp_path / "q.png").getpixel((0, 0)) == (128, 128, 128)


def test_a_quality_is_painted_by_the_few_step_model_that_the_pipeline_takes():
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    asked = GenerationRequest(**ASKED | dict(quality="fast"))
    *early, look = filter(None, actions.generate(pipe, asked))
    out = pipe(asked.prompt, quality="fast", seed=0)
    assert all(actions.apart(one.image, look.image) < 15 for one in early)  # clean images, too
    assert (np.asarray(look.image) == np.asarray(out.images[0])).all()
    assert (look.nfe, look.by) == (out.calls, out.generated_by) == (4, "janusflow/scenes-few")
    assert parts.signed(look, asked, 0).info["generated_by"] == look.by


def test_a_painted_picture_is_the_pipelines_and_looks_come_on_the_way(tiny_pipe):
    looks = [
        look
        for look in actions.generate(tiny_pipe, GenerationRequest(**ASKED | dict(nfe=30)))
        if look
    ]
    assert len(looks) == actions.LOOKS + 1 and looks[-1].t == 1 and looks[-1].nfe == 60
    assert [look.t for look in looks] == sorted(look.t for look in looks)
    assert (np.asarray(looks[-1].image) == direct(tiny_pipe, 0, steps=30)).all()


def test_a_finished_strip_has_no_empty_places(tiny_pipe):
    request = GenerationRequest(prompt="a star", sampler="euler", nfe=4)
    looks = [look for look in actions.generate(tiny_pipe, request) if look]
    assert parts.way(looks[:1], "").count("<figure>") == actions.LOOKS + 1
    assert parts.way(looks, "").count("<figure>") == len(looks) < actions.LOOKS + 1


def test_on_a_straight_path_every_look_shows_the_end(tiny_pipe, monkeypatch):
    straight = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(tiny_pipe, "field", lambda *_: lambda _x, _t: straight)
    looks = [
        look
        for look in actions.generate(tiny_pipe, GenerationRequest(**ASKED | dict(nfe=9)))
        if look
    ]
    assert max(actions.apart(look.image, looks[-1].image) for look in looks) < 0.01


def test_who_leaves_an_answer_stops_the_model(tiny_pipe):
    before = threading.active_count()
    words = actions.answer(tiny_pipe, Image.new("RGB", (96, 96)), "what?")
    next(words)
    words.close()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_ten_people_at_once_get_each_their_own_picture(address, tiny_pipe):
    def visit(seed):
        return pixels(
            client(address).predict(*(ASKED | dict(seed=seed)).values(), api_name="/paint")[0]
        )

    with ThreadPoolExecutor(10) as people:
        pictures = list(people.map(visit, range(10)))
    for seed, picture in enumerate(pictures):
        assert (picture == direct(tiny_pipe, seed)).all()
    assert len({picture.tobytes() for picture in pictures}) == 10


def test_two_samplers_start_from_the_same_noise(address, tiny_pipe):
    asked = ("a red circle", "euler", 3, "euler", 3, 2.0, 5)
    left, right, note = client(address).predict(*asked, api_name="/compare")
    assert (pixels(left) == direct(tiny_pipe, 5)).all() and (pixels(left) == pixels(right)).all()
    assert "differ by 0.0 of 255 grey levels" in note


def test_an_answer_is_that_of_the_pipeline_and_is_remembered(address, tiny_pipe, tmp_path):
    (tmp_path / "p.png").write_bytes(png())
    image = Image.open(tmp_path / "p.png").convert("RGB")
    person = client(address)
    talk, _ = person.predict(handle_file(tmp_path / "p.png"), "what?", [], api_name="/ask")
    said = tiny_pipe.chat("what?", [image], max_new_tokens=requests.MAX_TOKENS)
    assert [turn["role"] for turn in talk] == ["user", "assistant"] and said == talk[1]["content"][
        0
    ]["text"]
    turns = [{"role": "user", "content": [{"type": "image", "image": image}]}]
    turns[0]["content"] += [{"type": "text", "text": "what?"}]
    turns += [{"role": "assistant", "content": said}, {"role": "user", "content": "and now?"}]
    again, _ = person.predict(handle_file(tmp_path / "p.png"), "and now?", talk, api_name="/ask")
    second = tiny_pipe.chat(turns, max_new_tokens=requests.MAX_TOKENS)
    assert again[3]["content"][0]["text"] == second


def test_a_preset_is_the_pipelines_and_images_have_seeds_that_follow(tiny_pipe):
    asked = ASKED | dict(quality="draft", count=2, seed=7, negative_prompt="a blue square")
    shelf = list(jobs.painting(tiny_pipe, *asked.values(), []))[-1][-1]
    for seed, (image, caption) in zip((8, 7), shelf, strict=True):
        same = tiny_pipe(
            "a red circle",
            negative_prompt="a blue square",
            quality="draft",
            generator=torch.Generator().manual_seed(seed),
        )
        assert (np.asarray(image) == np.asarray(same.images[0])).all() and str(seed) in caption


def test_an_edit_is_the_pipelines(address, tiny_pipe, tmp_path):
    Image.radial_gradient("L").resize((96, 96)).save(tmp_path / "p.png")
    sent = handle_file(tmp_path / "p.png")
    made, _ = client(address).predict(sent, "a star", 0.5, 2.0, 3, api_name="/edit")
    image = Image.open(tmp_path / "p.png").convert("RGB")
    generator = torch.Generator().manual_seed(3)
    same = tiny_pipe.edit(image, "a star", strength=0.5, guidance_scale=2.0, generator=generator)
    assert (pixels(made) == np.asarray(same.images[0])).all()


def test_an_empty_prompt_is_a_hint_and_no_error(tiny_pipe, monkeypatch):
    hints = []
    monkeypatch.setattr(jobs.gr, "Info", lambda text, **_: hints.append(text))
    deed = jobs.told(partial(jobs.painting, tiny_pipe), 4)
    assert len(list(deed(*(ASKED | dict(prompt=" ")).values(), []))[-1]) == 4
    assert hints == ["There is no prompt yet; please write one."]


@pytest.mark.parametrize("case", ["text", "cut", "bomb"])
def test_a_bad_upload_is_named_to_the_visitor(case, address, tmp_path):
    content, message = BAD_FILES[case]
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(AppError, match=message):
        client(address).predict(handle_file(tmp_path / "p.png"), "what?", [], api_name="/ask")


class Gate:
    """Holds the model at its first step until opened."""

    def __init__(self, pipe, monkeypatch):
        self.open, self.reached, self.real = threading.Event(), threading.Event(), pipe.field
        self.calls = 0
        monkeypatch.setattr(pipe, "field", self)

    def __call__(self, *args):
        v = self.real(*args)

        def held(x, t):
            self.calls += 1
            self.reached.set()
            assert self.open.wait(20)
            return v(x, t)

        return held


def test_a_cancelled_request_frees_its_slot(address, tiny_pipe, monkeypatch):
    gate = Gate(tiny_pipe, monkeypatch)
    person = client(address)
    job = person.submit(*(ASKED | dict(nfe=100)).values(), api_name="/paint")
    assert gate.reached.wait(20)
    threading.Timer(0.5, gate.open.set).start()  # to cancel waits for the step under way
    job.cancel()
    assert gate.calls < 100
    after = client(address).predict(*(ASKED | dict(seed=4)).values(), api_name="/paint")
    assert gate.calls < 100
    monkeypatch.undo()
    assert (pixels(after[0]) == direct(tiny_pipe, 4)).all()


def test_a_full_queue_turns_people_away(tiny_pipe, monkeypatch):
    monkeypatch.setattr(launch, "QUEUE", 1)
    gate = Gate(tiny_pipe, monkeypatch)
    blocks, address = launch.start(tiny_pipe, "tiny", wait=False)
    try:
        people = [client(address) for _ in range(3)]
        first = people[0].submit(*ASKED.values(), api_name="/paint")
        assert gate.reached.wait(20)
        second = people[1].submit(*ASKED.values(), api_name="/paint")
        while len(blocks._queue) < 1:
            time.sleep(0.01)
        with pytest.raises(Exception, match="Queue is full"):
            people[2].predict(*ASKED.values(), api_name="/paint")
        gate.open.set()
        assert first.result(20) and second.result(20)
    finally:
        gate.open.set()
        blocks.close(verbose=False)


def test_a_prompt_is_shown_as_text_only(tiny_pipe):
    prompt = "<img src=x onerror=alert(1)>"
    steps = list(jobs.painting(tiny_pipe, *(ASKED | dict(prompt=prompt)).values(), []))
    assert all(prompt not in str(way) for _, way, _, _ in steps)


def test_the_command_refuses_a_port_that_is_none(janusflow):
    code, out, err = janusflow("demo", "--port", 70000)
    assert (code, out) == (2, "") and "--port is 70000" in err


def test_a_trajectory_begins_with_noise_and_ends_with_the_pipelines_image(tiny_pipe):
    request = GenerationRequest(prompt="a red circle", sampler="euler", nfe=8, seed=3)
    frames = [f for f in actions.trajectory(tiny_pipe, request, 5) if f is not None]
    assert [f.t for f in frames] == [0, 0.25, 0.5, 0.75, 1] and frames[-1].nfe == 16
    whole = tiny_pipe("a red circle", num_inference_steps=8, sampler="euler", seed=3).images[0]
    assert np.array_equal(np.asarray(frames[-1].expected), np.asarray(whole))
    assert np.array_equal(np.asarray(frames[-1].state), np.asarray(whole))


def test_the_trajectory_tab_ends_in_a_gif_and_keeps_what_visitors_wrote_as_text(tiny_pipe):
    asked = ("<b>a star</b>", "euler", 4, 3, 2.0, 0)
    *_, last = jobs.walking(tiny_pipe, *asked)
    assert last.count("<figure>") == 3 and "data:image/gif" in last and "<b>" not in last
    with pytest.raises(InvalidRequest, match="number of frames"):
        list(jobs.walking(tiny_pipe, "a star", "euler", 4, 99, 2.0, 0))


def test_an_image_that_is_not_square_is_edited_in_its_middle(tiny_pipe, tmp_path):
    wide = Image.new("RGB", (160, 96), "red")
    wide.paste("blue", (32, 0, 128, 96))
    wide.save(tmp_path / "wide.png")
    wide.crop((32, 0, 128, 96)).save(tmp_path / "middle.png")
    ends = [
        list(jobs.editing(tiny_pipe, tmp_path / name, "a star", 0.1, 2.0, 0))[-1]
        for name in ("wide.png", "middle.png")
    ]
    assert actions.apart(ends[0][0], ends[1][0]) < 1
    assert "middle square" in str(ends[0][1]) and "middle" not in str(ends[1][1])


@pytest.mark.parametrize("turns", [3, "x", [3], [{"role": "user"}], {"role": "user"}])
def test_a_conversation_that_is_none_is_refused(tiny_pipe, tmp_path, turns):
    Image.new("RGB", (96, 96)).save(tmp_path / "a.png")
    with pytest.raises(InvalidRequest, match="begin a new one"):
        list(jobs.answering(tiny_pipe, tmp_path / "a.png", "what?", turns))
    with pytest.raises(InvalidRequest, match="not Unicode"):
        list(jobs.answering(tiny_pipe, tmp_path / "a.png", "\ud800", []))
