"""The sizes of vision towers, by the names that published configurations give them."""

# Vision towers by their published names; a configuration may override any of these in its `params`.
TOWERS: dict[str, dict[str, int | float]] = {
    "siglip_large_patch16_384": dict(
        image_size=384, patch_size=16, width=1024, layers=24, heads=16, mlp_ratio=4
    ),
    "siglip_large_patch16_256": dict(
        image_size=256, patch_size=16, width=1024, layers=24, heads=16, mlp_ratio=4
    ),
    "siglip_base_patch16_384": dict(
        image_size=384, patch_size=16, width=768, layers=12, heads=12, mlp_ratio=4
    ),
    "siglip_so400m_patch14_384": dict(
        image_size=384, patch_size=14, width=1152, layers=27, heads=16, mlp_ratio=4304 / 1152
    ),
    "siglip_tiny": dict(image_size=96, patch_size=16, width=48, layers=3, heads=4, mlp_ratio=4),
}
