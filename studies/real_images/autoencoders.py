"""Measures how well autoencoders reconstruct real images: PSNR on held-out concepts.

    python -m studies.real_images.autoencoders --data stamps --data emoji --out FILE

Linear ones are fitted in closed form on the collection's train split; others are read from
folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.autoencoder_loading import load_vae
from janusflow.utils import images
from janusflow.utils.hub import locate
from samplers import command_line

LINEAR = ((8, 16), (8, 32), (8, 48), (4, 16))  # patch in pixels, latent channels


def pixels(folder: Path, split: str) -> Tensor:
    """Returns the split's images, each once: (N, 3, S, S) in [-1, 1]."""
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    names = dict.fromkeys(json.loads(line)["image"] for line in lines)
    shown = [np.asarray(images.read(folder / name)) for name in names]
    return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def psnr(autoencoder, shown: Tensor) -> Tensor:
    """Returns 10 log10(1 / mean squared error) in decibels of each image (N,) in [0, 1]."""
    found = []
    for part in shown.split(32):
        code = autoencoder.encode(part).latent_dist.mode()
        again = autoencoder.decode(code).sample.clamp(-1, 1)
        found.append(((again - part) / 2).square().flatten(1).mean(1))
    return -10 * torch.cat(found).clamp(min=1e-10).log10()


def candidates(train: Tensor, models: Sequence[str]) -> Iterator[tuple[str, int, int, object]]:
    """Yields name, latent channels, pixels per latent side, and the autoencoder."""
    for patch, channels in LINEAR:
        linear = PatchAutoencoder(channels, patch_size=patch)
        linear.fit(train)
        yield f"linear, {patch} x {patch} patches", channels, patch, linear.requires_grad_(False)
    for name in models:
        vae = load_vae(locate(name), None)
        factor = 2 ** (len(getattr(vae.config, "block_out_channels", (1,) * 4)) - 1)
        yield name, vae.config.latent_channels, factor, vae


def measure(folder: Path, models: Sequence[str]) -> list[dict]:
    train, test = pixels(folder, "train"), pixels(folder, "test")
    rows = []
    for name, channels, factor, autoencoder in candidates(train, models):
        values = psnr(autoencoder, test)
        error = values.std().item() / len(values) ** 0.5
        rows.append(
            dict(data=folder.name, autoencoder=name, channels=channels, factor=factor)
            | dict(psnr=round(values.mean().item(), 2), error=round(error, 2), images=len(values))
        )
        print(f"{folder.name:8} {name:28} {channels:3} channels {rows[-1]['psnr']:6.2f} dB")
    return rows


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        help="Measures on this folder of `janusflow data`; repeat for several.",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=["janusflow/scenes"],
        help="Also measures the autoencoder of this model; repeat for several.",
    )
    parser.add_argument("--out", type=Path, help="Writes the rows to this JSON file.")
    args = parser.parse_args()
    rows = [row for folder in args.data for row in measure(folder, args.model)]
    if args.out:
        command = "python -m studies.real_images.autoencoders --data stamps --data emoji"
        told = {"command": command, "rows": rows}
        args.out.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
