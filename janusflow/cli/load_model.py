"""Loads the model that a command's options name."""

from janusflow.cli.shared_options import Placement


def load(options: Placement, lora: str | None = None):
    """Returns the pipeline on its device, with an adapter if one is named."""
    from janusflow.pipelines import image_io

    return image_io.load(options.model, options.vae, options.device, options.dtype, lora)


def weights(options: Placement, lora: str | None = None, few=None) -> dict[str, str]:
    """Returns the SHA-256 of every weight file that affects an image.

    This includes the autoencoder's files, and the few-step model's if one generates it.
    """
    from janusflow.evaluation import provenance
    from janusflow.models.autoencoder_loading import locate_autoencoder
    from janusflow.utils.hub import locate

    found = provenance.weights(
        locate(options.model),
        locate_autoencoder(options.vae) if options.vae else None,
        _adapter(lora) if lora else None,
    )
    jumps = provenance.weights(few.weights.folder) if few else {}
    return found | {f"few-step/{name}": digest for name, digest in jumps.items()}


def _adapter(name: str):
    """Returns an adapter's folder, or its weight file if the name is of one."""
    from janusflow.pipelines.lora_mixin import adapter_file
    from janusflow.utils.hub import locate

    folder, file = adapter_file(name)
    found = locate(folder, files=["adapter_*", file or ""])
    return found / file if file else found


def fingerprint(options: Placement, lora: str | None = None, few=None) -> str:
    """Returns sixteen digits that identify all weights of an image together."""
    from janusflow.evaluation import provenance

    return provenance.fingerprint(weights(options, lora, few))
