"""Loads a model's autoencoder, of a class known here and no larger than its weight files say."""

import math
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL
from diffusers.utils import is_accelerate_available

from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.autoencoder_adapter import KINDS, AdaptedAutoencoder
from janusflow.models.latents import pixels_per_latent
from janusflow.utils import finite, limits
from janusflow.utils.checkpoint_files import LOADING, check_size
from janusflow.utils.hub import AUTOENCODER, CONFIGS, locate
from janusflow.utils.keywords import choice
from janusflow.utils.safe_io import read_object
from janusflow.utils.text import explained

VAES = {"AutoencoderKL": AutoencoderKL, "PatchAutoencoder": PatchAutoencoder}
VAES |= {name: getattr(diffusers, name) for name in KINDS}
COUNTS = dict(
    latent_channels="width",
    patch_size="width",
    in_channels="width",
    out_channels="width",
    norm_num_groups="width",
    layers_per_block="layers",
    block_out_channels="width",
)

UNFIT = "the autoencoder in {!r} cannot be loaded"
CHECK = "check its config.json and weights"
NUMBERS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
SDXL = dict(  # stabilityai/sdxl-vae, as its config.json describes it
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=4,
    scaling_factor=0.13025,
)


def load_vae(
    folder: Path,
    name: str | Path | None,
    dtype: torch.dtype = torch.float32,
    *,
    variant: str | None = None,
    required: bool = True,
):
    """Loads the autoencoder in `folder/vae`, or the one that `name` refers to.

    `name` is a folder or a hub id, optionally pinned as "id@revision", of an autoencoder or of a
    pipeline with one in `vae/`. `variant` applies to `folder/vae`. Without an autoencoder it raises
    ValueError, or returns None if it is not `required`.
    """
    inside = folder / "vae"
    if name is None and not inside.is_dir():
        if not required:
            return None
        raise ValueError(
            f"{str(folder)!r} holds no vae/; name the autoencoder, for JanusFlow-1.3B "
            "vae='stabilityai/sdxl-vae'"
        )
    if not isinstance(name, str | Path | None):
        raise TypeError(
            f"vae is {name!r:.60}; expected a folder, a hub id, or a loaded autoencoder"
        )
    source = inside if name is None else locate_autoencoder(name)
    kind = _kind(source)
    chosen = _variant(source, variant) if name is None else None
    with explained(UNFIT.format(str(source)), CHECK):
        vae, info = kind.from_pretrained(
            source,
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
            variant=chosen,
            low_cpu_mem_usage=is_accelerate_available(),  # else diffusers warns at each start
        )
    if missing := sorted(info["missing_keys"]):  # diffusers would go on with random numbers
        raise ValueError(f"{str(source)!r} lacks {missing[0]!r}; download the autoencoder again")
    finite.check_weights(vae.state_dict(), repr(str(source)))
    return adapted(vae)


def adapted(vae: torch.nn.Module) -> torch.nn.Module:
    """Returns the autoencoder with AutoencoderKL's interface, wrapping it if needed."""
    return AdaptedAutoencoder.adapt(vae) if type(vae).__name__ in KINDS else vae


def locate_autoencoder(name: str | Path, files: Sequence[str] = AUTOENCODER) -> Path:
    """Returns the folder of an autoencoder given as a folder, a hub id or "id@revision".

    It may also be a model's with the autoencoder in `vae/`. Only `files` are downloaded.
    """
    folder = locate(name, files)
    inside = folder / "vae"
    return inside if (inside / "config.json").exists() else folder


def _variant(source: Path, variant: str | None) -> str | None:
    """Returns the variant if the folder has it; the network's may not apply to it."""
    found = variant and any(source.glob(f"diffusion_pytorch_model*.{variant}*"))
    return variant if found else None


def check_vae(vae: torch.nn.Module, config) -> None:
    """Raises ValueError for an autoencoder whose latents do not fit the network.

    In every published model one latent token covers as many pixels as one patch of the vision
    tower; other models use 8 pixels per latent.
    """
    channels, sizes = vae.config.get("latent_channels"), config.generation
    if channels != sizes.latent_channels:
        raise ValueError(
            f"the autoencoder makes {channels} channels, the network takes "
            f"{sizes.latent_channels}; name the one that the model was trained with"
        )
    factor = pixels_per_latent(vae)
    told = sizes.pixels_per_latent
    if told is not None and factor != told:
        raise ValueError(
            f"the autoencoder makes a latent of {factor} x {factor} pixels, the network takes "
            f"{told} x {told}; name the one that the model was trained with"
        )
    if told is None and factor != 8 and factor * sizes.patch != config.vision.patch_size:
        raise ValueError(
            f"the autoencoder makes a latent of {factor} x {factor} pixels, the network takes "
            "8 x 8; name the one that the model was trained with"
        )


def described_vae(folder: Path, name: str | Path | None) -> torch.nn.Module:
    """Returns the autoencoder that `load_vae` would load, without weights; by default SDXL's."""
    inside = folder / "vae"
    source = inside if inside.is_dir() else None
    source = source if name is None else locate_autoencoder(name, CONFIGS)
    with torch.device("meta"):
        if source is None:
            return AutoencoderKL(**SDXL)
        return adapted(_kind(source).from_config(read_object(source / "config.json")))


def _kind(source: Path) -> type:
    """Returns the class that config.json names, after checking its sizes.

    A network without memory is built first, so that its size is known before memory is allocated.
    """
    config = read_object(source / "config.json")
    if "model_type" in config and "_class_name" not in config:
        raise ValueError(
            f"{str(source)!r} is a model of {config['model_type']!r:.60}, no autoencoder; name an "
            "autoencoder or a model with one in vae/"
        )
    name = config.get("_class_name", "AutoencoderKL")
    choice(f"the autoencoder in {str(source)!r} is a", name, VAES)
    for key in LOADING:
        if config.get(key):
            raise ValueError(
                f"config.json in {str(source)!r} holds {key!r}, which is not taken from a file; "
                "remove it"
            )
    for key, limit in COUNTS.items():
        _check_count(config.get(key), f"{key} of {str(source)!r}", limit)
    for key in NUMBERS:
        _check_numbers(config.get(key), key, source)
    with explained(UNFIT.format(str(source)), CHECK), torch.device("meta"):
        network = VAES[name].from_config(config)
    check_size(sum(p.numel() for p in network.parameters()), source)
    return VAES[name]


def _check_numbers(value, key: str, source: Path) -> None:
    """Raises ValueError for a scale or shift that is not a number, or a list where a number is
    expected.

    Scales must be positive.
    """
    each = key.startswith("latents_")
    values = value if each and isinstance(value, list) else [value]
    real = all(type(v) in (int, float) and math.isfinite(v) for v in values)
    scales = key in ("scaling_factor", "latents_std")
    if value is not None and not (real and (not scales or min(values) > 0)):
        wanted = "numbers, one a channel" if each else "a finite number"
        raise ValueError(
            f"{key} of {str(source)!r} is {value!r:.60}; expected {wanted}"
            f"{' above 0' if scales else ''}"
        )


def _check_count(value, name: str, limit: str) -> None:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if len(values) > 16:
        raise ValueError(f"{name} has {len(values)} entries; expected at most 16")
    for one in values:
        limits.whole(one, name, limit)


def vae_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the autoencoder's dtype for the network's: float32 for float16 (SDXL's overflows)."""
    return torch.float32 if dtype == torch.float16 else dtype
