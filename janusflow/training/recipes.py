"""Recipes: complete trainings of small models, each as one frozen value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.utils import limits
from janusflow.utils.safe_io import parse_object
from janusflow.utils.text import explained

# Numbers that a network is built of, by the limit that holds them; they are at least 1.
BOUNDED = {
    "hidden": "width",
    "blocks": "layers",
    "heads": "width",
    "mlp": "mlp_width",
    "channels": "width",
    "vision_width": "width",
    "vision_blocks": "layers",
    "vision_heads": "width",
    "latent_channels": "width",
    "vision_batch": "number",
    "image_size": "image_size",
}
LEAST = dict.fromkeys(BOUNDED, 1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A small JanusFlow on the world of scenes, 96 px, with a quarter of the published geometry.

    With a `collection` it is trained on the captioned folder that `janusflow data` wrote; the
    vision encoder is then trained too.
    """

    collection: str = ""  # of janusflow.data.collections; "" for the world of scenes
    languages: str = "en"  # of its captions, as codes separated by commas; answers use the first

    # the network
    image_size: int = 96  # pixels
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

    # the vision encoder, trained first: what lies under each patch, which caption is the image's
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
    images: int = 32  # generation samples in a batch
    questions: int = 6  # understanding samples in a batch
    lr: float = 1.5e-3
    warmup: int = 100
    decay_from: float = 0.6  # share of the steps after which the rate falls to zero, linearly
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    ema: float = 0.999
    density_mean: float = -1.0  # of logit(t): what the prompt decides, it decides near the noise
    density_std: float = 1.2
    cond_dropout: float = 0.1
    alignment: float = 1.0  # weight; 0 trains without a teacher
    alignment_depth: float = 0.25  # share of the blocks before the tap
    answer: float = 1.0  # weight of the next-token loss
    seed: int = 0

    def __post_init__(self):
        if not all(self.spoken) or (self.languages != "en" and not self.collection):
            raise ValueError(
                f"languages is {self.languages!r:.80}; expected codes separated by commas, as "
                "'en,de', for a recipe of a collection (scenes are English)"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            given = value if isinstance(value, tuple) else (value,)
            if isinstance(value, str):
                continue
            if any(isinstance(x, bool) or not isinstance(x, int | float) for x in given):
                raise ValueError(f"{field.name} is {value!r:.80}; expected numbers")
            least = LEAST.get(field.name, -100 if field.name == "density_mean" else 0)
            if not all(least <= x < float("inf") for x in given):
                raise ValueError(f"{field.name} is {value!r:.80}; expected {least} or more")
        for name, limit in BOUNDED.items():
            limits.whole(getattr(self, name), name, limit)

    @property
    def spoken(self) -> tuple[str, ...]:
        """The codes of the captions' languages, the one of answers first."""
        return tuple(code.strip() for code in self.languages.split(","))

    @property
    def tap(self) -> int:
        """The block whose output is aligned, counted from 1."""
        return max(1, round(self.alignment_depth * self.blocks))

    def config(self, vocab_size: int) -> JanusFlowConfig:
        """The network's configuration in the published layout."""
        sides = dict(block_out_channels=[self.channels], hidden_size=self.hidden, norm_eps=1e-6)
        vision = dict(
            model_name="siglip_tiny",
            image_size=self.image_size,
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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Returns a recipe from its form in a checkpoint. Raises ValueError if it is invalid."""
        with explained(
            "the checkpoint's recipe cannot be read",
            "resume with the release that wrote it",
            TypeError,
        ):
            found = parse_object(text, Path("the checkpoint's recipe"))
            names = {"clip": "max_grad_norm", "prompt_drop": "cond_dropout"}  # as once written
            found = {names.get(k, k): v for k, v in found.items()}
            found = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            return cls(**found)


EMOJI = Recipe(
    collection="emoji",
    image_size=64,
    hidden=192,
    heads=6,
    mlp=512,
    channels=128,
    latent_channels=32,
    optimizer="muon",
    images=64,
    questions=6,
    steps=6_000,
    density_mean=-0.6,
    alignment=0.0,
)

RECIPES = {
    "scenes-pico": Recipe(),  # two CPU cores, an hour or a few
    "scenes-mini": Recipe(  # one GPU, minutes: bfloat16 weights of under 16 MB
        hidden=192,
        mlp=512,
        channels=128,
        vision_width=192,
        vision_steps=4_000,
        vision_batch=256,
        vision_contrastive=0.0,
        optimizer="muon",
        steps=12_000,
        images=480,
        questions=48,
        density_mean=-1.3,
        categories=(1, 3, 2, 1, 5, 5, 3),
        templates=(2, 3, 1, 1, 1, 2, 3, 2),
        ema=0.9995,
    ),
    "emoji-pico": EMOJI,  # one CPU core, hours: bfloat16 weights of 12 MB
    "emoji-mini": replace(  # one GPU: a wider autoencoder; not run yet
        EMOJI,
        mlp=448,
        channels=192,
        latent_channels=48,
        images=256,
        questions=24,
        steps=20_000,
        ema=0.9995,
    ),
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
        images=8,
        questions=4,
        warmup=2,
    ),
}
