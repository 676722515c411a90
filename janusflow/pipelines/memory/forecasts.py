"""What memory images take, found by running the networks on tensors that hold nothing.

torch's fake tensors have a shape and no data: one evaluation and one decoding at any size cost a
second and no memory, and the storages alive at once are added up on the way. What libraries take
for themselves (a GPU's context, workspaces of convolutions) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from janusflow.models.autoencoder_loading import described_vae, vae_dtype
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.latents import pixels_per_latent
from janusflow.models.prompt_cache import PromptCache
from janusflow.utils.finite import plain
from janusflow.utils.keywords import renamed

GIB = 2**30


@dataclass(frozen=True)
class Forecast:
    """Bytes: of the weights, and above them while the network runs and while images are
    decoded.
    """

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
        """The same in GiB, as a person reads it."""
        return ", ".join(f"{name} {size / GIB:.3g} GiB" for name, size in self.told().items())

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        rows = (
            f"<tr><th>{name}</th><td>{size / GIB:.3g} GiB</td></tr>"
            for name, size in self.told().items()
        )
        return f"<table>{''.join(rows)}</table>"


class Living(TorchDispatchMode):
    """Counts the bytes of the storages made inside: alive `now`, and the `most` at once."""

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
    """For so many images at once of height x width pixels (the model's own size), decoded
    together.

    `vae` gives the autoencoder's class and configuration, its weights are not looked at. `tokens`
    are a prompt's, `rows` the network evaluations of an image that run at once (2 under guidance).
    `eight_bit` counts linear layers at a byte a weight, as torchao's int8 weights are. A `device`
    "cpu" evaluates rows in parts, others all at once. ValueError for sides that the network cannot
    make.
    """
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


def check_sides(height: int, width: int, unit: int) -> None:
    """ValueError for pixels that are no multiples of what a token stands for."""
    if height % unit or width % unit or height <= 0 or width <= 0:
        raise ValueError(
            f"images of {height} x {width} cannot be made; sides must be multiples of {unit}"
        )


def unbuilt(make: Callable[..., nn.Module], config) -> nn.Module:
    """A network without memory, of device "meta"."""
    with torch.device("meta"):
        return make(config).eval()


def sampling(
    model: JanusFlowModel, shape, dtype: torch.dtype, tokens: int, rows: int, device: str
) -> int:
    """Bytes above the weights for latents of this shape: the prompts, one evaluation, and three
    velocities that a solver may remember.
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
    """Bytes above the weights to decode latents of this shape, with the pixels in float32."""
    with FakeTensorMode(), torch.no_grad(), Living(_without_data(vae, dtype)) as living:
        pixels = vae.decode(torch.empty(shape).to(dtype), return_dict=False)[0].float()
        pixels.div(2).add(0.5).clamp(0, 1)
    return living.most


def _without_data(network: nn.Module, dtype: torch.dtype) -> list[Tensor]:
    """Gives a network of device "meta" fake parameters of the CPU, and returns them."""
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
    """Bytes that 8-bit weights leave out: all linear layers' but the one that makes logits, with a
    scale a row.
    """
    if not eight_bit:
        return 0
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    wide = dtype.itemsize
    return sum(m.weight.numel() * (wide - 1) - m.out_features * wide for m in layers)


def held(network: nn.Module) -> int:
    """Bytes of a network's weights as they lie in memory, quantised ones too."""
    return sum(part.nbytes for weight in network.parameters() for part in plain(weight))


def of_folder(folder: Path, vae: str | Path | None = None, **setting) -> Forecast:
    """`forecast` for a model's folder; SDXL's autoencoder where there is none and none is named."""
    return forecast(JanusFlowConfig.from_pretrained(folder), described_vae(folder, vae), **setting)


factor = pixels_per_latent  # its name in release 0.1
