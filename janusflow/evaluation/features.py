"""Feature networks, which map an image to a vector, and the features of a folder of images."""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from janusflow.evaluation import provenance
from janusflow.pipelines.image_io import FORMATS
from janusflow.training.alignment.teachers import TimmTeacherNetwork
from janusflow.utils import atomic_io, images, safe_io
from janusflow.utils.extras import needed
from janusflow.utils.hub import locate
from janusflow.utils.text import explained

INCEPTION = (".pth", ".pt")
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"


class Pooled(nn.Module):
    """The mean of a vision encoder's tokens: images (B, 3, S, S) uint8 -> (B, width)."""

    def __init__(self, encoder: nn.Module, side: int, width: int):
        super().__init__()
        self.encoder, self.side, self.num_features = encoder, side, width

    def forward(self, images: Tensor) -> Tensor:
        weights = next(self.encoder.parameters())
        pixels = images.to(weights.device, weights.dtype) / 127.5 - 1
        return self.encoder(pixels).float().mean(1)


class Tokens(nn.Module):
    """The mean of the tokens of a timm encoder: images (B, 3, S, S) uint8 -> (B, width)."""

    def __init__(self, name: str, weights: Path):
        super().__init__()
        self.encoder = TimmTeacherNetwork(name, weights)
        self.side, self.num_features = self.encoder.side, self.encoder.width

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images.to(self.encoder.mean) / 127.5 - 1).mean(1)


class Pooler(nn.Module):
    """A vision model of transformers: its pooled output, or the mean of its tokens."""

    def __init__(self, model: nn.Module, side: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model, self.side = model, side
        self.register_buffer("mean", torch.tensor(mean)[:, None, None] * 255)
        self.register_buffer("std", torch.tensor(std)[:, None, None] * 255)
        self.num_features = model.config.hidden_size

    def forward(self, images: Tensor) -> Tensor:
        out = self.model((images.to(self.mean) - self.mean) / self.std)
        pooled = getattr(out, "pooler_output", None)
        return out.last_hidden_state.mean(1) if pooled is None else pooled


def network(name: str, load: Callable, device: torch.device) -> nn.Module:
    """Returns the feature network that `--features` names, in float32 on the device, for `side`
    pixels.

    - "": the vision encoder of the evaluated model, which `load()` returns.
    - A .pth file: the Inception network of the FID, by torch-fidelity.
    - A folder or packaged name: a JanusFlow's vision encoder, a vision model of transformers with a
      preprocessor_config.json, or a timm model whose config.json names its architecture, as
      `janusflow data efficientnet` writes it.
    """
    if not name:
        return own(load()).to(device).eval()
    if name.endswith(INCEPTION):
        return _inception(name).to(device).eval()
    folder = locate(name)
    config = safe_io.read_object(folder / "config.json")
    if "architecture" in config:
        return Tokens(str(config["architecture"]), folder / "model.safetensors").to(device).eval()
    if "vision_gen_enc_config" in config:
        from janusflow.pipelines.auto_pipeline import load as load_pipeline

        return own(load_pipeline(folder)).to(device).eval()
    return _transformers(folder).to(device).eval()


def own(pipe) -> Pooled:
    """Returns the model's own vision encoder as a feature network."""
    encoder = getattr(pipe.model, "vision_und_enc_model", None)
    if encoder is None:
        raise ValueError(
            "this model has no vision encoder of JanusFlow to compute features with; name a "
            "feature network by --features"
        )
    sizes = pipe.model.config.vision
    encoder = copy.deepcopy(encoder).float()  # the pipeline keeps its own dtype
    return Pooled(encoder, sizes.image_size, sizes.width)


def _inception(path: str) -> nn.Module:
    with needed("eval", "the FID's Inception"):
        import torch_fidelity  # noqa: F401 (which torchmetrics imports)
        from torchmetrics.image.fid import NoTrainInceptionV3
    if not Path(path).is_file():
        raise ValueError(
            f"features {path!r} is not a file; give the weights of the FID's Inception"
        )
    with explained(f"{path!r} holds no weights of the FID's Inception", f"give {PUBLISHED}"):
        net = NoTrainInceptionV3("inception-v3-compat", ["2048"], path)
    net.side, net.num_features = 299, 2048
    return net


def _transformers(folder: Path) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    shown = safe_io.read_object(folder / "preprocessor_config.json")
    config = AutoConfig.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True)
    model = getattr(model, "vision_model", model)
    side = getattr(config, "vision_config", config).image_size
    return Pooler(model, side, shown["image_mean"], shown["image_std"])


def fingerprint(net: nn.Module) -> str:
    """Returns a hash of a network's weights and its image size."""
    digests = {
        name: provenance.digest(value.detach().cpu().contiguous().view(-1).view(torch.uint8))
        for name, value in net.state_dict().items()
    }
    return provenance.fingerprint(digests | {"side": str(net.side)})


def files(folder: Path, role: str) -> list[Path]:
    """Returns the images in a folder and below, sorted. Raises ValueError for fewer than two."""
    if not folder.is_dir():
        raise ValueError(
            f"--{role} is {str(folder)!r}, which is not a folder; give a folder of images"
        )
    found = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in FORMATS and _shown(p, folder)
    )
    if len(found) < 2:
        raise ValueError(
            f"{str(folder)!r} holds {len(found)} images ({', '.join(FORMATS)}), expected at least 2"
        )
    return found


def _shown(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def digest(folder: Path, role: str) -> str:
    """Returns a hash of the names and contents of all images."""
    return provenance.fingerprint(
        {str(p.relative_to(folder)): provenance.sha256(p) for p in files(folder, role)}
    )


def cache() -> Path:
    """Returns the folder of cached reference features: $JANUSFLOW_CACHE or ~/.cache/janusflow."""
    home = os.environ.get("JANUSFLOW_CACHE")
    return Path(home) if home else Path.home() / ".cache" / "janusflow"


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Returns features from a file, computing and saving them if it does not exist."""
    if path.exists():
        return load_file(path)["features"]
    path.parent.mkdir(parents=True, exist_ok=True)
    features = make().contiguous()
    with atomic_io.replacing(path, tag=str(os.getpid())) as part:
        save_file({"features": features}, part)
    return load_file(path)["features"]


def extract(net: nn.Module, found: Sequence[Path], batch: int, device: torch.device) -> Tensor:
    """Returns the features (images, D) of image files of one size, float32 on the CPU."""
    from tqdm import tqdm

    made = []
    with torch.inference_mode(), tqdm(total=len(found), disable=not sys.stderr.isatty()) as bar:
        for pixels in _batches(found, net.side, batch):
            made.append(net(pixels.to(device)).float().cpu())
            bar.update(len(pixels))
    return torch.cat(made)


def _batches(found: Sequence[Path], side: int, batch: int) -> Iterator[Tensor]:
    size = images.read(found[0]).size
    for start in range(0, len(found), batch):
        rows = [_pixels(path, side, size, found[0]) for path in found[start : start + batch]]
        yield torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def _pixels(path: Path, side: int, size: tuple[int, int], first: Path) -> np.ndarray:
    """Resizes with PIL's bicubic filter, which does not alias; Parmar et al. 2022."""
    image = images.read(path)
    if image.size != size:
        raise ValueError(
            f"{path} is {image.width} x {image.height} pixels and {first.name} {size[0]} x "
            f"{size[1]}; give a folder of images of one size"
        )
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
