"""The understanding encoder: timm's SigLIP ViT, whose names are the published ones."""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from janusflow.models.janusflow.configuration import VisionSizes


class Tower(VisionTransformer):
    """timm's ViT without its head, called as a module, so that hooks of offloading see it."""

    forward = VisionTransformer.forward_features


class VisionEncoder(nn.Module):
    """Pixels (B, 3, S, S), normalised -> tokens (B, (S / patch)^2, width), after the final norm.

    The attention-pool head belongs to the checkpoint but not to the forward pass. Zhai et al. 2023
    (SigLIP).
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
