"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685) through peft.

An adapted layer computes W x + (alpha / rank) B A x; W is unchanged. Adapters are stored in peft's
format, adapter_config.json and adapter_model.safetensors. An untrusted adapter is compared with the
model before anything is built, and nothing in it is executed or unpickled.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from janusflow.utils import atomic_io, limits
from janusflow.utils.extras import needed
from janusflow.utils.safe_io import read_object
from janusflow.utils.text import explained, printable
from janusflow.utils.typed import is_number

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
TRAINED = "default"  # the adapter's name in training
OUTPUT = "lm_head"  # peft, too, leaves the output layer out


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """LoRA settings of a training. Raises ValueError for an invalid rank or alpha."""

    rank: int = 8
    alpha: float = 16.0  # the update is alpha / rank B A
    modules: tuple[str, ...] = ()  # ends of layers' names, as q_proj; all layers unless told

    def __post_init__(self):
        if self.rank < 1 or not 0 < self.alpha < float("inf"):
            raise ValueError(
                f"adapter got rank {self.rank} and alpha {self.alpha}; expected a rank of at least "
                "1 and a finite alpha above 0"
            )
        limits.hold("width", self.rank, f"adapter.rank is {self.rank}")


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter read from a folder: {layer: (A, B)} and the factor of B A."""

    where: str
    rank: int
    alpha: float
    root: bool  # rank-stabilised: alpha / sqrt(rank)
    layers: dict[str, tuple[Tensor, Tensor]]
    targets: tuple[str, ...] = ()  # ends of the names of all layers that it is to have


def need_peft() -> None:
    """Raises ModuleNotFoundError with the command to install peft if it is missing."""
    with needed("train", "an adapter"):
        import peft  # noqa: F401


# In training


def add(model: nn.Module, adapter: Adapter, seed: int = 0) -> None:
    """Adds an adapter to each linear and convolution layer that requires gradients, and freezes the
    rest.

    A is drawn from the seed and B is 0, so the model's output is unchanged at first. Raises
    ValueError if `adapter.modules` matches no such layer.
    """
    names = [name for name, layer in _layers(model) if layer.weight.requires_grad]
    chosen = [n for n in names if not adapter.modules or n.endswith(adapter.modules)]
    if not chosen:
        ends = sorted({name.rsplit(".", 1)[-1] for name in names})
        raise ValueError(
            f"adapter.modules is {', '.join(adapter.modules)!r}, with which no trainable layer's "
            f"name ends; the names end in {', '.join(ends) or 'none'}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, TRAINED, chosen, r=adapter.rank, lora_alpha=adapter.alpha)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Adds the trained adapter to the weights of its layers and removes it."""
    adapted = [(n, m) for n, m in model.named_modules() if hasattr(m, "get_base_layer")]
    for name, module in adapted:
        module.merge(adapter_names=[TRAINED])
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the layers that can be adapted, by name."""
    for name, module in model.named_modules():
        if "lora_" in name or name.rpartition(".")[2] in ("base_layer", OUTPUT):
            continue
        base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        if isinstance(base, nn.Linear) or (isinstance(base, nn.Conv2d) and base.groups == 1):
            yield name, base


def _inject(model: nn.Module, name: str, layers: list[str], **numbers) -> None:
    need_peft()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(target_modules=layers, **numbers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, model, adapter_name=name)


# In folders


def save(folder: Path, adapter: Adapter, tensors: dict[str, Tensor], base: str) -> None:
    """Writes an adapter that was trained on the model `base` in peft's format.

    `tensors` are named as in the model, without a prefix.
    """
    need_peft()
    from peft import LoraConfig

    ending = f".{TRAINED}.weight"
    named = {
        f"base_model.model.{name.removesuffix(ending)}.weight": value.contiguous()
        for name, value in tensors.items()
        if name.endswith(ending)
    }
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules={TENSOR.fullmatch(name)[1] for name in named},
        base_model_name_or_path=base,
        inference_mode=True,
    )
    content = config.to_dict() | {"target_modules": sorted(config.target_modules)}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(folder / CONFIG, json.dumps(content, indent=2, sort_keys=True))
    atomic_io.write_tensors(folder / WEIGHTS, named, {"format": "pt"})


def check_weight_name(name) -> str:
    """Returns the name of a weight file. Raises ValueError for another format or a path."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ValueError(
            f"weight_name is {name!r:.100}; expected a .safetensors file of the adapter's folder"
        )
    return name


