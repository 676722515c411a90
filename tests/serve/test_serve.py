"""OpenAI's own client against `janusflow serve`, and what strangers may send it."""

import base64
import io
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("openai")
import httpx
import openai
from served import Served

from janusflow.cli.commands.serve import known_as
from janusflow.serve.answers import Visible
from janusflow.serve.server import stopping

MODEL = "tiny"
BODY = 2**20


@pytest.fixture(scope="module")
def served(tiny_pipe):
    made = Served(tiny_pipe, MODEL, max_body=BODY)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(served):
    return served.client()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def opened(b64):
    return Image.open(io.BytesIO(base64.b64decode(b64, validate=True)))


def data_url(image=None, kind="PNG"):
    file = io.BytesIO()
    (image or Image.new("RGB", (96, 96), "red")).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def asked(text="how many shapes are there?", url=None):
    parts = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": url or data_url()}}]
    return [{"role": "user", "content": parts}]


DRAFT = dict(prompt="a red circle", quality="low")


# Images


def test_images_are_those_of_the_pipeline_with_seeds_that_follow(client, tiny_pipe):
    out = client.images.generate(**DRAFT, model=MODEL, n=2, extra_body={"seed": 5})
    assert [one.seed for one in out.data] == [5, 6]
    for one in out.data:
        generator = torch.Generator().manual_seed(one.seed)
        same = tiny_pipe(DRAFT["prompt"], quality="draft", generator=generator).images[0]
        assert (np.asarray(opened(one.b64_json)) == np.asarray(same)).all()


def test_a_url_is_the_image_itself_in_the_format_asked_for(client):
    out = client.images.generate(**DRAFT, response_format="url", output_format="webp")
    head, _, text = out.data[0].url.partition(",")
    assert head == "data:image/webp;base64" and opened(text).format == "WEBP"


@pytest.mark.filterwarnings("ignore:the model was trained for")
def test_a_size_is_honoured(client):
    out = client.images.generate(**DRAFT, size="64x96")
    assert opened(out.data[0].b64_json).size == (64, 96) and out.size == "64x96"


def test_an_edit_changes_what_is_transparent_and_keeps_the_rest(client):
    image = Image.radial_gradient("L").resize((96, 96)).convert("RGBA")
    mask = image.copy()
    mask.paste((0, 0, 0, 0), (48, 0, 96, 96))
    files = []
    for one in (image, mask):
        one.save(file := io.BytesIO(), "PNG")
        files.append(("a.png", file.getvalue()))
    out = client.images.edit(
        image=files[0], mask=files[1], prompt="a star", extra_body=dict(num_inference_steps=3)
    )
    made = np.asarray(opened(out.data[0].b64_json), int)
    before = np.asarray(image.convert("RGB"), int)
    assert (made[:, :48] == before[:, :48]).all() and (made[:, 48:] != before[:, 48:]).any()


# Chat


def test_an_answer_is_the_pipelines_with_its_usage(client, tiny_pipe):
    out = client.chat.completions.create(model=MODEL, messages=asked(), max_tokens=8)
    images = [Image.new("RGB", (96, 96), "red")]
    same = tiny_pipe.chat("how many shapes are there?", images, max_new_tokens=8)
    assert out.choices[0].message.content == same
    assert out.choices[0].finish_reason == "length" and out.usage.completion_tokens == 8


def test_a_streamed_answer_is_the_whole_one_in_pieces(client):
    request = dict(model=MODEL, messages=asked(), max_tokens=12)
    whole = client.chat.completions.create(**request)
    parts = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    said = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert said == whole.choices[0].message.content and len(parts) > 4
    assert parts[-1].usage == whole.usage and parts[-2].choices[0].finish_reason == "length"


def test_several_answers_are_drawn_from_the_seed(client):
    request = dict(model=MODEL, messages=asked(), max_tokens=6, temperature=1.5, n=2, seed=3)
    first, again = (client.chat.completions.create(**request) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert texts[0] != texts[1] and [choice.index for choice in first.choices] == [0, 1]


def test_an_answer_ends_before_a_stop(client):
    request = dict(model=MODEL, messages=asked(), max_tokens=12)
    whole = client.chat.completions.create(**request).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    out = client.chat.completions.create(**request, stop=[stop]).choices[0]
    assert out.message.content == whole[: whole.index(stop)].rstrip()
    assert out.finish_reason == "stop"


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        ([" a", " b ", "c\n"], [], ["a", " b", " c", ""]),
        (["ab", "END"], ["bEND"], ["a", "", ""]),
        (["ab", "EN", "x"], ["bEND"], ["a", "", "bENx", ""]),
        (["one\n", "\ntwo"], ["\n\n"], ["one", "", ""]),
    ],
)
def test_what_may_begin_a_stop_is_kept_back(pieces, stops, shown):
    seen = Visible(stops)
    assert [*(seen.add(piece) for piece in pieces), seen.finish()] == shown


