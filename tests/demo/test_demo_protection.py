"""The page gives nothing of the machine away, and takes nothing that was not asked for."""

import io

import pytest
from PIL import Image

pytest.importorskip("gradio", minversion="6", reason="the extra `demo` is not installed")
import httpx
from demo_client import ASKED

from janusflow.demo import protection, requests


def png():
    file = io.BytesIO()
    Image.radial_gradient("L").save(file, "PNG")
    return file.getvalue()


def test_a_file_above_the_limit_does_not_come_in(address):
    files = {"files": ("p.png", b"\0" * (8 * 2**20 + 1))}
    assert httpx.post(f"{address}gradio_api/upload", files=files).status_code == 413


def call(address, name, *data):
    """What the server says to a hand-made request, as text."""
    base = f"{address}gradio_api/call/{name}"
    event = httpx.post(base, json={"data": list(data)}).json()["event_id"]
    return httpx.get(f"{base}/{event}", timeout=30).text


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "README.md", "../../../etc/passwd", "http://127.0.0.1:9/p.png", 3],
)
def test_no_path_from_a_request_is_opened(path, address, monkeypatch):
    opened = []
    monkeypatch.setattr(requests, "image", opened.append)
    sent = {"path": path, "meta": {"_type": "gradio.FileData"}}
    told = call(address, "ask", sent, "what?", [])
    assert opened == [] and "event: error" in told and "event: complete" not in told
    assert "etc" not in told and "janusflow" not in told and "cache" not in told


def test_embedded_data_in_place_of_a_file_is_not_decoded(address):
    sent = {"url": "data:image/png;base64,AAAA", "meta": {"_type": "gradio.FileData"}}
    assert "role" not in call(address, "ask", sent, "what?", [])


@pytest.mark.parametrize("path", ["/etc/passwd", __file__, "README.md", "../../etc/passwd"])
def test_no_file_of_the_machine_is_served(path, address):
    for way in ("file=", "file/"):
        assert httpx.get(f"{address}gradio_api/{way}{path}").status_code in (403, 404)


def test_an_error_inside_tells_nothing_of_the_machine(address, tiny_pipe, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("/root/secret.safetensors is broken")

    monkeypatch.setattr(tiny_pipe, "field", fail)
    told = call(address, "paint", *ASKED.values(), [])
    assert "This did not work" in told
    assert "secret" not in told and "Error:" not in told and "Traceback" not in told
    assert "secret" in caplog.text


STRANGE = [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}]


@pytest.mark.parametrize("headers", STRANGE, ids=str)
def test_other_names_and_pages_neither_send_files_nor_ask(headers, address):
    base = f"{address}gradio_api/"
    files = {"files": ("p.png", png())}
    asked = {
        "data": ["a", "", "own", "euler", 2, 2.0, 0, 1, []],
        "session_hash": "x",
        "fn_index": 0,
    }
    assert httpx.post(f"{base}upload", files=files, headers=headers).status_code == 403
    assert httpx.post(f"{base}queue/join", json=asked, headers=headers).status_code == 403
    assert httpx.get(address, headers=headers).status_code == 403


@pytest.mark.parametrize("index", [999, -1, 10**9])
def test_a_function_that_there_is_not_is_no_failure_of_ours(index, address):
    asked = {"data": [], "session_hash": "x", "fn_index": index}
    for route in ("queue/join", "run/predict", "api/nothing", "call/nothing"):
        answer = httpx.post(f"{address}gradio_api/{route}", json=asked)
        assert 400 <= answer.status_code < 500, (route, answer.text)


def test_a_large_body_that_is_no_file_does_not_come_in(address):
    content = b"{" + b" " * 2**19
    answer = httpx.post(f"{address}gradio_api/queue/join", content=content)
    assert answer.status_code == 413


def test_a_visitor_sends_so_much_an_hour_and_no_more(monkeypatch):
    import asyncio

    taken, now = [], [0.0]
    monkeypatch.setattr(protection.time, "monotonic", lambda: now[0])

    async def app(_scope, receive, send):
        taken.append(len((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def upload(who):
        codes = []

        async def receive():
            return {"type": "http.request", "body": b"x" * 60}

        async def send(message):
            codes.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "client": (who, 1)}
        await quota({**scope, "headers": []}, receive, send)
        return codes[0]

    quota = protection.Quota(app, each=100, everyone=200)
    visitors = ["a", "a", "a", "b", "b", "c"]
    codes = [asyncio.run(upload(who)) for who in visitors]
    assert codes == [200, 200, 429, 200, 200, 429] and sum(taken) == 240
    now[0] = 3601.0
    assert asyncio.run(upload("a")) == 200


def test_it_listens_on_this_machine_only_and_asks_no_other(address):
    assert address.startswith("http://127.0.0.1:")
    text = httpx.get(address).text
    assert "fonts.googleapis" not in text and "gradio.s3" not in text
