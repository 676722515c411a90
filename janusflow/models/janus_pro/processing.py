"""Prepares texts and images for Janus, from the files of either layout.

The ids of the image tags differ between the published folder and transformers' conversion of the
same model, so they are always read from the tokenizer beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transformers import BatchFeature, PreTrainedTokenizerFast

from janusflow.models.janusflow.chat_format import SYSTEM_PROMPT, Turn, roles
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.processor_files import ProcessorFiles, token_text
from janusflow.utils.hub import locate
from janusflow.utils.safe_io import read_object, read_optional, read_text


class JanusProProcessor(JanusFlowProcessor):
    """The counterpart of `JanusFlowProcessor` for Janus and Janus-Pro.

    A prompt keeps its last token, the tag that starts an image. Questions are returned as
    `input_ids`, `attention_mask` and `pixel_values`, as transformers' model takes them.
    """

    needed_tags = ("image_tag", "image_start_tag", "image_end_tag")

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, sft_format: str | None = None, **hub
    ) -> JanusProProcessor:
        """Loads a folder or hub id in either layout.

        Raises ValueError for missing or malformed files.

        `sft_format` replaces the files': "deepseek_old" writes `User` and `Assistant`, as in the
        examples of Janus-1.3B, "deepseek" `<|User|>` and `<|Assistant|>`.
        """
        files = _files(locate(name, files=["*.json", "*.jinja"], **hub))
        if sft_format is not None:
            told = {**files.processor_config, "sft_format": sft_format}
            files = replace(files, processor_config=told)
        return cls(files)

    def __call__(self, *args, **kwargs) -> BatchFeature:
        data = super().__call__(*args, **kwargs)
        data.pop("image_token_mask", None)  # the model finds the placeholders by their id
        return data

    @property
    def role_words(self) -> tuple[str, str]:
        """The words that begin the user's and the assistant's messages, by `sft_format`."""
        return roles(self.sft_format)

    def prompt(self, texts: str | Sequence[str]) -> BatchFeature:
        r"""Tokenizes prompts of images, padded on the left, with the tag that starts an image.

        The format is `<|User|>: {text}\n\n<|Assistant|>:`. Raises ValueError for an empty text.
        """
        return BatchFeature(self._pad([list(row) for row in self.prompt_ids(texts)]))

    def prompt_ids(self, texts: str | Sequence[str]) -> list[tuple[int, ...]]:
        """Returns the token ids of each prompt, without padding."""
        turns = [[Turn("user", text)] for text in self._texts(texts)]
        rows = [self._render(one, system="") for one in turns]
        return [tuple(self.ids(row + self.tags.image_start_tag)) for row in rows]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes transformers' layout for its `JanusProcessor`, with the chat format."""
        from transformers import JanusProcessor
        from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

        pixels = self.image_processor
        image_processor = JanusImageProcessorPil(
            size={"height": pixels.image_size, "width": pixels.image_size},
            min_size=pixels.min_size,
            do_rescale=pixels.do_rescale,
            rescale_factor=pixels.rescale_factor,
            do_normalize=pixels.do_normalize,
            image_mean=pixels.image_mean,
            image_std=pixels.image_std,
        )
        JanusProcessor(
            image_processor,
            self._own_tokenizer(),
            chat_template=template(self.sft_format, self.tokenizer.eos_token),
            use_default_system_prompt=self.tags.system_prompt == SYSTEM_PROMPT,
            num_image_tokens=self.num_image_tokens,
        ).save_pretrained(folder)
        _note(Path(folder), self)

    def _own_tokenizer(self) -> PreTrainedTokenizerFast:
        """Returns transformers' wrapper with the tag names that its JanusProcessor looks for."""
        special = {
            "image_token": self.tags.image_tag,
            "boi_token": self.tags.image_start_tag,
            "eoi_token": self.tags.image_end_tag,
        }
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer.backend_tokenizer,
            bos_token=self.tokenizer.bos_token,
            eos_token=self.tokenizer.eos_token,
            pad_token=self.tokenizer.pad_token,
            add_bos_token=True,
            add_eos_token=False,
            clean_up_tokenization_spaces=False,
            padding_side="left",
            extra_special_tokens=special,
        )


def template(sft_format: str, eos: str) -> str:
    """Returns the chat format for transformers' `apply_chat_template`, with texts and images.

    Images that follow all of a message's text are put before it, as by `images_first`.
    """
    user, assistant = roles(sft_format)
    return (
        "{%- for message in messages -%}"
        f"{{{{ '{user}: ' if message['role'] == 'user' else '{assistant}: ' }}}}"
        "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
        "{%- set parts = message['content'] -%}"
        "{%- set kinds = parts | map(attribute='type') | list -%}"
        "{%- if kinds == kinds | sort(reverse=true) -%}"
        "{%- set parts = parts | sort(attribute='type') -%}{%- endif -%}"
        "{%- set text -%}{%- for part in parts -%}"
        "{%- if part['type'] == 'image' -%}{{ '<image_placeholder>\n' }}"
        "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
        "{%- endfor -%}{%- endset -%}{{ text | trim }}{%- endif -%}"
        f"{{{{ '{eos}' if message['role'] == 'assistant' else '\n\n' }}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{assistant}:{{%- endif -%}}"
    )


def _note(folder: Path, processor: JanusProProcessor) -> None:
    """Adds to processor_config.json what transformers' processor has no place for."""
    path = folder / "processor_config.json"
    content = read_object(path)
    tags = processor.tags
    content |= {name: getattr(tags, name) for name in ("sft_format", "system_prompt")}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _files(folder: Path) -> ProcessorFiles:
    """Returns the published files, and transformers' converted to their form."""
    path = folder / "config.json"
    if read_object(path).get("model_type") != "janus":
        return ProcessorFiles.read(folder)
    names = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
    tokenizer, processor, pixels = (read_optional(folder / name) for name in names)
    pixels = processor.pop("image_processor", None) or pixels
    return ProcessorFiles(
        tokenizer=read_text(folder / "tokenizer.json", "tokenizer_bytes"),
        tokenizer_config=tokenizer,
        special_tokens_map=read_optional(folder / "special_tokens_map.json") or None,
        processor_config=_tags(folder, tokenizer) | _said(processor) | processor,
        preprocessor_config=pixels,
    )


def _tags(folder: Path, tokenizer: dict) -> dict:
    """Returns tags and chat format, from transformers' tokenizer file and template."""
    known = {
        "image_token": "image_tag",
        "boi_token": "image_start_tag",
        "eoi_token": "image_end_tag",
    }
    inside = tokenizer.get("extra_special_tokens") or tokenizer.get("model_specific_special_tokens")
    given = {**tokenizer, **(inside if isinstance(inside, dict) else {})}
    tags = {known[name]: token_text(token) for name, token in given.items() if name in known}
    path = folder / "chat_template.jinja"
    text = (
        read_text(path, "config_bytes")
        if path.exists()
        else str(tokenizer.get("chat_template", ""))
    )
    old = text and "<|User|>" not in text
    return tags | {"sft_format": "deepseek_old" if old else "deepseek"}


def _said(processor: dict) -> dict:
    default = processor.get("use_default_system_prompt", True)
    return {"system_prompt": SYSTEM_PROMPT if default else ""}
