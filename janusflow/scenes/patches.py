"""Targets of the vision encoder's first training: which object covers each patch of a scene."""

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.scenes.shapes import Obj, coverage, render_batch
from janusflow.scenes.world import COLORS, SHAPES, SIDE, describe, scene

PATCH = 16  # pixels, as the vision encoder's
SEEN = 0.04  # least share of a patch that an object must cover
SHAPE_CLASSES, COLOR_CLASSES = len(SHAPES) + 1, len(COLORS) + 1  # the last is the background
# and in patches, (x, y) each: the way to the object's centre, and the centre's place in the image.
# Without the place, the same object has equal features everywhere, and nobody who reads them can
# tell what is left of what.
OUTPUTS = SHAPE_CLASSES + COLOR_CLASSES + 2 + 2


def targets(objects: tuple[Obj, ...]) -> np.ndarray:
    """Returns each patch's shape, colour and offset (x, y) to the centre, (36, 4) float32."""
    side = SIDE // PATCH
    centres = (np.arange(side) + 0.5) * PATCH
    out = np.zeros((side, side, 4), np.float32)
    out[..., 0], out[..., 1] = SHAPE_CLASSES - 1, COLOR_CLASSES - 1
    most = np.full((side, side), SEEN, np.float32)
    for o in objects:
        share = coverage(o.shape, o.x, o.y, o.size, 0, 0, SIDE, SIDE, samples=1)
        share = share.reshape(side, PATCH, side, PATCH).mean((1, 3))
        mine, most = share > most, np.maximum(share, most)
        offset = np.stack(np.meshgrid(o.x - centres, o.y - centres), axis=-1) / PATCH
        kinds = [list(SHAPES).index(o.shape), list(COLORS).index(o.color)]
        values = np.concatenate([np.broadcast_to(kinds, offset.shape), offset], axis=-1)
        out[mine] = values[mine]
    return out.reshape(side**2, 4)


def middles(side: int) -> Tensor:
    """Returns the middles (x, y) of patches in reading order, in patches, (side^2, 2)."""
    line = torch.arange(side) + 0.5
    return torch.cartesian_prod(line, line).flip(1)


def pixels(images: np.ndarray) -> Tensor:
    """Converts uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1] like the processor."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def batch(step: int, count: int, split: str = "train") -> tuple[Tensor, Tensor, list[str]]:
    """Returns noisy images (count, 3, 96, 96), their patches' targets (count, 36, 4), captions."""
    scenes = [scene(split, step * count + i) for i in range(count)]
    clean = pixels(render_batch([s.objects for s in scenes]))
    rng = torch.Generator().manual_seed(step)
    noise = torch.randn(clean.shape, generator=rng)
    level = 0.1 * torch.rand(count, 1, 1, 1, generator=rng)
    below = np.stack([targets(s.objects) for s in scenes])
    captions = [describe(s.objects) for s in scenes]
    return clean + level * noise, torch.from_numpy(below), captions


def loss(outputs: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """Returns cross-entropies plus errors of offset and place of outputs (B, 36, OUTPUTS), and the
    accuracy.

    The accuracy is the fraction of covered patches with the right shape and colour.
    """
    parts = [SHAPE_CLASSES, COLOR_CLASSES, 2, 2]
    shape, color, offset, place = outputs.flatten(0, 1).split(parts, dim=1)
    centre = (target[..., 2:] + middles(SIDE // PATCH).to(target)).flatten(0, 1)
    target = target.flatten(0, 1)
    kinds, covered = target[:, :2].long(), target[:, 0] < SHAPE_CLASSES - 1
    cross = nn.functional.cross_entropy
    total = cross(shape, kinds[:, 0]) + cross(color, kinds[:, 1])
    total = total + nn.functional.smooth_l1_loss(offset[covered], target[covered, 2:])
    total = total + nn.functional.smooth_l1_loss(place[covered], centre[covered])
    right = (shape.argmax(1) == kinds[:, 0]) & (color.argmax(1) == kinds[:, 1])
    return total, right[covered].float().mean().item()
