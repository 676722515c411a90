"""What memory pictures take, found by running the networks on tensors that hold nothing.

torch's fake tensors have a shape and no data: one evaluation and one decoding at any size cost a
second and no memory, and the storages alive at once are added up on the way. What libraries take
for themselves (a GPU's context, workspaces of convolutions) is not seen.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from janusflow.models.prompt_cache import Prompt
from janusflow.utils.finite import plain

LEAST = 8  # latents along a tile's side


@dataclass(frozen=True)
class Forecast:
    """Bytes: of the weights, and above them while the network runs and while pictures are
    decoded.
    """

    weights: int
    sampling: int
    decoding: int

    @property
    def peak(self) -> int:
        return self.weights + max(self.sampling, self.decoding)

    def told(self) -> dict[str, int]:
        return asdict(self) | {"peak": self.peak}


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


def forecast(
    config: JanusFlowConfig,
    vae: nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    pictures: int = 1,
    height: int | None = None,
    width: int | None = None,
    tokens: int = 20,
    rows: int = 2,
    eight_bit: bool = False,
    device: str = "cpu",
) -> Forecast:
    """For so many pictures at once of height x width pixels (the model's own size), decoded
    together.

    `vae` gives the autoencoder's class and configuration, its weights are not looked at. `tokens`
    are a prompt's, `rows` the network evaluations of a picture that run at once (2 under guidance).
    `eight_bit` counts linear layers at a byte a weight, as torchao's int8 weights are. A `device`
    "cpu" evaluates rows in parts, others all at once. ValueError for sides that the network cannot
    make.
    """
    own, scale = config.vision.image_size, factor(vae)
    check_sides(height or own, width or own, scale * config.generation.patch)
    sides = (height or own) // scale, (width or own) // scale
    shape = (pictures, config.generation.latent_channels, *sides)
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
            f"pictures of {height} x {width} cannot be made; sides must be multiples of {unit}"
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
    width = text.hidden_size // text.num_attention_heads
    kept = (rows * shape[0], heads, tokens, width)
    layers = range(text.num_hidden_layers)
    with FakeTensorMode(), torch.no_grad(), Living(_without_data(model, dtype)) as living:
        x, *_known = (torch.empty(shape) for _ in range(4))
        keys, values = (tuple(torch.empty(kept, dtype=dtype) for _ in layers) for _ in range(2))
        prompt = Prompt(keys, values, None, torch.empty(kept[0], dtype=torch.long))
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


def factor(vae: nn.Module) -> int:
    """Pixels per latent and side."""
    config = vae.config
    if "block_out_channels" in config:
        return 2 ** (len(config.block_out_channels) - 1)
    return config.patch_size


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


def fitting(bytes_of: Callable[[int], int], limit: int, most: int) -> int:
    """The most pictures whose `bytes_of` stay within `limit`; 0 where not one's do. Memory grows by
    the same for every picture, so that one and two tell.
    """
    one, two = bytes_of(1), bytes_of(2)
    return 0 if one > limit else min(most, 1 + (limit - one) // max(two - one, 1))


@torch.no_grad()
def decode(vae: nn.Module, z: Tensor, limit: int | None = None) -> Tensor:
    """Pixels (B, 3, H, W) in float32 of z (B, c, h, w), within `limit` bytes above the weights.

    As many pictures at once as fit; where not one does, one in tiles, with a warning: an
    autoencoder with normalisations over the whole picture then sees less. ValueError where the
    smallest tiles need more.
    """
    if limit is None:
        return vae.decode(z, return_dict=False)[0].float()
    scale, network = factor(vae), unbuilt(type(vae).from_config, vae.config)
    pixels = z.new_empty(len(z), 3, *(side * scale for side in z.shape[2:]), dtype=torch.float32)
    rest = limit - pixels.nbytes

    def needs(count: int, *sides: int) -> int:
        return decoding(network, (count, z.shape[1], *(sides or z.shape[2:])), vae.dtype)

    at_once = fitting(needs, rest, len(z))
    side = 0 if at_once else _tile(lambda side: needs(1, side, side), vae, max(z.shape[2:]), rest)
    with tiled(vae, side):
        for part, out in zip(z.split(at_once or 1), pixels.split(at_once or 1), strict=True):
            out.copy_(vae.decode(part, return_dict=False)[0])
    return pixels


def _tile(needs: Callable[[int], int], vae: nn.Module, side: int, limit: int) -> int:
    """The largest half, quarter, ... of a picture that fits."""
    sides = (
        [side >> k for k in range(1, 8) if side >> k >= LEAST] if hasattr(vae, "blend_v") else []
    )
    for smaller in sides:
        if needs(smaller) <= limit:
            warnings.warn(
                f"a picture is decoded in tiles of {smaller} latents to stay within the memory "
                "limit, which changes it a little",
                stacklevel=5,
            )
            return smaller
    least = needs(sides[-1] if sides else side)
    raise ValueError(
        f"decoding may take {max(limit, 0):,} bytes beside its pictures and needs {least:,}; raise "
        "the memory limit or make smaller pictures"
    )


@contextmanager
def tiled(vae: nn.Module, side: int) -> Iterator[None]:
    """Inside, diffusers' autoencoder decodes in tiles of so many latents; 0 changes nothing."""
    names = ("use_tiling", "tile_latent_min_size", "tile_sample_min_size") if side else ()
    before = {name: getattr(vae, name) for name in names}
    now = zip(names, (True, side, side * factor(vae)), strict=False)
    try:
        for name, value in now:
            setattr(vae, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


def free(device: torch.device) -> int | None:
    """Bytes that can still be taken there; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = [_of_machine(), _of_group()]
    return min((size for size in found if size is not None), default=None)


def _of_machine(path: str = "/proc/meminfo") -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_group(folder: str = "/sys/fs/cgroup") -> int | None:
    """What a container's limit leaves; pages of files that it has not used lately count as free."""
    group = Path(folder)
    try:
        most, now = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(most - now + int(told.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # no group, or "max"
        return None


def of_folder(folder: Path, vae: str | Path | None = None, **setting) -> Forecast:
    """`forecast` for a model's folder; SDXL's autoencoder where there is none and none is named."""
    return forecast(JanusFlowConfig.from_pretrained(folder), described_vae(folder, vae), **setting)


def of_program() -> int:
    """Bytes that this process takes now: the interpreter and its libraries before any weights."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
