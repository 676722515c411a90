"""The server of docs/server.md answers as OpenAI's route does."""

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

PAGE = (Path(__file__).parent.parent.parent / "docs" / "server.md").read_text(encoding="utf-8")
ROUTE = "/v1/images/generations"


@pytest.fixture(scope="module")
def client():
    from fastapi.testclient import TestClient

    scope = {"__name__": "server"}
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "docs/server.md", "exec"), scope)
    return TestClient(scope["app"])


def test_a_wish_comes_back_as_base64_pictures(client):
    answer = client.post(ROUTE, json={"prompt": "a red circle", "n": 2, "model": "any"})
    assert answer.status_code == 200
    told = answer.json()
    assert isinstance(told["created"], int) and len(told["data"]) == 2
    files = [base64.b64decode(one["b64_json"], validate=True) for one in told["data"]]
    assert all(Image.open(io.BytesIO(file)).format == "PNG" for file in files)
    assert files[0] != files[1]


@pytest.mark.parametrize("wrong", [{"prompt": ""}, {"n": 5}, {"response_format": "url"}])
def test_a_wish_outside_the_bounds_is_refused(client, wrong):
    assert client.post(ROUTE, json={"prompt": "a star"} | wrong).status_code == 422
