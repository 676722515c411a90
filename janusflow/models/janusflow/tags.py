"""The special tokens and counts in processor_config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from janusflow.models.janusflow.chat_format import SYSTEM_PROMPT, roles
from janusflow.models.janusflow.tokenizer import PAD
from janusflow.utils.safe_io import check_prompt
from janusflow.utils.text import printable


@dataclass(frozen=True, kw_only=True)
class Tags:
    """The contents of processor_config.json; the defaults are the published class's."""

    image_tag: str = "<image_placeholder>"
    image_start_tag: str = "<begin_of_image>"
    image_end_tag: str = "<end_of_image>"
    image_gen_tag: str = "<｜begin▁of▁generation｜>"
    pad_tag: str = PAD
    num_image_tokens: int = 576  # placeholders of one image
    sft_format: str = "deepseek"
    system_prompt: str = SYSTEM_PROMPT  # before questions; ours to add, "" for none
    add_special_token: bool = False

    def __post_init__(self):
        for name in ("image_tag", "image_start_tag", "image_end_tag", "image_gen_tag", "pad_tag"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 0 < len(value) <= 256:
                shown = printable(repr(getattr(self, name)), 60)
                raise ValueError(f"{name} is {shown}; expected a token's text")
        count = self.num_image_tokens
        if type(count) is not int or not 1 <= count <= 65536:
            raise ValueError(
                f"num_image_tokens is {count!r:.40}; expected a number from 1 to 65536"
            )
        if self.add_special_token:
            raise ValueError(
                "add_special_token is true, which no published checkpoint uses; set it to false"
            )
        roles(self.sft_format)
        if not isinstance(self.system_prompt, str):
            raise ValueError(f"system_prompt is {self.system_prompt!r:.40}; expected a text")
        check_prompt(self.system_prompt, "system_prompt")

    @classmethod
    def from_dict(cls, config: Mapping) -> Tags:
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in config.items() if k in known and v is not None})
