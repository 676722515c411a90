"""Forecasts the memory of generating images by running the networks on tensors without data.

torch's fake tensors have a shape and no data: one evaluation and one decoding at any size cost a
second and no memory, and the storages that are alive at once are added up. Memory that libraries
allocate for themselves (a GPU's context, workspaces of convolutions) is not included.
"""

import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from janusflow.models.autoencoder_loading import check_vae, described_vae, vae_dtype
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.latents import pixels_per_latent
from janusflow.models.prompt_cache import PromptCache
from janusflow.utils.finite import plain
from janusflow.utils.keywords import renamed

GIB = 2**30
FEW = 64  # images, beyond which a forecast goes on as a straight line


@dataclass(frozen=True)
class Forecast:
    """A forecast in bytes: the weights, and above them the network's run and the decoding."""

    weights: int
    sampling: int
    decoding: int

    @property
    def peak(self) -> int:
        return self.weights + max(self.sampling, self.decoding)

    def told(self) -> dict[str, int]:
        """Returns the forecast in bytes by name, for JSON."""
        return asdict(self) | {"peak": self.peak}

    def __str__(self) -> str:
        """Formats the forecast in GiB."""
        return ", ".join(f"{name} {size / GIB:.3g} GiB" for name, size in self.told().items())

    def _repr_html_(self) -> str:
        """Shows the forecast as a table in notebooks."""
        rows = (
            f"<tr><th>{name}</th><td>{size / GIB:.3g} GiB</td></tr>"
            for name, size in self.told().items()
        )
        return f"<table>{''.join(rows)}</table>"


class Living(TorchDispatchMode):
    """A mode that counts the bytes of storages made inside it: `now`, and the `most` at once."""

    def __init__(self, known: list[Tensor] = ()):
        super().__init__()
        self.now = self.most = 0
        self.seen = weakref.WeakSet(t.untyped_storage() for t in known)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in filter(torch.is_tensor, tree_leaves(out)):
            storage = tensor.untyped_storage()
            if storage not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return out

    def _free(self, size: int) -> None:
        self.now -= size