def test_a_packaged_model_keeps_its_name_where_a_folder_is_called_so(tmp_path, monkeypatch):
    (tmp_path / "janusflow" / "scenes").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert known_as("janusflow/scenes") == "janusflow/scenes"
    assert known_as(str(tmp_path / "mine")) == "mine" and known_as("org/name") == "org/name"


def test_models_and_health_answer(client, served):
    assert [one.id for one in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"


# What is refused

IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"
NO_TEXT = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url()}}]}]
REFUSED = {
    "a blank prompt": (IMAGES, {"prompt": " \n"}, "prompt"),
    "no prompt": (IMAGES, {}, "prompt"),
    "half a letter": (IMAGES, {"prompt": "\ud800"}, "prompt"),
    "a NUL": (IMAGES, {"prompt": "a\0"}, "prompt"),
    "a long prompt": (IMAGES, {"prompt": "a" * 4001}, "prompt"),
    "a number as prompt": (IMAGES, {"prompt": 7}, "prompt"),
    "an unknown parameter": (IMAGES, DRAFT | {"stile": 1}, "stile"),
    "a style": (IMAGES, DRAFT | {"style": "vivid"}, "style"),
    "too many images": (IMAGES, DRAFT | {"n": 11}, "n"),
    "images in words": (IMAGES, DRAFT | {"n": "2"}, "n"),
    "true images": (IMAGES, DRAFT | {"n": True}, "n"),
    "NaN": (IMAGES, DRAFT | {"guidance_scale": float("nan")}, "guidance_scale"),
    "infinity": (IMAGES, DRAFT | {"guidance_scale": float("inf")}, "guidance_scale"),
    "a large seed": (IMAGES, DRAFT | {"seed": 2**63}, "seed"),
    "a huge size": (IMAGES, DRAFT | {"size": "8192x8192"}, "size"),
    "an odd size": (IMAGES, DRAFT | {"size": "95x96"}, "size"),
    "no size": (IMAGES, DRAFT | {"size": "large"}, "size"),
    "transparency": (IMAGES, DRAFT | {"background": "transparent"}, "background"),
    "compressed PNG": (IMAGES, DRAFT | {"output_compression": 50}, "output_compression"),
    "another model": (IMAGES, DRAFT | {"model": "dall-e-3"}, "model"),
    "no messages": (CHAT, {"messages": []}, "messages"),
    "no text": (CHAT, {"messages": NO_TEXT}, "messages"),
    "a tool": (CHAT, {"messages": asked(), "tools": []}, "tools"),
    "a penalty": (CHAT, {"messages": asked(), "presence_penalty": 1.0}, "presence_penalty"),
    "an image elsewhere": (CHAT, {"messages": asked(url="http://x/y.png")}, "messages.0.content"),
    "a file here": (CHAT, {"messages": asked(url="file:///etc/passwd")}, "messages.0.content"),
    "no image": (CHAT, {"messages": asked(url="data:image/png;base64,AAAA")}, "messages.0.content"),
    "no base64": (CHAT, {"messages": asked(url="data:image/png;base64,%%")}, "messages.0.content"),
    "half base64": (CHAT, {"messages": asked(url="data:image/png;base64,A")}, "messages.0.content"),
    "a number as stop": (CHAT, {"messages": asked(), "stop": 3}, "stop"),
    "a long name": (IMAGES, DRAFT | {"k" * 100_000: 1}, f"{'k' * 49} ... {'k' * 26}"),
    "both limits": (CHAT, {"messages": asked(), "max_tokens": 1, "max_completion_tokens": 1}, None),
    "five stops": (CHAT, {"messages": asked(), "stop": list("abcde")}, None),
    "a stream's option": (CHAT, {"messages": asked(), "stream_options": {}}, None),
    "an unknown role": (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    "an answer to go on": (CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    "a long answer": (CHAT, {"messages": asked(), "max_tokens": 10**9}, "max_tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(case, served):
    path, content, param = REFUSED[case]
    answer = httpx.post(
        served.url + path,
        content=json.dumps(content),
        headers={"content-type": "application/json"},
    )
    error = answer.json()["error"]
    assert answer.status_code == (404 if case == "another model" else 400), error
    assert error["param"] == param and error["type"] and len(error["message"]) <= 300
    assert param is None or param.split(".")[0] in error["message"] or "messages" in param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"[" * 100_000, b"null"])
def test_a_body_that_is_no_object_is_refused(body, served):
    answer = httpx.post(
        served.url + IMAGES, content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_the_clients_exceptions_are_openais(client):
    with pytest.raises(openai.BadRequestError, match="prompt is blank") as caught:
        client.images.generate(prompt=" ")
    assert caught.value.param == "prompt"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt"):
        client.chat.completions.create(model="gpt", messages=asked())


def test_other_routes_and_methods_are_told(served):
    assert httpx.get(f"{served.url}/v1/embeddings").status_code == 404
    answer = httpx.get(served.url + IMAGES)
    assert answer.status_code == 405 and "error" in answer.json()


# Who may ask


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:80"}, 403),
        ({"host": "localhost:9"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 200),
    ],
)
def test_only_this_machines_names_and_pages_may_ask(headers, status, served):
    assert httpx.get(f"{served.url}/v1/models", headers=headers).status_code == status
    own = httpx.get(f"{served.url}/v1/models", headers={"origin": served.url})
    assert own.status_code == 200


def test_a_large_body_is_refused_with_and_without_its_length(served):
    def parts():
        for _ in range(20):
            yield b" " * 2**17

    for content in (b" " * (BODY + 1), parts()):
        answer = httpx.post(served.url + IMAGES, content=content)
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
        assert len(answer.content) < 500


def test_a_key_is_asked_for_where_there_is_one(tiny_pipe):
    made = Served(tiny_pipe, MODEL, key="secret", hosts=["box.example"])
    try:
        with pytest.raises(openai.AuthenticationError):
            made.client(api_key="wrong").models.list()
        assert [m.id for m in made.client(api_key="secret").models.list()] == [MODEL]
        assert httpx.get(f"{made.url}/health").status_code == 200
        named = {"host": "box.example", "authorization": "Bearer secret"}
        assert httpx.get(f"{made.url}/v1/models", headers=named).status_code == 200
    finally:
        made.stop()


# Many at once


def slow(pipe, monkeypatch, seconds=0.05):
    """Every evaluation takes longer."""
    field = pipe.field

    def made(*args, **kwargs):
        inner = field(*args, **kwargs)
        time.sleep(seconds)
        return inner

    monkeypatch.setattr(pipe, "field", made)


def test_a_full_queue_says_when_to_come_again(served, monkeypatch, tiny_pipe):
    slow(tiny_pipe, monkeypatch, 0.5)

    def ask(_):
        return httpx.post(served.url + IMAGES, json=DRAFT, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) >= 4 and set(codes) == {200, 429}
    full = answers[codes.index(429)]
    assert int(full.headers["retry-after"]) >= 1
    assert full.json()["error"]["type"] == "rate_limit_error"


def test_who_leaves_frees_his_place_and_stops_the_work(served, tiny_pipe, monkeypatch):
    steps = []
    velocity = type(tiny_pipe.model).velocity

    def watched(self, *args, **kwargs):
        steps.append(1)
        time.sleep(0.02)
        return velocity(self, *args, **kwargs)

    monkeypatch.setattr(type(tiny_pipe.model), "velocity", watched)
    request = DRAFT | dict(n=10, num_inference_steps=100)
    for _ in range(3):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(served.url + IMAGES, json=request, timeout=0.3)
    assert until(lambda: served.worker.busy == 0)
    done = len(steps)
    time.sleep(0.2)
    assert len(steps) == done < 400


def test_a_signal_ends_what_waits_with_openais_error(tiny_pipe, monkeypatch):
    made = Served(tiny_pipe, MODEL)
    handled = stopping(made.server.handle_exit, made.worker)
    velocity = type(tiny_pipe.model).velocity

    def slower(self, *args, **kwargs):
        time.sleep(0.05)
        return velocity(self, *args, **kwargs)

    monkeypatch.setattr(type(tiny_pipe.model), "velocity", slower)
    with ThreadPoolExecutor(2) as pool:
        request = DRAFT | dict(n=10, num_inference_steps=100)
        waiting = [pool.submit(httpx.post, made.url + IMAGES, json=request, timeout=60)] * 2
        assert until(lambda: made.worker.busy)
        handled(signal.SIGINT, None)
        for answer in (one.result() for one in waiting):
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "stopping"
    made.thread.join(30)
    assert not made.thread.is_alive()


def test_who_leaves_a_stream_stops_the_answer(served, client):
    stream = client.chat.completions.create(
        model=MODEL, messages=asked(), max_tokens=900, stream=True
    )
    next(iter(stream))
    stream.close()
    assert until(lambda: served.worker.busy == 0)
