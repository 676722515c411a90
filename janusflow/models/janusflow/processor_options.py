"""The usual keywords of a transformers processor; those without a meaning here are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.limits import whole

GROUPS = ("processor_kwargs", "text_kwargs", "images_kwargs", "common_kwargs")
# what other processors take and this one does anyway, or has nothing to do with
ALWAYS = {
    "add_special_tokens": (True, None),
    "return_attention_mask": (True, None),
    "return_token_type_ids": (False, None),
    "return_mm_token_type_ids": (False, None),
    "return_tensors": ("pt",),
    "videos": (None,),
    "audio": (None,),
    "tools": (None,),
    "documents": (None,),
    "chat_template": (None,),
    "return_assistant_tokens_mask": (False, None),
    "load_audio_from_video": (False, None),
}


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How rows of different lengths become one tensor: padding, truncation and their lengths."""

    padding: bool | str | None = True  # to the longest, "max_length", or False for none
    max_length: int | None = None  # tokens
    truncation: bool | str | None = False  # rows are never cut: longer ones than max_length refused
    padding_side: str | None = None  # "left" for answers, "right" as some trainers want it
    pad_to_multiple_of: int | None = None  # tokens

    @classmethod
    def read(cls, given: Mapping) -> Padding:
        """Reads the settings from keywords, grouped or not.

        Raises TypeError for an unknown keyword and ValueError for one that cannot be honoured.
        """
        flat = {key: value for key, value in given.items() if key not in GROUPS}
        for group in GROUPS:
            flat |= given.get(group) or {}
        refuse_unknown("the processor", flat, [*cls.__dataclass_fields__, *ALWAYS])
        for name in ALWAYS.keys() & flat.keys():
            _always(name, flat[name])
        return cls(**{k: v for k, v in flat.items() if k not in ALWAYS})

    def __post_init__(self):
        if self.padding not in (True, False, None, "longest", "max_length", "do_not_pad"):
            raise ValueError(
                f"padding is {self.padding!r:.40}; expected True, False, 'longest' or 'max_length'"
            )
        for name in ("max_length", "pad_to_multiple_of"):
            whole(getattr(self, name), name, optional=True)
        if self.padding_side not in (None, "left", "right"):
            raise ValueError(f"padding_side is {self.padding_side!r:.40}; expected left or right")
        if self.padding == "max_length" and self.max_length is None:
            raise ValueError("padding is 'max_length' and max_length is not given; give both")

    def length(self, rows: Sequence[Sequence]) -> int:
        """Returns the common length after padding. Raises ValueError for a row too long."""
        sizes = [len(row) for row in rows]
        longest = max(sizes)
        if self.max_length is not None and longest > self.max_length:
            raise ValueError(
                f"a prompt has {longest} tokens and max_length is {self.max_length}; prompts with "
                "images are never cut, so shorten the text or raise max_length"
            )
        if self.padding in (False, None, "do_not_pad"):
            if min(sizes) < longest:
                raise ValueError(
                    f"prompts have {min(sizes)} to {longest} tokens and make no tensor without "
                    "padding; leave padding on"
                )
            return longest
        longest = self.max_length if self.padding == "max_length" else longest
        unit = self.pad_to_multiple_of or 1
        return -(-longest // unit) * unit

    def tensor(self, rows: Sequence[Sequence], fill) -> Tensor:
        """Pads or truncates rows of different lengths to one tensor (B, length)."""
        length, right = self.length(rows), self.padding_side == "right"
        gaps = [[fill] * (length - len(row)) for row in rows]
        whole = [
            [*row, *gap] if right else [*gap, *row] for row, gap in zip(rows, gaps, strict=True)
        ]
        return torch.tensor(whole)


def _always(name: str, value) -> None:
    if not any(value is one or value == one for one in ALWAYS[name]):
        raise ValueError(f"{name} is {value!r:.40}; this processor does only {ALWAYS[name][0]!r}")


def check_decoding(function: str, ids, options: Mapping) -> None:
    """Raises TypeError for an unknown keyword of `decode`, and ValueError for ids that are none."""
    refuse_unknown(function, options, ["skip_special_tokens", "clean_up_tokenization_spaces"])
    try:
        numbers = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.tensor(0.5)
    if numbers.numel() and (numbers.is_floating_point() or numbers.min() < 0 or numbers.ndim > 1):
        raise ValueError(
            f"ids are {ids!r:.60}; expected the token ids of one text, whole numbers from 0 (-100 "
            "stands for no token, leave it out)"
        )
