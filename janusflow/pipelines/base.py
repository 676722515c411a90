"""The base class of both pipelines: loading, saving, the state of calls, answers and adapters."""

from __future__ import annotations

import inspect
import warnings
from os import PathLike
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from tqdm.std import tqdm

from janusflow.pipelines.call_state import CallState, between_calls
from janusflow.pipelines.chat import Chat
from janusflow.pipelines.lora_mixin import Adapted
from janusflow.utils import atomic_io, hub
from janusflow.utils.checkpoint_files import check_shards, check_variant_name
from janusflow.utils.devices import DTYPES, full_name, pick_device
from janusflow.utils.keywords import choice, refuse_unknown

ATTENTION = (
    "{} changes nothing: attention is torch's scaled_dot_product_attention, which saves that "
    "memory already; leave it out"
)
SAVING = ("max_shard_size", "variant", "safe_serialization")
# what parts can do
NEEDED = {"model": "get_input_embeddings", "processor": "prompt", "vae": "decode"}
LOADING = ("dtype", "torch_dtype", "device_map", "variant", "use_safetensors", *hub.KEYWORDS)


class BasePipeline(CallState, Chat, Adapted, DiffusionPipeline):
    """A network with its processor, with diffusers' interface.

    `pipe(prompts)` generates images and `pipe.chat(text, images)` answers. A subclass defines how
    images are generated. The state of a call lives in `self._call()` and never on the pipeline, so
    threads may share it.
    """

    _callback_tensor_inputs: tuple[str, ...] = ()

    def __init__(self, **modules):
        for name, method in NEEDED.items():
            absent = name == "vae" and modules.get(name) is None
            if name in modules and not absent and not hasattr(modules[name], method):
                raise TypeError(
                    f"{name} is of type {type(modules[name]).__name__}; expected a {name} as "
                    f"{type(self).__name__}.from_pretrained loads it"
                )
        super().__init__()
        self.register_modules(**modules)
        self.image_processor = VaeImageProcessor()

    def register_modules(self, **modules) -> None:
        """Sets components, as diffusers does. Raises TypeError for a name that is none of them."""
        names, _ = self._get_signature_keys(type(self))
        if "scheduler" in modules:
            self.scheduler = modules["scheduler"]  # refused, before anything is changed
        every = [*names, *self._optional_components]
        refuse_unknown(f"{type(self).__name__}.register_modules", modules, every)
        super().register_modules(**modules)

    def __setattr__(self, name: str, value) -> None:
        if name == "scheduler":
            raise AttributeError(
                f"a {type(self).__name__} has no scheduler; choose a solver in the call, as "
                "pipe(prompt, sampler='heun'), or see janusflow's docs for diffusers' schedulers"
            )
        super().__setattr__(name, value)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **changes):
        """Returns a pipeline with another's components, some of them replaced; weights are shared.

        The other pipeline is unchanged. Raises TypeError for a name that is not a component.
        """
        if not (isinstance(pipeline, cls) or issubclass(cls, type(pipeline))):
            raise TypeError(
                f"{cls.__name__}.from_pipe got {type(pipeline).__name__}; expected a "
                f"{cls.__name__}, whose parts it takes"
            )
        names, _ = cls._get_signature_keys(cls)
        refuse_unknown(f"{cls.__name__}.from_pipe", changes, [*names, *cls._optional_components])
        return cls(**{**pipeline.components, **changes})

    def set_progress_bar_config(self, **settings) -> None:
        """Sets tqdm's options, such as `disable=True`. Raises TypeError for others."""
        known = list(inspect.signature(tqdm.__init__).parameters)
        refuse_unknown(f"{type(self).__name__}.set_progress_bar_config", settings, known[2:])
        super().set_progress_bar_config(**settings)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device=None) -> None:
        """Moves each layer's weights to the device for its computation alone, as diffusers does.

        The device may be the CPU, which accelerate knows without an index only.
        """
        if device is None or torch.device(device).type != "cpu":
            super().enable_sequential_cpu_offload(gpu_id, device)
            return
        from accelerate import cpu_offload

        self.remove_all_hooks()
        self._offload_device = torch.device("cpu")
        for part in self.components.values():
            if isinstance(part, torch.nn.Module):
                cpu_offload(part, self._offload_device, offload_buffers=bool(part._parameters))

    def set_attention_slice(self, slice_size: str | int | None) -> None:
        """Changes nothing, and warns of that, for `enable_attention_slicing`."""
        if slice_size is not None:
            warnings.warn(ATTENTION.format("enable_attention_slicing"), stacklevel=3)

    def set_use_memory_efficient_attention_xformers(self, valid: bool, attention_op=None) -> None:
        """Changes nothing, and warns of that, for `enable_xformers_memory_efficient_attention`."""
        if valid or attention_op is not None:
            name = "enable_xformers_memory_efficient_attention"
            warnings.warn(ATTENTION.format(name), stacklevel=3)

    @between_calls
    def to(self, *args, **kwargs):
        """Moves and casts as diffusers does, once no call is running.

        The autoencoder never becomes float16, in which SDXL's overflows.
        """
        device, dtype = _target(args, kwargs)
        device = pick_device(device) if isinstance(device, str) else device
        super().to(device=device, **kwargs)
        if dtype is not None:
            self._cast(dtype)
        return self

    def _cast(self, dtype: torch.dtype) -> None:
        self.model.to(dtype)

    def _placed(self, device_map) -> BasePipeline:
        """Returns the pipeline on the device that `device_map` names."""
        return self if device_map is None else self.to(device_of(device_map))

    def _check_ids(self, ids: torch.Tensor) -> None:
        """Raises ValueError for a token without an embedding, such as one of the tokenizer only."""
        rows = self.model.get_input_embeddings().num_embeddings
        if ids.numel() and int(ids.max()) >= rows:
            raise ValueError(
                f"a token has id {int(ids.max())}, and the model's vocabulary is {rows}; call "
                "pipe.model.resize_token_embeddings(len(pipe.processor.tokenizer))"
            )

    def _limit_positions(self, tokens: int, what: str) -> None:
        """Raises ValueError if a prompt has more tokens than the language model has positions."""
        most = self.positions
        if tokens > most:
            raise ValueError(
                f"{what} has {tokens} tokens, and the language model has {most} positions; shorten "
                "it"
            )


