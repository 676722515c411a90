"""Checkpoints of a training run: one safetensors file each, complete or absent, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEEP = 2  # newest checkpoints that stay


def _tensors(state) -> dict[str, Tensor]:
    """Every tensor of a training state under one name."""
    parts = {"model": state.model, "ema": state.ema, "projector": state.projector}
    found = {f"{part}.{k}": v for part, m in parts.items() for k, v in m.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    return {name: value.contiguous() for name, value in found.items()}


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of every name, shape and byte, in one order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save(out: Path, state, recipe: dict) -> Path:
    """Writes `out/step-N.safetensors` atomically and removes all but the newest few."""
    tensors = _tensors(state)
    meta = {"step": str(state.step), "recipe": json.dumps(recipe), "sha256": _digest(tensors)}
    path = out / f"step-{state.step:08d}.safetensors"
    part = path.with_suffix(".part")
    save_file(tensors, part, meta)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    for old in sorted(out.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata; ValueError if the file is truncated or was changed."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if meta.get("sha256") != _digest(tensors):
        raise ValueError(f"{path} does not match its checksum")
    return tensors, meta


def recipe(out: Path) -> dict:
    """The recipe of the run in `out`; ValueError if it has no whole checkpoint."""
    for path in sorted(out.glob("step-*.safetensors"), reverse=True):
        try:
            return json.loads(_read(path)[1]["recipe"])
        except ValueError:
            continue
    raise ValueError(f"{out} holds no whole checkpoint; train first")


def start_from(out: Path, state) -> None:
    """Gives a fresh state the weights of the run in `out`; ValueError if it has none that fit."""
    for path in sorted(out.glob("step-*.safetensors"), reverse=True):
        tensors, _ = _read(path)
        _load_weights(state, tensors)
        return
    raise ValueError(f"{out} holds no checkpoint to start from; train first")


def restore(out: Path, state, recipe: dict) -> bool:
    """Loads the newest whole checkpoint into the state; False if there is none.

    A damaged file is passed over with a warning. ValueError if the run had another recipe.
    """
    for path in sorted(out.glob("step-*.safetensors"), reverse=True):
        try:
            tensors, meta = _read(path)
        except ValueError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
            continue
        if json.loads(meta["recipe"]) != json.loads(json.dumps(recipe)):
            raise ValueError(f"{out} holds a run of another recipe; choose another folder")
        _load(state, tensors, int(meta["step"]))
        return True
    return False


def _load_weights(state, tensors: dict[str, Tensor]) -> None:
    parts = {"model": state.model, "ema": state.ema, "projector": state.projector}
    for part, module in parts.items():
        prefix = f"{part}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(own)


def _load(state, tensors: dict[str, Tensor], step: int) -> None:
    _load_weights(state, tensors)
    saved = state.optimizer.state_dict()
    saved["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            saved["state"].setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict(saved)
    state.step = step
