"""The classes that published folders name for AutoProcessor and AutoTokenizer."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.utils.hub import locate
from janusflow.utils.safe_io import read_object

# what transformers' own loading passes to every part; also what begins with _
OF_AUTO = ("trust_remote_code", "code_revision", "use_fast", "config", "task")
OF_MODEL = ("dtype", "torch_dtype", "device_map", "model_kwargs")


class VLChatProcessor:
    """The processor class that every published folder names; it returns JanusFlow's or Janus's
    processor.
    """

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub) -> JanusFlowProcessor:
        """Loads the processor of a folder or hub id, of either family.

        Raises ValueError if there is none.
        """
        hub = {
            key: value
            for key, value in hub.items()
            if key not in OF_AUTO + OF_MODEL and not key.startswith("_") and value is not None
        }
        folder = locate(name, files=["*.json", "*.jinja"], **hub)
        path = folder / "config.json"
        if path.is_file() and "gen_vision_config" in read_object(path):
            from janusflow.models.janus_pro.processing import JanusProProcessor

            return JanusProProcessor.from_pretrained(folder)
        return JanusFlowProcessor.from_pretrained(folder)


class JanusFlowTokenizer:
    """The tokenizer in tokenizer.json, unchanged, with BOS first and padding on the left."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub) -> PreTrainedTokenizerFast:
        """Loads the tokenizer of the folder's processor, including the image tags."""
        return VLChatProcessor.from_pretrained(name, **hub).tokenizer
