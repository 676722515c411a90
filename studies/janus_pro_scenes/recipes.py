"""Trainings of a small Janus-Pro as data."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

SIDE = 96  # pixels


@dataclass(frozen=True, kw_only=True)
class ProRecipe:
    """A Janus-Pro on the world of scenes, its language model as JanusFlow's `scenes-pico`.

    Only generation is trained. The vision encoder is there because the network has one; its patch
    is the codebook's, which transformers' configuration asks for.
    """

    # the network
    hidden: int = 128
    blocks: int = 6
    heads: int = 4
    mlp: int = 344
    init_std: float = 0.04
    # so that the second rotary frequency turns once a row of tokens: 2 pi theta^(1/16) = 12
    rope_theta: float = 30_700.0
    vision_width: int = 64
    vision_blocks: int = 1
    patch: int = 8  # pixels of a token and side: 144 tokens an image
    codes: int = 1024
    components: int = 24  # of a patch

    # what is shown
    categories: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)  # shares of scenes.SPLITS["train"]

    # next token
    optimizer: str = "muon"
    steps: int = 6_400
    images: int = 16
    lr: float = 3e-3
    warmup: int = 20
    decay_from: float = 0.6  # share of the steps after which the rate falls to zero, linearly
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    ema: float = 0.998
    prompt_drop: float = 0.1
    guidance: float = 1.5  # that its images take unless told; the published 5 ruins small models
    seed: int = 0
    first: int = 0  # index of the first scene that is shown

    @property
    def tokens(self) -> int:
        return (SIDE // self.patch) ** 2

    def config(self, vocab_size: int, image_token: int) -> JanusConfig:
        text = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.blocks,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=1024,
            initializer_range=self.init_std,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            bos_token_id=None,
            eos_token_id=None,
            tie_word_embeddings=False,
        )
        vision = JanusVisionConfig(
            hidden_size=self.vision_width,
            num_hidden_layers=self.vision_blocks,
            num_attention_heads=self.heads,
            image_size=SIDE,
            patch_size=self.patch,
            num_image_tokens=self.tokens,
            projection_dim=self.hidden,
        )
        folded = 3 * self.patch**2
        vq = JanusVQVAEConfig(
            in_channels=folded,
            out_channels=folded,
            base_channels=64,
            channel_multiplier=[1],
            num_res_blocks=0,
            latent_channels=self.components,
            embed_dim=self.components + 2,
            num_embeddings=self.codes,
            projection_dim=self.hidden,
            image_token_embed_dim=self.hidden,
        )
        return JanusConfig(
            text_config=text,
            vision_config=vision,
            vq_config=vq,
            image_token_id=image_token,
            tie_word_embeddings=False,
        )


RECIPES = {
    "scenes-pro-pico": ProRecipe(),
    "scenes-pro-smoke": ProRecipe(  # seconds: for tests
        hidden=32, blocks=2, heads=2, mlp=48, vision_width=32, patch=16, codes=32, components=8,
        steps=4, images=4, warmup=1,
    ),
}  # fmt: skip