def read_dtype(dtype, torch_dtype=None) -> torch.dtype | str:
    """Returns the torch.dtype given as `dtype` or as diffusers' older `torch_dtype`; the default is
    float32.

    Names such as "bfloat16" are accepted, and "auto" means the dtype of the weight files.
    """
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise ValueError(f"dtype is {dtype} and torch_dtype {torch_dtype}; give one of them")
    chosen = dtype if dtype is not None else torch_dtype
    if chosen is None:
        return torch.float32
    if isinstance(chosen, str):
        chosen = chosen if chosen == "auto" else DTYPES.get(full_name(chosen), chosen)
    if chosen == "auto" or chosen in DTYPES.values():
        return chosen
    raise ValueError(f"dtype is {chosen!r:.60}; choose auto or one of {', '.join(DTYPES)}")


def device_of(device_map) -> torch.device:
    """Returns the device of a `device_map`: a device, {"": device}, or "auto" and "balanced" for
    the best one.

    Raises ValueError for a map that spreads a pipeline over several devices.
    """
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    if type(device_map) is int:
        device_map = f"cuda:{device_map}"
    if isinstance(device_map, torch.device):
        return device_map
    if device_map in ("auto", "balanced"):
        return pick_device("auto")
    if not isinstance(device_map, str):
        raise ValueError(
            f"device_map is {device_map!r:.80}, and a pipeline stays on one device; name it, such "
            "as 'cuda', or choose 'auto', and call enable_model_cpu_offload() if the model does "
            "not fit"
        )
    return pick_device(device_map)


def check_attention(name) -> None:
    """Raises ValueError for an attention implementation that transformers would download."""
    from transformers import AttentionInterface

    known = ("eager", *AttentionInterface().keys())
    if name is not None and name not in known:
        choice("attn_implementation is", name, known[:6])


def check_loading(function: str, given: dict, more: tuple[str, ...] = ()) -> dict:
    """Returns the hub's keywords among those given. Raises TypeError for an unknown keyword."""
    refuse_unknown(function, given, [*more, *LOADING])
    if given.get("use_safetensors") is False:
        raise ValueError("use_safetensors is False; pickles are never read, leave it out")
    return {name: value for name, value in given.items() if name in hub.KEYWORDS}


def check_saving(pipe, given: dict) -> dict:
    """Returns the keywords for the networks' `save_pretrained`.

    Raises TypeError for an unknown keyword, and ValueError while adapters are loaded.
    """
    refuse_unknown(f"{type(pipe).__name__}.save_pretrained", given, SAVING)
    check_shards(given.get("max_shard_size"))
    check_variant_name(given.get("variant"))
    if given.get("safe_serialization") is False:
        raise ValueError("safe_serialization is False; pickles are never written, leave it out")
    pipe._check_saved()
    return {name: value for name, value in given.items() if name != "safe_serialization"}


def _target(args: tuple, kwargs: dict) -> tuple:
    """Returns (device, dtype) of the arguments of `to`, removing them from `kwargs`."""
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    for value in args:
        kind = isinstance(value, torch.dtype)
        kind = kind or (isinstance(value, str) and full_name(value) in DTYPES)
        if value is not None and (dtype if kind else device) is not None:
            raise ValueError(f"to() got two {'dtypes' if kind else 'devices'}; give one")
        if kind:
            dtype = value
        elif value is not None:
            device = value
    return device, read_dtype(dtype) if dtype is not None else None


def clean(folder: str | Path) -> Path:
    """Returns the folder, created if needed, without the checksums of files that are about to be
    written.

    Raises OSError, as a sentence, if it cannot be created.
    """
    if not isinstance(folder, str | PathLike) or not str(folder).strip():
        raise ValueError(f"the folder to save in is {folder!r:.60}; name one, '.' is this folder")
    folder = Path(folder)
    atomic_io.make_folder(folder)
    (folder / hub.SUMS).unlink(missing_ok=True)
    return folder
