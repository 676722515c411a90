"""Janus-Pro and Janus: pictures as tokens of a codebook, behind JanusFlow's calls."""

from importlib import import_module

_HOMES = {
    "JanusProOutput": "pipeline",
    "JanusProPipeline": "pipeline",
    "JanusProProcessor": "processing",
}
__all__ = ["JanusProOutput", "JanusProPipeline", "JanusProProcessor"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"janusflow.pro.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'janusflow.pro' has no attribute {name!r}")
