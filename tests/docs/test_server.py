"""The code of docs/server.md runs against the server that the page is about."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("openai")
from served import Served

PAGE = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text(encoding="utf-8")


def test_the_pages_client_gets_an_image_and_an_answer(tiny_pipe, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    served = Served(tiny_pipe, "janusflow/scenes")
    try:
        scope = {}
        exec(snippet.replace("http://127.0.0.1:8000", served.url), scope)
    finally:
        served.stop()
    assert scope["png"].startswith(b"\x89PNG") and capsys.readouterr().out.strip()
