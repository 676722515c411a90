"""`janusflow info`: shows a model's parts, and the memory that generating needs."""

from dataclasses import dataclass

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, SAMPLING, argument
from janusflow.cli.terminal import importing
from janusflow.utils import limits


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow info`."""

    model: str = argument(
        "Names the model: a packaged one, a folder or a hub id. Configurations of the "
        "published models are packaged, so nothing is downloaded.",
        default=o.DEFAULT,
        autocompletion=o.names.models,
    )
    vae: o.Vae = None
    images: int = SAMPLING.option(
        "Forecasts the memory for generating this many images at once.", default=1
    )
    height: o.Height = None
    width: o.Width = None
    tokens: int = MODEL.option("Forecasts the memory for a prompt of this many tokens.", default=20)


@command("info", panel="Models and names")
def info(options: Options) -> dict:
    """Shows a model's parts, and the memory in MiB that generating images needs."""
    with importing():
        from janusflow.cli.model_families import check_sides
        from janusflow.models.family import PRO, family

    check_sides(options)
    limits.whole(options.images, "--images", "number")
    limits.whole(options.tokens, "--tokens", "number")
    if family(options.model) == PRO:
        from janusflow.cli.commands import info_janus_pro

        print(info_janus_pro.describe(options.model))
        return info_janus_pro.facts(options.model)
    from janusflow.cli.commands import info_janusflow as flow
    from janusflow.pipelines import image_io  # noqa: F401 (whose memory is told)

    print(flow.describe(options.model))
    setting = dict(height=options.height, width=options.width, tokens=options.tokens)
    needed = flow.needed(options.model, options.vae, images=options.images, **setting)
    print(flow.memory_table(needed, options.images))
    return flow.facts(options.model) | {"memory": needed}
