"""JanusFlow: pictures from text and answers about pictures, from one rectified-flow model."""

from importlib import import_module

__version__ = "0.1.0"

# Names are imported when first used, so that `janusflow --help` answers at once.
_HOMES = {
    "JanusFlowConfig": "configuration_janusflow",
    "JanusFlowModel": "modeling_janusflow",
    "JanusFlowPipeline": "pipeline_janusflow",
    "JanusFlowProcessor": "processing_janusflow",
    "JanusProPipeline": "pro.pipeline",
    "JanusProProcessor": "pro.processing",
    "load": "loading",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"janusflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'janusflow' has no attribute {name!r}")
