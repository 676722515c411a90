"""A small tokenizer in the published layout: bytes, merged so that every given word is one token."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE, IMAGE_START, IMAGE_END = "<image_placeholder>", "<image_beg>", "<end_of_image>"
GENERATION = "<｜begin▁of▁generation｜>"
SPECIAL = [PAD, BOS, EOS, IMAGE, IMAGE_START, IMAGE_END, GENERATION]


def build_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Byte-level BPE in which each word, alone or after a space, is one token.

    Whatever else is written still encodes, byte by byte, so that nothing is unknown.
    """
    words = sorted(set(words))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=65_536,
        min_frequency=1,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([form for w in words for form in (w, f" {w}")], trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, image_size: int, image_tokens: int) -> None:
    """Writes the tokenizer's and the processor's files as a published checkpoint has them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    extra = [token for token in SPECIAL if token not in named.values()]
    files = {
        "tokenizer_config.json": {
            **named,
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1024,
            "tokenizer_class": "LlamaTokenizerFast",
        },
        "special_tokens_map.json": {
            **named,
            "additional_special_tokens": [_added(token) for token in extra],
        },
        "processor_config.json": {
            "add_special_token": False,
            "ignore_id": -100,
            "image_end_tag": IMAGE_END,
            "image_gen_tag": GENERATION,
            "image_start_tag": IMAGE_START,
            "image_tag": IMAGE,
            "mask_prompt": True,
            "num_image_tokens": image_tokens,
            "pad_tag": PAD,
            "processor_class": "VLMImageProcessor",
            "sft_format": "deepseek_old",
            "system_prompt": "",
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
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _added(token: str) -> dict:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": token, **flags}