def read(folder: Path, weights: str = WEIGHTS) -> StoredAdapter:
    """Reads the adapter in a folder from the weight file of that name.

    Raises ValueError for anything but plain LoRA in safetensors.
    """
    check_weight_name(weights)
    if not (folder / weights).exists() and (pickles := sorted(folder.glob("adapter_model.bin"))):
        raise ValueError(
            f"{str(pickles[0])!r} is a pickle, which is never read; save the adapter as {weights}"
        )
    config = read_object(folder / CONFIG)
    _check(config, str(folder / CONFIG))
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1 or not is_number(alpha) or abs(alpha) > 1e6:
        raise ValueError(
            f"{str(folder / CONFIG)!r} has r {rank!r:.40} and lora_alpha {alpha!r:.40}; expected a "
            "whole number of at least 1 and a number up to a million"
        )
    limits.hold("width", rank, f"{str(folder / CONFIG)!r} has rank {rank}")
    layers = _tensors(folder / weights, rank)
    rooted = config.get("use_rslora") or False
    if not isinstance(rooted, bool):
        raise ValueError(
            f"{str(folder / CONFIG)!r} has use_rslora {rooted!r:.40}; expected true or false"
        )
    return StoredAdapter(str(folder), rank, float(alpha), rooted, layers, _targets(config))


def _targets(config: dict) -> tuple[str, ...]:
    """Returns the layers that a configuration names individually, or none."""
    named = config.get("target_modules")
    other = ("layers_to_transform", "layers_pattern", "exclude_modules")
    if not isinstance(named, list) or any(config.get(key) for key in other):
        return ()
    return tuple(str(name) for name in named)


# What is taken from a configuration or may stand there; of all else only what switches nothing on.
READ = {"r", "lora_alpha", "use_rslora", "peft_type"}
IDLE = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "peft_version",
    "revision",
    "target_modules",  # the tensors' names say it
    "task_type",
}


def _check(config: dict, name: str) -> None:
    """Raises ValueError for a setting that is not plain LoRA."""
    need_peft()
    from peft import LoraConfig

    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{name!r} has peft_type {config.get('peft_type')!r}; only LORA is supported, so save "
            "the adapter as LoRA"
        )
    usual = LoraConfig().to_dict() | {"init_lora_weights": None}
    for key in sorted(config.keys() - READ - IDLE):
        value = config[key]
        starts = key == "init_lora_weights" and value in (True, "gaussian", "orthogonal")
        if not starts and value not in (None, False, [], {}, usual.get(key)):
            raise ValueError(
                f"{name!r} sets {key!r} to {value!r:.60}; only plain LoRA is supported, so save "
                "the adapter without it"
            )


