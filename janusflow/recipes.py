"""Trainings as data: every number of a run in one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from janusflow.configuration_janusflow import JanusFlowConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A small JanusFlow on the world of scenes: a quarter of the published geometry, 96 px."""

    # the network
    hidden: int = 128  # width of the language model
    blocks: int = 6
    heads: int = 4
    mlp: int = 344
    init_std: float = 0.04  # of fresh weights; transformers' 0.02 suits wider networks
    channels: int = 96  # of the generation encoder; the decoder has twice as many
    vision_width: int = 128
    vision_blocks: int = 4
    vision_heads: int = 4
    latent_channels: int = 16  # principal components of an 8 x 8 patch
    whitening: float = 0.5

    # the vision encoder, trained first: what lies under each patch, which caption is the picture's
    vision_steps: int = 3_000
    vision_batch: int = 64
    vision_lr: float = 1e-3
    vision_contrastive: float = 1.0  # weight of the captions; 0 looks at patches only

    # what is shown and asked, in shares
    categories: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)  # of scenes.SPLITS["train"]
    templates: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1, 1)  # of questions.TEMPLATES

    # flow, alignment and next token together
    optimizer: str = "adamw"  # or muon
    steps: int = 6_400
    pictures: int = 32  # generation samples in a batch
    questions: int = 6  # understanding samples in a batch
    lr: float = 1.5e-3
    warmup: int = 100
    decay_from: float = 0.6  # share of the steps after which the rate falls to zero, linearly
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    ema: float = 0.999
    density_mean: float = -1.0  # of logit(t): what the prompt decides, it decides near the noise
    density_std: float = 1.2
    prompt_drop: float = 0.1
    alignment: float = 1.0  # weight; 0 trains without a teacher
    alignment_depth: float = 0.25  # share of the blocks before the tap
    answer: float = 1.0  # weight of the next-token loss
    seed: int = 0

    @property
    def tap(self) -> int:
        """The block whose output is aligned, counted from 1."""
        return max(1, round(self.alignment_depth * self.blocks))

    def config(self, vocab_size: int) -> JanusFlowConfig:
        """The network's configuration in the published layout."""
        sides = dict(block_out_channels=[self.channels], hidden_size=self.hidden, norm_eps=1e-6)
        vision = dict(
            model_name="siglip_tiny",
            image_size=96,
            select_feature="same",
            select_layer=-1,
            width=self.vision_width,
            layers=self.vision_blocks,
            heads=self.vision_heads,
        )
        encoder = dict(input_channels=self.latent_channels, kernel_size=2, stride=2, padding=0)
        decoder = dict(in_channels=self.channels, out_channels=self.latent_channels, upsamples=1)
        both = dict(layers_in_middle=2, use_bias=True, use_mid_block=True, **sides)
        return JanusFlowConfig(
            language_config=dict(
                model_type="llama",
                hidden_size=self.hidden,
                intermediate_size=self.mlp,
                num_hidden_layers=self.blocks,
                num_attention_heads=self.heads,
                num_key_value_heads=self.heads,
                vocab_size=vocab_size,
                max_position_embeddings=1024,
                initializer_range=self.init_std,
            ),
            vision_und_enc_config=dict(
                model_type="vision_und_enc", cls="CLIPVisionTower", params=vision
            ),
            vision_gen_enc_config=dict(
                model_type="vision_gen_enc", cls="ShallowUViTEncoder", params=encoder | both
            ),
            vision_gen_dec_config=dict(
                model_type="vision_gen_dec", cls="ShallowUViTDecoder", params=decoder | both
            ),
        )

    def as_dict(self) -> dict:
        return asdict(self)


RECIPES = {
    "scenes-pico": Recipe(),  # two CPU cores, an hour or a few
    "scenes-smoke": Recipe(  # seconds: for tests
        hidden=64,
        blocks=4,
        mlp=128,
        channels=32,
        vision_width=48,
        vision_blocks=2,
        vision_steps=4,
        vision_batch=8,
        steps=8,
        pictures=8,
        questions=4,
        warmup=2,
    ),
}
