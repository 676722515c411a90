"""The classes that published folders name for AutoProcessor, AutoTokenizer and others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from transformers import BatchFeature, PreTrainedTokenizerFast

from janusflow.models.janusflow.image_processing import JanusFlowImageProcessor
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.utils import atomic_io
from janusflow.utils.hub import KEYWORDS, locate
from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.safe_io import read_object

# what transformers' own loading passes to every part; also what begins with _
OF_AUTO = ("trust_remote_code", "code_revision", "use_fast", "config", "task")
FILE = "preprocessor_config.json"
OF_MODEL = ("dtype", "torch_dtype", "device_map", "model_kwargs")


class VLChatProcessor:
    """The processor class that every published folder names; it gives JanusFlow's or Janus's."""

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub) -> JanusFlowProcessor:
        """Loads the processor of either family by folder or hub id. Raises ValueError without."""
        hub = _of_hub(hub)
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


class VLMImageProcessor:
    """The image processor of a folder, with the interface of transformers' image processors.

    `processor(images)["pixel_values"]` is (N, 3, S, S), resized, padded to a square and normalised.
    """

    model_input_names = ("pixel_values",)

    def __init__(self, **config):
        self.config = config
        self.pixels = JanusFlowImageProcessor.from_dict(config)

    @classmethod
    def from_pretrained(cls, name: str | Path, **changes) -> VLMImageProcessor:
        """Loads preprocessor_config.json from a folder or hub id; keywords replace its settings.

        Raises ValueError if there is none, and TypeError for an unknown setting.
        """
        asked = _of_hub(changes)
        known = JanusFlowImageProcessor.__dataclass_fields__
        own = {key: asked.pop(key) for key in [*asked] if key in known}
        refuse_unknown(f"{cls.__name__}.from_pretrained", asked, [*known, *KEYWORDS])
        path = locate(name, files=[FILE], **asked) / FILE
        if not path.is_file():
            raise ValueError(f"{str(name)!r} lacks {FILE}; take it from the published checkpoint")
        return cls.from_dict(read_object(path), **own)

    @classmethod
    def from_dict(cls, config: Mapping, **changes) -> VLMImageProcessor:
        """Returns a processor with the settings of preprocessor_config.json and of keywords."""
        return cls(**{**config, **changes})

    def __call__(self, images, return_tensors: str | None = None, **given) -> BatchFeature:
        """Prepares images (PIL, arrays or tensors). `return_tensors` is "pt" or "np"."""
        refuse_unknown(type(self).__name__, given, ["images", "return_tensors"])
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors is {return_tensors!r:.40}; choose pt or np")
        pixels = self.pixels(images)
        return BatchFeature({"pixel_values": pixels.numpy() if return_tensors == "np" else pixels})

    preprocess = __call__

    @property
    def size(self) -> dict[str, int]:
        """The sides of the square in pixels, in transformers' form."""
        return dict.fromkeys(("height", "width"), self.pixels.image_size)

    def to_dict(self) -> dict:
        """Returns the content of preprocessor_config.json."""
        return dict(self.config)

    def save_pretrained(self, folder: str | Path, **given) -> list[str]:
        """Writes preprocessor_config.json; returns its path."""
        refuse_unknown(f"{type(self).__name__}.save_pretrained", given, ["folder"])
        atomic_io.make_folder(Path(folder))
        text = json.dumps(self.config, indent=2, ensure_ascii=False) + "\n"
        atomic_io.write_text(Path(folder) / FILE, text)
        return [str(Path(folder) / FILE)]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.config, indent=2)}"


def _of_hub(given: Mapping) -> dict:
    """Returns the keywords for a hub's folder, without those for transformers only."""
    dropped = OF_AUTO + OF_MODEL
    return {
        key: value
        for key, value in given.items()
        if key not in dropped and not key.startswith("_") and value is not None
    }