def _tensors(path: Path, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns {layer: (A, B)} with finite values. Raises ValueError for other tensors."""
    if not path.is_file():
        raise ValueError(
            f"{str(path.parent)!r} lacks {path.name}; give an adapter's folder, as peft saves it"
        )
    found: dict[str, dict[str, Tensor]] = {}
    said, faults = f"{str(path)!r} is a damaged weight file", (SafetensorError, OSError)
    with explained(said, "download or save it again", *faults):
        with safe_open(path, "pt") as file:
            for key in file.keys():
                match = TENSOR.fullmatch(key)
                if match is None:
                    raise ValueError(
                        f"{str(path)!r} holds {printable(repr(key), 100)}; only tensors named "
                        "lora_A and lora_B are supported, so save the adapter as plain LoRA"
                    )
                found.setdefault(match[1], {})[match[2]] = file.get_tensor(key)
    for layer, pair in found.items():
        whole = pair.keys() == {"A", "B"} and all(
            x.is_floating_point() and x.element_size() > 1 and bool(x.isfinite().all())
            for x in pair.values()
        )
        if not whole or pair["A"].shape[:1] != (rank,) or pair["B"].shape[1:2] != (rank,):
            raise ValueError(
                f"{str(path)!r} has no finite pair of rank {rank}, in two bytes a number or more, "
                f"for {printable(repr(layer), 100)}; save the adapter again"
            )
    if not found:
        raise ValueError(f"{str(path)!r} holds no tensors; save the adapter again")
    return {layer: (pair["A"], pair["B"]) for layer, pair in found.items()}


# In a model that is used


def attach(model: nn.Module, found: StoredAdapter, name: str) -> None:
    """Adds a loaded adapter to the model under a name, frozen, next to others.

    Raises ValueError if it was made for another model, which is then unchanged.
    """
    known = dict(_layers(model))
    for layer, (a, b) in found.layers.items():
        _fits(found, layer, known.get(layer), a, b)
    _whole(found, list(known))
    _inject(
        model,
        name,
        list(found.layers),
        r=found.rank,
        lora_alpha=found.alpha,
        use_rslora=found.root,
        init_lora_weights=True,  # B is 0: calls that run meanwhile compute what they did
        inference_mode=True,
    )
    modules = {layer: model.get_submodule(layer) for layer in found.layers}
    for module in modules.values():
        module.eval()
        module.__class__ = _per_call(type(module))
    for layer, (a, b) in found.layers.items():
        with torch.no_grad():
            modules[layer].lora_A[name].weight.copy_(a)
            modules[layer].lora_B[name].weight.copy_(b)


_ACTIVE: ContextVar[Mapping[str, float] | None] = ContextVar("janusflow_adapters", default=None)


@contextmanager
def active(weights: Mapping[str, float] | None) -> Iterator[None]:
    """A context in which adapted layers of this thread use these adapters and weights.

    Meanwhile they take precedence over adapters that the layers have enabled; None leaves the
    choice to the layers.
    """
    token = _ACTIVE.set(weights)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@cache
def _per_call(kind: type) -> type:
    """Returns peft's layer class, extended to use the running call's adapters before its own."""

    def names(self) -> list[str]:
        weights = _ACTIVE.get()
        return kind.active_adapters.fget(self) if weights is None else list(weights)

    def disabled(self) -> bool:
        weights = _ACTIVE.get()
        return kind.disable_adapters.fget(self) if weights is None else not weights

    def scaling(self) -> dict[str, float]:
        own, weights = self.__dict__["scaling"], _ACTIVE.get()
        if weights is None:
            return own
        return own | {n: w * trained_scale(self, n) for n, w in weights.items() if n in own}

    members = dict(
        active_adapters=property(names),
        disable_adapters=property(disabled),
        scaling=property(scaling, lambda self, value: self.__dict__.update(scaling=value)),
        __module__=kind.__module__,
    )
    return kind if issubclass(kind, PerCall) else type(kind.__name__, (PerCall, kind), members)


class PerCall:
    """A marker base class of the layers that `_per_call` makes."""


def trained_scale(layer: nn.Module, name: str) -> float:
    """Returns the factor of B A: alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA."""
    rank = layer.r[name]
    return layer.lora_alpha[name] / (rank**0.5 if layer.use_rslora.get(name) else rank)


def _whole(found: StoredAdapter, names: list[str]) -> None:
    """Raises ValueError for an adapter without all the layers that its configuration names."""
    wanted = [n for n in names for end in found.targets if n == end or n.endswith(f".{end}")]
    if missing := [name for name in wanted if name not in found.layers]:
        raise ValueError(
            f"the adapter in {found.where!r} has {len(wanted) - len(missing)} of {len(wanted)} "
            f"layers that its {CONFIG} names; it lacks {missing[0]}: save it again"
        )


def _fits(found: StoredAdapter, layer: str, base: nn.Module | None, a: Tensor, b: Tensor) -> None:
    if base is None:
        raise ValueError(
            f"the adapter in {found.where!r} is for another model: this one has no layer "
            f"{layer!r:.100}; load it into the model that it was trained on"
        )
    shape, pair = tuple(base.weight.shape), (a.shape, b.shape)
    ones = (1,) * (len(shape) - 2)
    rank = found.rank
    if pair != ((rank, *shape[1:]), (shape[0], rank, *ones)):
        raise ValueError(
            f"the adapter in {found.where!r} is for another model: {layer} has shape {shape}, and "
            f"the adapter's pair {tuple(a.shape)} and {tuple(b.shape)}; load it into the model "
            "that it was trained on"
        )
