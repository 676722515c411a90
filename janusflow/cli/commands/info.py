"""`janusflow info`: shows a model's parts, and the memory that generating needs."""

from dataclasses import dataclass

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, SAMPLING, argument
from janusflow.cli.terminal import importing


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
        from janusflow.models import published_configs
        from janusflow.pipelines import auto_pipeline

    _check(options)
    if (
        auto_pipeline.family(published_configs.folder(options.model) or options.model)
        == auto_pipeline.PRO
    ):
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


def _check(options: Options) -> None:
    from janusflow.utils import limits

    for name in ("images", "height", "width", "tokens"):
        number = getattr(options, name)
        kind = "side" if name in ("height", "width") else "number"
        if number is not None and number < 1:
            raise ValueError(f"--{name} is {number}; expected at least 1")
        limits.hold(kind, number or 1, f"--{name} is {number}")