@renamed(pictures="images")
def forecast(
    config: JanusFlowConfig,
    vae: nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    images: int = 1,
    height: int | None = None,
    width: int | None = None,
    tokens: int = 20,
    rows: int = 2,
    eight_bit: bool = False,
    device: str = "cpu",
) -> Forecast:
    """Forecasts the memory for so many images at once of height x width pixels (default: the
    model's size).

    `vae` gives the autoencoder's class and configuration; its weights are ignored. `tokens` is the
    prompt's length, `rows` the network evaluations per image that run at once (2 with guidance).
    `eight_bit` counts linear layers as one byte per weight, as torchao's int8 weights. On `device`
    "cpu" rows are evaluated in parts, elsewhere all at once. Beyond 64 images the rise from 32 on
    goes on. Raises ValueError for unsupported sides.
    """
    if images > FEW:
        setting = dict(dtype=dtype, height=height, width=width, tokens=tokens, rows=rows)
        setting |= dict(eight_bit=eight_bit, device=device)
        half, most = (forecast(config, vae, images=n, **setting) for n in (FEW // 2, FEW))
        return _continued(half, most, images)
    own, scale = config.vision.image_size, pixels_per_latent(vae)
    check_sides(height or own, width or own, scale * config.generation.patch)
    sides = (height or own) // scale, (width or own) // scale
    shape = (images, config.generation.latent_channels, *sides)
    model, decoder = unbuilt(JanusFlowModel, config), unbuilt(type(vae).from_config, vae.config)
    parts = [(p.numel(), dtype) for p in model.parameters()]
    parts += [(p.numel(), vae_dtype(dtype)) for p in decoder.parameters()]
    return Forecast(
        weights=sum(n * kind.itemsize for n, kind in parts) - _saved(model, dtype, eight_bit),
        sampling=sampling(model, shape, dtype, tokens, rows, device),
        decoding=decoding(decoder, shape, vae_dtype(dtype)),
    )


def _continued(half: Forecast, most: Forecast, images: int) -> Forecast:
    """Returns a forecast that rises beyond `FEW` images as between the two."""
    times = (images - FEW) / (FEW - FEW // 2)
    found = {
        name: round(getattr(most, name) + times * (getattr(most, name) - getattr(half, name)))
        for name in ("sampling", "decoding")
    }
    return Forecast(weights=most.weights, **found)


def check_sides(height: int, width: int, unit: int) -> None:
    """Raises ValueError for sides that are not multiples of the pixels per token."""
    if height % unit or width % unit or height <= 0 or width <= 0:
        raise ValueError(
            f"images of {height} x {width} cannot be generated; sides must be multiples of {unit}"
        )


def unbuilt(make: Callable[..., nn.Module], config) -> nn.Module:
    """Returns a network on the device "meta", without memory."""
    with torch.device("meta"):
        return make(config).eval()


def sampling(
    model: JanusFlowModel, shape, dtype: torch.dtype, tokens: int, rows: int, device: str
) -> int:
    """Returns the bytes above the weights for sampling latents of this shape.

    They are the prompts, one evaluation, and three velocities that a solver may keep.
    """
    text = model.config.language_config
    heads = text.num_key_value_heads or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kept = (rows * shape[0], heads, tokens, width)
    layers = range(text.num_hidden_layers)
    with FakeTensorMode(), torch.no_grad(), Living(_without_data(model, dtype)) as living:
        x, *_known = (torch.empty(shape) for _ in range(4))
        keys, values = (tuple(torch.empty(kept, dtype=dtype) for _ in layers) for _ in range(2))
        prompt = PromptCache(keys, values, None, torch.empty(kept[0], dtype=torch.long))
        x, t = torch.cat([x] * rows), torch.empty(kept[0])
        if device == "cpu":
            model.velocity(x, t, prompt)
        else:
            model.unchecked_velocity(x, t, prompt, None)
    return living.most


def decoding(vae: nn.Module, shape, dtype: torch.dtype) -> int:
    """Returns the bytes beside weights for decoding latents of this shape, with float32 pixels."""
    with FakeTensorMode(), torch.no_grad(), Living(_without_data(vae, dtype)) as living:
        pixels = vae.decode(torch.empty(shape).to(dtype), return_dict=False)[0].float()
        pixels.div(2).add(0.5).clamp(0, 1)
    return living.most


def _without_data(network: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    """Gives a network on the device "meta" fake CPU parameters, and returns them."""
    for part in network.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=dtype, device="cpu")
                part._parameters[name] = nn.Parameter(empty, requires_grad=False)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device="cpu")
    return [*network.parameters(), *network.buffers()]


def _saved(model: nn.Module, dtype: torch.dtype, eight_bit: bool) -> int:
    """Returns the bytes that 8-bit linear layers, except the logits', save with their scales."""
    if not eight_bit:
        return 0
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    wide = dtype.itemsize
    return sum(m.weight.numel() * (wide - 1) - m.out_features * wide for m in layers)


def held(network: nn.Module) -> int:
    """Returns the bytes of a network's weights in memory, quantized ones included."""
    return sum(part.nbytes for weight in network.parameters() for part in plain(weight))


def of_folder(folder: Path, vae: str | Path | None = None, **setting) -> Forecast:
    """Returns the `forecast` for a model folder; without an autoencoder, SDXL's is assumed."""
    config, found = JanusFlowConfig.from_pretrained(folder), described_vae(folder, vae)
    own, assumed = config.generation.latent_channels, found.config.latent_channels
    if vae is None and own != assumed and not (Path(folder) / "vae").is_dir():
        raise ValueError(
            f"{str(folder)!r} holds no vae/, and SDXL's, which is assumed then, has {assumed} "
            f"channels where the model has {own}; name its own by --vae"
        )
    check_vae(found, config)
    return forecast(config, found, **setting)


factor = pixels_per_latent  # its name in release 0.1
