"""The processor's files in the published layout, parsed strictly and kept unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from janusflow.models.tokenizer_guard import check_probe, check_tokenizer, quietly
from janusflow.utils import atomic_io
from janusflow.utils.safe_io import parse_object, read_object, read_text
from janusflow.utils.text import printable

FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "processor_config.json",
    "preprocessor_config.json",
]


@dataclass(frozen=True)
class ProcessorFiles:
    """The contents of the processor's files; unknown keys are kept and saved again."""

    tokenizer: str  # tokenizer.json, as text
    tokenizer_config: Mapping
    special_tokens_map: Mapping | None
    processor_config: Mapping
    preprocessor_config: Mapping

    @classmethod
    def read(cls, folder: Path) -> ProcessorFiles:
        """Reads the files.

        Raises ValueError naming one that is missing, too large or not a JSON object.

        tokenizer.json and preprocessor_config.json are required; the others have the published
        code's defaults.
        """
        text = read_text(folder / FILES[0], "tokenizer_bytes")
        parse_object(text, folder / FILES[0])
        configs = [read_object(p) if p.exists() else None for p in map(folder.joinpath, FILES[1:])]
        if configs[3] is None:
            raise ValueError(f"{str(folder)!r} lacks {FILES[4]}; take it from the checkpoint")
        return cls(text, configs[0] or {}, configs[1], configs[2] or {}, configs[3])

    def save(self, folder: Path) -> list[Path]:
        atomic_io.make_folder(folder)
        atomic_io.write_text(folder / FILES[0], self.tokenizer)
        written = [folder / FILES[0]]
        for name in FILES[1:]:
            content = getattr(self, name.removesuffix(".json"))
            if content is not None:
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                atomic_io.write_text(folder / name, text)
                written.append(folder / name)
        return written

    def named_token(self, name: str) -> str | None:
        """Returns a token such as `bos_token`, stored as text or as {"content": text}."""
        for source in (self.tokenizer_config, self.special_tokens_map or {}):
            token = token_text(source.get(name))
            if isinstance(token, str) and token:
                return token
        return None


def token_text(token: Any) -> Any:
    """Returns the text of a token that a file holds as text or as {"content": text}."""
    return token.get("content") if isinstance(token, Mapping) else token


def parse_tokenizer(text: str) -> Tokenizer:
    """Returns the tokenizer of tokenizer.json without its saved truncation and padding."""
    check_tokenizer(parse_object(text, Path(FILES[0])))
    try:
        with quietly():
            tokenizer = Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # nothing narrower, and panics of Rust
        reason = printable(error, 160)
        raise ValueError(
            f"tokenizer.json describes no tokenizer ({reason}); take it from the published "
            "checkpoint"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    check_probe(tokenizer)
    return tokenizer


def tokenizer_in(folder: Path) -> Tokenizer:
    """Returns the tokenizer in a model's folder. Raises ValueError if it is missing or damaged."""
    return parse_tokenizer(read_text(folder / "tokenizer.json", "tokenizer_bytes"))


def unpadded(tokenizer: Tokenizer) -> str:
    """Returns a tokenizer's tokenizer.json without truncation and padding."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain.to_str(pretty=True)


def add_tags(text: str, tags: list[str]) -> tuple[str, tuple[str, ...]]:
    """Returns tokenizer.json with every tag as a special token, and the tags that it lacked."""
    tokenizer = parse_tokenizer(text)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    new = tuple(tag for tag in dict.fromkeys(tags) if tokenizer.token_to_id(tag) is None)
    missing = [tag for tag in dict.fromkeys(tags) if tag not in special]
    if not missing:
        return text, new
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in missing])
    return tokenizer.to_str(pretty=True), new
