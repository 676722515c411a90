"""Checks a model folder for silent faults: tokens, tags, sizes and the autoencoder.

Each check returns one sentence, with or without a fault. `janusflow doctor` prints them.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import PreTrainedConfig

from janusflow.models.autoencoder_loading import described_vae
from janusflow.models.janus_pro.loading import is_original, own_config, read_config
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.tokenizer_guard import WORDS, kept
from janusflow.utils.safe_io import read_object


@dataclass(frozen=True)
class Finding:
    """The result of one check: its name, "ok", "warning" or "problem", a sentence, and numbers."""

    name: str
    state: str
    sentence: str
    numbers: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence


def finding(name: str, right: bool, sentence: str) -> Finding:
    """Returns a `Finding` that is "ok" or a "problem"."""
    return Finding(name, "ok" if right else "problem", sentence)


def examine(folder: str | Path, vae: str | Path | None = None) -> list[Finding]:
    """Checks a local folder of JanusFlow, Janus or Janus-Pro without reading its weights.

    `vae` is the autoencoder's folder if it is elsewhere. A file that cannot be read is reported as
    a finding and raises nothing.
    """
    folder = Path(folder)
    try:
        flow = "gen_vision_config" not in (content := read_object(folder / "config.json"))
        flow = flow and content.get("model_type") != "janus"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is found below
            processor = (JanusFlowProcessor if flow else JanusProProcessor).from_pretrained(folder)
    except ValueError as error:
        return [finding("files", False, f"The processor cannot be read: {error}.")]
    found = [check(processor) for check in (spaces, first_token, special_tokens, role_words)]
    if not flow:
        inside = _sizes(partial(_janus_config, folder), processor)
        return [*found, *inside, _no_autoencoder(folder)]
    return [
        *found,
        *_sizes(partial(JanusFlowConfig.from_pretrained, folder), processor, folder, vae),
    ]


def spaces(processor: JanusFlowProcessor) -> Finding:
    """Checks that encoding and decoding a text keeps its spaces.

    transformers 5 rebuilds a ByteLevel tokenizer named LlamaTokenizerFast with another
    pre-tokenizer, which drops them; a file saved from it has lost them for good.
    """
    back = processor.decode(processor.ids(WORDS)).strip()
    if kept(back):
        return finding("spaces", True, "The tokenizer keeps spaces.")
    lost = "loses its spaces" if back == WORDS.replace(" ", "") else "does not come back"
    return finding(
        "spaces",
        False,
        f"A text {lost}: {WORDS!r} becomes {back!r}; take tokenizer.json from the published "
        "checkpoint, and never one that transformers 5 saved as LlamaTokenizerFast.",
    )


def first_token(processor: JanusFlowProcessor) -> Finding:
    """Checks that every prompt begins with BOS exactly once, which guidance keeps."""
    bos = processor.tokenizer.bos_token
    wrong = [text for text in (WORDS, bos + WORDS) if _begins(processor, text) != 1]
    told = "every prompt begins with" if not wrong else "a prompt does not begin with"
    return finding("bos", not wrong, f"{told.capitalize()} {bos!r} exactly once.")


def _begins(processor: JanusFlowProcessor, text: str) -> int:
    """Returns the number of BOS tokens of a prompt, or 0 if it starts with another token."""
    ids, bos = processor.ids(text), processor.tokenizer.bos_token_id
    return ids.count(bos) if ids[:1] == [bos] else 0


def special_tokens(processor: JanusFlowProcessor) -> Finding:
    """Checks that the vocabulary holds the tags of processor_config.json as tokens of their own."""
    if not processor.added_tags:
        return finding("special tokens", True, "All special tokens are in the vocabulary.")
    tags = ", ".join(map(repr, processor.added_tags))
    return finding(
        "special tokens",
        False,
        f"The vocabulary lacks {tags}, which processor_config.json names; they were added with "
        "ids that no weights were trained for, so take both files from one checkpoint.",
    )


def role_words(processor: JanusFlowProcessor) -> Finding:
    """Reports how the processor writes the two roles; this is never a fault."""
    return finding("roles", True, f"Roles are written {' and '.join(processor.role_words)}.")


def _janus_config(folder: Path) -> PreTrainedConfig:
    from janusflow.models.janus_pro import convert, tensors

    published = read_config(folder)
    if is_original(published):
        return convert.config(published, tensors.read(folder), image_token=0)
    return own_config(folder)


def _sizes(
    read: Callable[[], PreTrainedConfig],
    processor: JanusFlowProcessor,
    folder: Path | None = None,
    vae: str | Path | None = None,
) -> Iterator[Finding]:
    """Checks that processor, network and, for a JanusFlow, the autoencoder fit together."""
    try:
        config = read()
    except ValueError as error:
        yield finding("config.json", False, f"The configuration cannot be used: {error}.")
        return
    yield _vocabulary(config, processor)
    yield _images(config, processor)
    if folder is not None:
        yield autoencoder(config, folder, vae)


def _vocabulary(config: PreTrainedConfig, processor: JanusFlowProcessor) -> Finding:
    rows = config.get_text_config().vocab_size
    try:
        processor.check_fits(rows)
    except ValueError as error:
        return finding("vocabulary", False, f"The tokens do not fit the network: {error}.")
    return finding("vocabulary", True, f"All tokens lie within the network's {rows:,} rows.")


def _images(config: PreTrainedConfig, processor: JanusFlowProcessor) -> Finding:
    vision = config.vision if isinstance(config, JanusFlowConfig) else config.vision_config
    tokens = getattr(vision, "tokens", None) or vision.num_image_tokens
    made = processor.image_processor.image_size, processor.num_image_tokens
    wanted = vision.image_size, tokens
    if made == wanted:
        said = f"Processor and network take images of {made[0]} pixels and {made[1]} tokens."
        return finding("images", True, said)
    return finding(
        "images",
        False,
        f"The processor makes images of {made[0]} px and {made[1]} tokens, the network takes "
        f"{wanted[0]} px and {wanted[1]} tokens; take both from one checkpoint.",
    )


def autoencoder(config: JanusFlowConfig, folder: Path, vae: str | Path | None = None) -> Finding:
    """Checks that the autoencoder produces latents that fit the network."""
    if vae is None and not (folder / "vae").is_dir():
        told = "The folder holds no autoencoder; name one to make images, such as SDXL's."
        return finding("autoencoder", True, told)
    try:
        found = described_vae(folder, vae).config
    except ValueError as error:
        return finding("autoencoder", False, f"The autoencoder cannot be used: {error}.")
    kind, made = found.get("_class_name", "AutoencoderKL"), found["latent_channels"]
    wanted = config.generation.latent_channels
    if made == wanted:
        return finding(
            "autoencoder", True, f"The {kind} has {made} channels, as the network takes."
        )
    return finding(
        "autoencoder",
        False,
        f"The {kind} makes latents of {made} channels, the network takes {wanted}; it belongs to "
        "another model.",
    )


def _no_autoencoder(folder: Path) -> Finding:
    if (folder / "vae").is_dir():
        told = "vae/ belongs to JanusFlow; this model draws with the VQ model among its weights."
        return finding("autoencoder", False, told)
    return finding("autoencoder", True, "The weights include the VQ model.")
