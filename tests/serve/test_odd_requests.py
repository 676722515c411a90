"""Unusual requests of OpenAI's kind are served as meant, or refused by the name of their part."""

import base64
import io
import signal
import socket

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import httpx
from served import Served

from janusflow.models.janusflow.chat_format import read_turns
from janusflow.serve import answers, server
from janusflow.serve.schemas import Message


@pytest.fixture(scope="module")
def served(tiny_pipe):
    made = Served(tiny_pipe, "tiny")
    yield made
    made.stop()


def png(image: Image.Image) -> bytes:
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


RED = base64.b64encode(png(Image.new("RGB", (96, 96), "red"))).decode()
TEXT = {"type": "text", "text": "what is it?"}


def ask(served, *parts, **more):
    content = {"messages": [{"role": "user", "content": list(parts or [TEXT])}], "max_tokens": 4}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=content | more, timeout=60)
    return answer.status_code, answer.json()


def shown(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def test_an_image_may_be_wrapped_in_lines_and_its_scheme_in_capitals(served):
    expected = ask(served, TEXT, shown(f"data:image/png;base64,{RED}"))[1]["choices"]
    lines = "\n".join(RED[i : i + 76] for i in range(0, len(RED), 76))
    for url in (f"data:image/png;base64,{lines}\n", f"DATA:image/PNG;BASE64,{RED}"):
        assert ask(served, TEXT, shown(url))[1]["choices"] == expected


def test_images_after_the_text_are_read_before_it_and_interleaved_ones_where_they_stand(served):
    red, also = shown(f"data:image/png;base64,{RED}"), {"type": "text", "text": "and here?"}

    def sent(*parts):
        turns = answers._turns([Message(role="user", content=list(parts))])
        return read_turns(turns, "I")[0].text

    assert sent(TEXT, red, red) == sent(red, red, TEXT) == f"I\nI\n{TEXT['text']}"
    assert sent(TEXT, red, also, red) == f"{TEXT['text']}I\n{also['text']}I\n"
    assert ask(served, TEXT, red)[1]["choices"] == ask(served, red, TEXT)[1]["choices"]


@pytest.mark.parametrize("temperature", [0, 1e-9, 1e-300])
def test_a_very_cold_answer_is_the_greedy_one(served, temperature):
    expected = ask(served)[1]["choices"]
    assert ask(served, temperature=temperature, seed=1)[1]["choices"] == expected


PLACE = "messages.0.content.1"
PARTS = {
    "another kind": ({"type": "input_image"}, f"{PLACE}.type is 'input_image'; expected 'text', "),
    "no kind": ({"text": "x"}, f"{PLACE}.type is missing; give it"),
    "a text": ("x", f"{PLACE} is 'x'; expected a JSON object"),
    "detail": (
        {"type": "image_url", "image_url": {"url": "data:", "detail": "high"}},
        f"{PLACE}.image_url.detail is 'high'; it should be 'auto' or 'low'",
    ),
    "bare url": ({"type": "image_url", "image_url": "x"}, f"{PLACE}.image_url is 'x'; expected a"),
    "no text": ({"type": "text"}, f"{PLACE}.text is missing; give it"),
    "no image": (shown("data:image/png;base64,"), "the image is not a complete image (it is empty"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_that_is_not_read_is_named(served, case):
    part, said = PARTS[case]
    status, content = ask(served, TEXT, part)
    assert status == 400 and content["error"]["message"].startswith(said), content


SETTINGS = {
    "stop": ("", "stop is ''; it should have at least 1 character"),
    "messages": ([], "messages is []; it should have at least 1 item"),
    "response_format": ("text", "response_format is 'text'; expected a JSON object"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_another_kind_is_told_in_one_sentence(served, name):
    value, said = SETTINGS[name]
    assert ask(served, **{name: value})[1]["error"]["message"] == said


def test_an_edit_of_another_shape_says_what_to_send(served):
    wide, square = (png(Image.new("RGBA", size)) for size in ((120, 80), (96, 96)))

    def edit(**files):
        sent = {name: ("a.png", content, "image/png") for name, content in files.items()}
        given = dict(files=sent, data={"prompt": "a star"}, timeout=60)
        return httpx.post(f"{served.url}/v1/images/edits", **given).json()["error"]

    error = edit(image=wide)
    said = "the image is 120 x 80; crop it to a square, or give a size to stretch it to"
    assert (error["message"], error["param"]) == (said, "image")
    error = edit(image=square, mask=wide)
    said = "the mask is 120 x 80 and the image 96 x 96; make them the same size"
    assert (error["message"], error["param"]) == (said, "mask")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"prompt": "a", "seed": 1, "seed": 2}', "seed"),
        ('{"prompt": "a", "other": {"x": 1, "x": 1}}', "x"),
    ],
)
def test_a_key_that_comes_twice_is_refused_by_its_name(served, body, param):
    kind = {"content-type": "application/json"}
    answer = httpx.post(f"{served.url}/v1/images/generations", content=body, headers=kind)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param
    assert error["message"] == f"{param} came twice; give it once"


def test_a_parameter_in_the_address_is_refused_and_azures_version_is_not(served):
    place, body = f"{served.url}/v1/chat/completions", {"messages": []}
    error = httpx.post(place, params={"seed": "3"}, json=body).json()["error"]
    assert error["message"] == "seed stands in the address; send it in the body"
    error = httpx.post(place, params={"api-version": "1"}, json=body).json()["error"]
    assert error["param"] == "messages"


def test_an_address_takes_connections_before_the_server_runs():
    with server.listen("127.0.0.1", 0) as listening:
        socket.create_connection(listening.getsockname(), timeout=5).close()


def test_a_closed_terminal_stops_the_server_and_then_the_command():
    came = []
    handler = server.once(lambda number, _: came.append(number), signal.SIG_IGN)
    before = signal.signal(signal.SIGHUP, handler)
    try:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert came == [signal.SIGHUP] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
