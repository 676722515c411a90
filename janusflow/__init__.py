"""JanusFlow: one rectified-flow model that generates images from text and answers questions about
images.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from janusflow import _moved
from janusflow.utils import auto_classes
from janusflow.utils.version import VERSION

if TYPE_CHECKING:  # for completion and for checkers of types
    from janusflow.models.janus_pro.processing import JanusProProcessor
    from janusflow.models.janusflow.auto_processing import (
        JanusFlowTokenizer,
        VLChatProcessor,
        VLMImageProcessor,
    )
    from janusflow.models.janusflow.configuration import JanusFlowConfig
    from janusflow.models.janusflow.modeling import JanusFlowModel
    from janusflow.models.janusflow.processing import JanusFlowProcessor
    from janusflow.pipelines.auto_pipeline import load
    from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline
    from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline

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
    "VLMImageProcessor": "models.janusflow.auto_processing",
    "load": "pipelines.auto_pipeline",
}
__all__ = [
    "JanusFlowConfig",
    "JanusFlowModel",
    "JanusFlowPipeline",
    "JanusFlowProcessor",
    "JanusFlowTokenizer",
    "JanusProPipeline",
    "JanusProProcessor",
    "VLChatProcessor",
    "VLMImageProcessor",
    "load",
]

_moved.install()
auto_classes.install(sys.modules[__name__])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"janusflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'janusflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
