"""JanusFlow as a transformers model: weights, embeddings, and generation defaults."""

import inspect
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers import initialization as init

from janusflow.models.janusflow import generation_defaults
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.generation_adapters import (
    ConvNextBlock,
    GlobalResponseNorm,
    VelocityHead,
)
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.models.output_hooks import state_without_hooks
from janusflow.utils import finite
from janusflow.utils.atomic_io import readable
from janusflow.utils.checkpoint_files import (
    check_shards,
    check_size,
    check_variant,
    check_variant_name,
    chosen_files,
    one_layout,
)
from janusflow.utils.cpu.malloc import returned
from janusflow.utils.cpu.onednn_linear import use_onednn
from janusflow.utils.hub import PACKAGED, PUSHING, unlist
from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.text import printable

KEYWORDS = (
    "config",
    "dtype",
    "variant",
    "device_map",
    "quantization_config",
    "attn_implementation",
)
BEFORE = ("safe_serialization", "save_function")  # of transformers 4
Own = TypeVar("Own", bound="JanusFlowPreTrainedModel")
GUIDED = "guidance_scale"
TOKEN_SEARCH = ("assistant_model", GUIDED, "negative_prompt_ids")  # settings of `generate`


class JanusFlowPreTrainedModel(PreTrainedModel):
    """The methods that transformers, its Trainer and peft expect beside the network."""

    config_class = JanusFlowConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ("LlamaDecoderLayer", "ConvNextBlock", "Block")

    def __getstate__(self) -> dict:
        return state_without_hooks(self)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialises weights by transformers' rule; parts unknown to it start as the identity."""
        super()._init_weights(module)
        if isinstance(module, GlobalResponseNorm):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ConvNextBlock):
            init.zeros_(module.cond_embeds_mapper.weight)
            init.zeros_(module.cond_embeds_mapper.bias)
        elif isinstance(module, VelocityHead):
            init.zeros_(module.unpatch_conv.weight)
        elif isinstance(module, VisionEncoder):
            init.normal_(module.vision_tower.pos_embed, std=0.02)
            init.normal_(module.vision_tower.attn_pool.latent, std=0.02)
        elif isinstance(module, JanusFlowPreTrainedModel):
            init.normal_(module.beg_of_und_embed, std=0.02)

    @property
    def generation_config(self) -> GenerationConfig:
        """The default settings of `generate`; model and language model share one object."""
        inner = self.__dict__["_modules"].get("language_model")
        return self.__dict__["_answers"] if inner is None else inner.generation_config

    @generation_config.setter
    def generation_config(self, config: GenerationConfig) -> None:
        inner = self.__dict__["_modules"].get("language_model")
        if inner is None:  # while the model is being built
            self.__dict__["_answers"] = config
        else:
            inner.generation_config = config

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(use_onednn(value))

    def _check_ids(self, ids: torch.Tensor | None, name: str) -> None:
        """Raises ValueError for another shape than (B, L), and for an id beyond the vocabulary; the
        latter on a CPU only, to avoid waiting.
        """
        if ids is None:
            return
        if not isinstance(ids, torch.Tensor):
            raise TypeError(
                f"{name} are of type {type(ids).__name__}; expected a tensor (B, L), as the "
                "processor returns it"
            )
        if ids.ndim != 2 or not ids.numel():
            raise ValueError(
                f"{name} have the shape {tuple(ids.shape)}; expected (B, L), a row a prompt and at "
                "least one token"
            )
        if ids.device.type != "cpu":
            return
        rows = self.config.language_config.vocab_size  # an adapted embedding says no size
        most, least = ids.max().item(), ids.min().item()
        if most >= rows or least < 0 or ids.is_floating_point():
            wrong = least if least < 0 else most
            raise ValueError(
                f"{name} hold {wrong} of {ids.dtype}; expected whole numbers from 0 and below the "
                f"vocabulary's {rows}, from this model's processor"
            )

    def _refuse_token_search(self, settings: dict) -> None:
        """Raises ValueError for settings of `generate` that read the prompt's ids once more, where
        there are embeddings of text and images.
        """
        given = {name: settings.get(name) for name in TOKEN_SEARCH}
        if found := [n for n, v in given.items() if not (v is None or (n == GUIDED and v == 1))]:
            raise ValueError(
                f"{found[0]} reads a prompt by its ids, and this model's prompts are embeddings of "
                "text and images; leave it out"
            )

    def _loss_settings(
        self, labels: torch.Tensor | None, shape: torch.Size, given: dict
    ) -> dict[str, torch.Tensor]:
        """Returns the number that divides the sum of the tokens' losses: the caller's, or how many
        labels count, and at least 1, so that a batch without any has the loss 0 and not 0 / 0.

        Raises ValueError for labels of another shape than the prompt's, and beyond the vocabulary.
        """
        if labels is None:
            return {}
        if not isinstance(labels, torch.Tensor):
            self._check_ids(labels, "labels")
        if labels.shape != shape:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)} and the prompt {tuple(shape)}; give one "
                "label a token, -100 for none"
            )
        self._check_ids(labels.masked_fill(labels == -100, 0), "labels")
        counted = labels[:, 1:] != -100
        if counted.device.type == "cpu" and not counted.any():
            warnings.warn(
                "no label counts, as all are -100 but the first token's; the loss is 0 and nothing "
                "is learnt, check what makes the labels",
                stacklevel=3,
            )
        number = given.get("num_items_in_batch")
        number = counted.sum() if number is None else number
        elsewhere = isinstance(number, torch.Tensor) and number.device.type != "cpu"  # would wait
        known = elsewhere or isinstance(number, int | float | torch.Tensor)
        if not known or not (elsewhere or number >= 0):
            raise ValueError(
                f"num_items_in_batch is {number!r:.60}; expected how many labels count, at least 0"
            )
        return dict(num_items_in_batch=torch.as_tensor(number).clamp(min=1))

    def _check_sequence(self, embeds: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Raises ValueError for more tokens than positions, and for a mask of other tokens."""
        self.check_length(embeds.shape[1])
        if getattr(mask, "ndim", None) != 2:
            return
        if mask.shape[0] not in (1, embeds.shape[0]) or mask.shape[1] < embeds.shape[1]:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)} and the prompt "
                f"{tuple(embeds.shape[:2])}; give one number a token, 0 for padding"
            )

    def _checked_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns images as the processor makes them. Raises ValueError for other sizes and for
        whole numbers, which are not normalised.
        """
        side = self.config.vision.image_size
        if pixels.shape[-3:] != (3, side, side) or not pixels.is_floating_point():
            raise ValueError(
                f"pixel_values are {pixels.dtype} of shape {tuple(pixels.shape)}; expected floats "
                f"(images, 3, {side}, {side}), as this model's processor makes them"
            )
        return pixels

    def _check_images(self, ids: torch.Tensor) -> None:
        """Raises ValueError for a prompt with the place of an image, where no image came."""
        own = self.__dict__.get("image_token_id")
        if own is not None and bool((ids == own).any()):
            raise ValueError(
                "input_ids hold the places of an image, and pixel_values did not come; pass on all "
                "that the processor returned, as in generate(**inputs)"
            )

    @classmethod
    def from_pretrained(cls: type[Own], name, *args, **kwargs) -> Own:
        """Loads safetensors. Raises ValueError if names or shapes differ from the configuration."""
        wants_info = kwargs.pop("output_loading_info", False)
        name = PACKAGED.get(str(name), name)
        if Path(name).is_dir() and "subfolder" not in kwargs:
            config = kwargs.get("config") or JanusFlowConfig.from_pretrained(name)
            check_size(config.parameters or _counted(cls, config), Path(name))
            check_variant(Path(name), kwargs.get("variant"))
        if kwargs.get("generation_config") is None:
            kwargs["generation_config"] = generation_defaults.read(name, **kwargs)
        kwargs |= dict(use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True)
        try:
            if kwargs.get("quantization_config") is None:
                with _without_report():
                    model, info = super().from_pretrained(name, *args, **kwargs)
            else:
                with returned(), _without_report():
                    model, info = super().from_pretrained(*_apart(name, kwargs), *args, **kwargs)
                    _let_go(model)
                    model.name_or_path = model.config.name_or_path = str(name)
        except (SafetensorError, RuntimeError, KeyError, TypeError, AssertionError) as error:
            _refuse_keyword(cls.__name__, error, kwargs)
            reason = printable(error, 200)
            raise ValueError(
                f"the files in {str(name)!r} make no model ({reason}); fetch config.json and the "
                "weights again"
            ) from error
        for fault in ("missing", "unexpected", "mismatched"):
            _refuse(name, fault, info.get(f"{fault}_keys") or ())
        finite.check_weights(model.state_dict(), repr(str(name)))
        rows = model.get_input_embeddings().num_embeddings
        generation_defaults.check_rows(model.generation_config, rows, name)
        model.__dict__["image_token_id"] = generation_defaults.image_id(name, **kwargs)
        return (model, info) if wants_info else model

    def save_pretrained(self, folder, *args, **kwargs) -> None:
        """Writes the published layout.

        Raises ValueError for quantised weights, and TypeError for an unknown keyword; of those that
        transformers 4 took, `safe_serialization` may be true and `save_function` is not needed.
        """
        kwargs = _saving(f"{type(self).__name__}.save_pretrained", kwargs)
        if getattr(self, "hf_quantizer", None) is not None:
            raise ValueError(
                "these weights are quantised, and the published layout holds plain ones; save the "
                "model as it was loaded from, and quantise when loading"
            )
        check_shards(kwargs.get("max_shard_size"))
        check_variant_name(kwargs.get("variant"))
        with one_layout(Path(folder), "model", kwargs.get("variant")):
            super().save_pretrained(folder, *args, **kwargs)
        unlist(Path(folder))
        if not generation_defaults.said(self.generation_config):
            (Path(folder) / generation_defaults.FILE).unlink(missing_ok=True)
        readable(Path(folder))


def _saving(function: str, given: dict) -> dict:
    """Returns the keywords that transformers' `save_pretrained` reads."""
    own = list(inspect.signature(PreTrainedModel.save_pretrained).parameters)[2:-1]
    refuse_unknown(function, given, [*own, *PUSHING, *BEFORE])
    if given.get("safe_serialization") is False:
        raise ValueError("safe_serialization is False; pickles are never written, leave it out")
    return {key: value for key, value in given.items() if key not in BEFORE}


def _apart(name, kwargs: dict) -> tuple[object]:
    """Returns the name that transformers should load.

    It is None for a folder, whose tensors and configuration are then in `kwargs`.
    """
    if not Path(name).is_dir() or kwargs.keys() & {"state_dict", "subfolder"}:
        return (name,)
    kwargs["state_dict"] = _tensors(Path(name), kwargs.pop("variant", None))
    kwargs["config"] = kwargs.get("config") or JanusFlowConfig.from_pretrained(name)
    return (None,)


def _tensors(folder: Path, variant: str | None) -> dict:
    """Returns a folder's tensors by name, each read into its own memory on demand.

    Weights that are converted while loading are then never in memory twice. transformers maps the
    file, whose pages all stay in memory until the last tensor is done.
    """
    open_files = (
        safe_open(path, "pt", backend="pread") for path in chosen_files(folder, variant, "model")
    )
    return {key: file.get_slice(key) for file in open_files for key in file.keys()}


def _let_go(model: nn.Module) -> None:
    """Copies plain weights, because views of the file would keep all its pages in memory."""
    for weight in model.parameters():
        if type(weight) is nn.Parameter:
            weight.data = weight.data.clone()


def _refuse_keyword(kind: str, error: Exception, given: dict) -> None:
    """Raises TypeError if the network was built with an unknown keyword."""
    unknown = [name for name in given if f"unexpected keyword argument {name!r}" in str(error)]
    refuse_unknown(f"{kind}.from_pretrained", unknown, KEYWORDS)


@contextmanager
def _without_report() -> Iterator[None]:
    """A context in which transformers logs no table of the tensors that this thread loads.

    Their names may hold escape sequences, and `_refuse` says what is wrong.
    """
    own = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != own or "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _refuse(name, fault: str, keys) -> None:
    """Raises ValueError if tensors do not fit; mismatched keys are (name, found, expected)."""
    if not keys:
        return
    first = sorted(keys, key=str)[0]
    verb = {"missing": "lacks", "unexpected": "has", "mismatched": "has"}[fault]
    kind = {"missing": "", "unexpected": " unknown", "mismatched": " misshapen"}[fault]
    detail = repr(printable(first, 100))
    if isinstance(first, tuple | list):
        shapes = f"({tuple(first[1])} instead of {tuple(first[2])})"
        detail = f"{printable(first[0], 100)!r} {shapes}"
    raise ValueError(
        f"checkpoint {str(name)!r} {verb} {len(keys)}{kind} tensors, the first {detail}; check "
        "that it is a JanusFlow checkpoint"
    )


def _counted(kind: type[nn.Module], config: JanusFlowConfig) -> int:
    """Returns the parameters of a network, built without memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in kind(config).parameters())
