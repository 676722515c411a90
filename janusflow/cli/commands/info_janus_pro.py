"""The part of `janusflow info` for Janus and Janus-Pro."""

from transformers import JanusConfig, JanusForConditionalGeneration

from janusflow.cli.commands.info_janusflow import BYTES, counted, parts_table, told
from janusflow.models import published_configs
from janusflow.models.janus_pro import convert, tensors
from janusflow.models.janus_pro.loading import is_original, own_config, read_config
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.utils.hub import locate

FILES = ["*.json", "*.jinja"]  # what describes a model without its weights
PARTS = {
    "vision encoder": ("model.vision_model.", "model.aligner."),
    "language model": ("model.language_model.", "lm_head."),
    "generation head": ("model.generation_",),
    "VQ model": ("model.vqmodel.",),
}


def configuration(name: str) -> JanusConfig:
    """Returns transformers' configuration from either layout; those of published models are
    packaged, and of others on the hub no weights are downloaded.

    A folder without weights is taken to hold the published VQ model.
    """
    if (known := published_configs.configuration(name)) is not None:
        return known
    folder = locate(name, files=FILES)
    content = read_config(folder)
    if is_original(content):
        weights = any(path.suffix in (".bin", ".safetensors") for path in folder.iterdir())
        return convert.config(content, tensors.read(folder) if weights else None, image_token=0)
    return own_config(folder)


def facts(name: str) -> dict:
    """Returns the parameters of each part, and the bytes of the weights in each dtype."""
    return told(name, count_parameters(configuration(name)))


def describe(name: str) -> str:
    """Returns a table of 80 columns. Raises ValueError for a folder that is not a Janus."""
    config = configuration(name)
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    counts = count_parameters(config)
    lines = [
        f"  vision encoder   {vision.num_hidden_layers} blocks of {vision.hidden_size}, "
        f"{vision.image_size} px, {vision.num_image_tokens} tokens",
        f"  generation       {vq.num_embeddings} codes of {vq.embed_dim}, "
        f"{vq.num_patches**2} tokens, one after the other",
        *_roles(name),
    ]
    total = sum(counts.values())
    sizes = ", ".join(f"{total * b / 2**20:,.0f} MiB in {d}" for d, b in BYTES.items())
    return f"{parts_table(name, text, lines, counts)}\n\n  weights take {sizes}"


def _roles(name: str) -> list[str]:
    """Describes the role names of the folder's tokenizer, or nothing without a tokenizer."""
    folder = published_configs.folder(name) or locate(name, files=FILES)
    if not (folder / "tokenizer.json").is_file():
        return []
    words = JanusProProcessor.from_pretrained(folder).role_words
    return [f"  roles            {' and '.join(words)}"]


def count_parameters(config: JanusConfig) -> dict[str, int]:
    """Returns the parameters of each part without allocating memory."""
    return counted(lambda: JanusForConditionalGeneration(config), PARTS)
