"""JanusFlow: images from text and answers about images, from one rectified-flow model."""

import sys
from importlib import import_module

from janusflow import _moved
from janusflow.utils import auto_classes
from janusflow.utils.version import VERSION

__version__ = VERSION

# Names are imported when first used, so that `janusflow --help` answers at once.
_HOMES = {
    "JanusFlowConfig": "models.janusflow.configuration",
    "JanusFlowModel": "models.janusflow.modeling",
    "JanusFlowPipeline": "pipelines.pipeline_janusflow",
    "JanusFlowProcessor": "models.janusflow.processing",
    "JanusFlowTokenizer": "models.janusflow.auto_processing",
    "JanusProPipeline": "pipelines.pipeline_janus_pro",
    "JanusProProcessor": "models.janus_pro.processing",
    "VLChatProcessor": "models.janusflow.auto_processing",
    "load": "pipelines.auto_pipeline",
}
__all__ = list(_HOMES)

_moved.install()
auto_classes.install(sys.modules[__name__])


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f"janusflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'janusflow' has no attribute {name!r}")
