"""`janusflow assemble`: combines a language model, a vision encoder and an autoencoder to a new
model.
"""

from dataclasses import dataclass

from janusflow.cli.command import command
from janusflow.cli.save_images import check_new
from janusflow.cli.shared_options import MODEL, NewModel, Panel
from janusflow.cli.terminal import importing

SHAPE = Panel("Shape")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow assemble`."""

    language_model: str = MODEL.option(
        "Takes the language model from this folder or hub id; it must be built like Llama, as "
        "Qwen3, Mistral and SmolLM2 are.",
        default=...,
    )
    vision: str = MODEL.option(
        "Takes the vision encoder from this folder or hub id; it may be of timm or transformers.",
        default=...,
    )
    vae: str = MODEL.option(
        "Takes the autoencoder from this folder or hub id, in diffusers' layout.", default=...
    )
    out: NewModel
    channels: int | None = SHAPE.option(
        "Sets the channels of the generation encoder. The default is 3/8 of the language "
        "model's width."
    )
    layers: int = SHAPE.option(
        "Sets the number of ConvNeXt blocks in the generation encoder and in the decoder.",
        default=2,
    )
    patch: int | None = SHAPE.option(
        "Sets how many latents a token covers along each side. By default a token covers 16 pixels."
    )
    image_size: int | None = SHAPE.option(
        "Sets the side of the images in pixels. By default it is the vision encoder's."
    )
    seed: int = SHAPE.option("Seeds the random initial weights of the new parts.", default=0)


@command("assemble", panel="Training and files")
def assemble(options: Options) -> dict:
    """Combines pretrained parts into a new model, which `train` then teaches to answer and to
    generate.
    """
    with importing("importing"):
        from janusflow.models.autoencoder_loading import locate_autoencoder
        from janusflow.models.janusflow import assembly
        from janusflow.utils.hub import locate

    out = options.out
    check_new(out)
    adapters = assembly.Adapters(
        channels=options.channels,
        layers=options.layers,
        patch=options.patch,
        image_size=options.image_size,
        seed=options.seed,
    )
    files = ["*.json", "*.safetensors"]
    parts = [locate(name, files=files) for name in (options.language_model, options.vision)]
    model = assembly.assemble(*parts, locate_autoencoder(options.vae), out, adapters)
    count = sum(p.numel() for p in model.parameters())
    following = f"janusflow train --stage 1 --model {out} --data FOLDER --out RUN"
    print(f"{out}: {count:,} parameters; next: {following}")
    return dict(model=str(out), parameters=count)
