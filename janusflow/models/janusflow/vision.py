"""The vision encoder: timm's SigLIP ViT with the published names, or another of timm or
transformers.
"""

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from janusflow.models.janusflow.configuration import VisionSizes


class Tower(VisionTransformer):
    """timm's ViT without its head, called as a module so that offloading hooks run."""

    forward = VisionTransformer.forward_features


class VisionEncoder(nn.Module):
    """Normalised pixels (B, 3, S, S) -> tokens (B, (S / patch)^2, width), after the final norm.

    The checkpoint's attention-pool head is loaded but not applied. Zhai et al. 2023 (SigLIP).
    """

    def __init__(self, sizes: VisionSizes):
        super().__init__()
        self.vision_tower = Tower(
            img_size=sizes.image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.width,
            depth=sizes.layers,
            num_heads=sizes.heads,
            mlp_ratio=sizes.mlp_ratio,
            class_token=False,
            global_pool="map",
            num_classes=0,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision_tower(pixels)


class TimmEncoder(nn.Module):
    """A vision transformer of timm by name, without its class and register tokens."""

    def __init__(self, sizes: VisionSizes):
        super().__init__()
        if not timm.is_model(sizes.name):
            raise ValueError(f"timm has no model {sizes.name!r:.60}; see timm.list_models()")
        self.vision_tower = timm.create_model(
            sizes.name, img_size=sizes.image_size, num_classes=0, pretrained=False
        )
        self.vision_tower.forward = self.vision_tower.forward_features  # as `Tower` has it
        self.tokens = sizes.tokens

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision_tower(pixels)[:, -self.tokens :]


class TransformersEncoder(nn.Module):
    """A vision encoder of transformers by its configuration, without class and register tokens.

    The variant of SigLIP 2 for any aspect ratio takes flattened patches, here those of a square
    image.
    """

    def __init__(self, sizes: VisionSizes):
        super().__init__()
        settings = dict(sizes.settings)
        config = AutoConfig.for_model(settings.pop("model_type", None), **settings)
        self.vision_tower = AutoModel.from_config(config)
        self.flattens = config.model_type.startswith("siglip2")
        self.sizes = sizes

    def forward(self, pixels: Tensor) -> Tensor:
        inputs = self._patches(pixels) if self.flattens else dict(pixel_values=pixels)
        return self.vision_tower(**inputs).last_hidden_state[:, -self.sizes.tokens :]

    def _patches(self, pixels: Tensor) -> dict[str, Tensor]:
        """Returns patches (B, n, p p 3) in reading order, with the grid that they form."""
        p = self.sizes.patch_size
        cut = pixels.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, 3, h, p, w, p)
        grid = cut.shape[2], cut.shape[4]
        flat = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        ones = flat.new_ones(flat.shape[:2])
        shapes = pixels.new_tensor([grid] * len(pixels)).long()
        return dict(pixel_values=flat, pixel_attention_mask=ones, spatial_shapes=shapes)


def build_vision_encoder(sizes: VisionSizes) -> nn.Module:
    """Builds the encoder that the sizes describe. Raises ValueError for an unsupported one."""
    kinds = {None: VisionEncoder, "timm": TimmEncoder, "transformers": TransformersEncoder}
    return kinds[sizes.library](sizes)
