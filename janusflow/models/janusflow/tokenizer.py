"""Trains a small tokenizer in the published layout, for models with a small vocabulary."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
IMAGE = "<image_placeholder>"
IMAGE_START = "<image_beg>"
IMAGE_END = "<end_of_image>"
IMAGE_GEN = "<｜begin▁of▁generation｜>"
SPECIAL_TOKENS = (BOS, EOS, PAD, IMAGE, IMAGE_START, "<begin_of_image>", IMAGE_END, IMAGE_GEN)


def train_bpe(words: Iterable[str], texts: Iterable[str] = ()) -> Tokenizer:
    """Trains byte-level BPE in which every word, with and without a leading space, is one token.

    Merging continues until no pair is left, so the pieces of `texts` become single tokens as well.
    Any other text falls back to smaller pieces and bytes; nothing is unknown, and decoding returns
    the exact text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_000_000,  # never reached: the pairs run out first
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = sorted(set(words))
    tokenizer.train_from_iterator([*words, *(f" {word}" for word in words), *texts], trainer)
    return tokenizer


def build_tokenizer(
    folder: str | Path,
    words: Iterable[str],
    texts: Iterable[str] = (),
    *,
    image_size: int = 96,
    num_image_tokens: int = 36,
    sft_format: str = "deepseek_old",
    system_prompt: str | None = None,
    spellings: Mapping[str, str] | None = None,
) -> Path:
    """Writes the files that JanusFlowProcessor reads, in the published layout, and returns the
    folder.

    The files are tokenizer.json (`train_bpe`), tokenizer_config.json, special_tokens_map.json,
    processor_config.json and preprocessor_config.json. `tokenizer_class` is the published one, so
    small models run the same code as large ones. `system_prompt` replaces the published system
    prompt; "" omits it. `spellings` maps words to the word they are read as, such as "colour" to
    "color".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe(words, texts)
    if spellings:
        rules = [normalizers.Replace(*pair) for pair in spellings.items()]
        tokenizer.normalizer = normalizers.Sequence(rules)
    tokenizer.save(str(folder / "tokenizer.json"))
    configs = _configs(image_size, num_image_tokens, sft_format)
    if system_prompt is not None:
        configs["processor_config.json"]["system_prompt"] = system_prompt
    for name, content in configs.items():
        (folder / name).write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8"
        )
    return folder


def _configs(image_size: int, num_image_tokens: int, sft_format: str) -> dict[str, dict]:
    named = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    return {
        "tokenizer_config.json": {
            **named,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 16384,
            "tokenizer_class": "LlamaTokenizerFast",
        },
        "special_tokens_map.json": {
            **named,
            "additional_special_tokens": [
                {"content": token, "lstrip": False, "normalized": False, "rstrip": False}
                for token in SPECIAL_TOKENS[3:]
            ],
        },
        "processor_config.json": {
            "add_special_token": False,
            "ignore_id": -100,
            "image_end_tag": IMAGE_END,
            "image_gen_tag": IMAGE_GEN,
            "image_start_tag": IMAGE_START,
            "image_tag": IMAGE,
            "mask_prompt": True,
            "num_image_tokens": num_image_tokens,
            "pad_tag": PAD,
            "processor_class": "VLChatProcessor",
            "sft_format": sft_format,
        },
        "preprocessor_config.json": {
            "background_color": [127, 127, 127],
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "VLMImageProcessor",
            "image_size": image_size,
            "image_std": [0.5, 0.5, 0.5],
            "min_size": 14,
            "processor_class": "VLChatProcessor",
            "rescale_factor": 1 / 255,
        },
    }
