"""The page of the tiny model, served once for the tests of a file."""

import pytest


@pytest.fixture(scope="module")
def address(tiny_pipe):
    pytest.importorskip("gradio", minversion="6", reason="the extra `demo` is not installed")
    from janusflow.demo import launch

    blocks, address = launch.start(tiny_pipe, "tiny", wait=False)
    yield address
    blocks.close(verbose=False)
