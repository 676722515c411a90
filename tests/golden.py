"""The golden file and its weights, which are a rule and not a file (see tests/data)."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

DATA = Path(__file__).parent / "models" / "published"


def read_golden() -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors, and the metadata with numbers and configuration parsed."""
    with safe_open(DATA / "janusflow-tiny-golden.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        meta = dict(file.metadata())
    meta["config"] = json.loads(meta["config"])
    return tensors, meta


def rule_weight(name: str, shape: tuple[int, ...], salt: str = "") -> torch.Tensor:
    """The weight that the reference gives to a parameter of this name."""
    seed = zlib.crc32((salt + name).encode())
    x = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if len(shape) == 1 and name.endswith("weight"):
        return torch.from_numpy(1 + 0.1 * x)
    if len(shape) in (2, 4) and shape[0] > 1:
        return torch.from_numpy(x / np.sqrt(np.prod(shape[1:])).astype(np.float32))
    return torch.from_numpy(0.1 * x)


def golden_model(config: dict, salt: str = ""):
    from janusflow import JanusFlowConfig, JanusFlowModel

    model = JanusFlowModel(JanusFlowConfig(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(rule_weight(name, tuple(parameter.shape), salt))
    return model
