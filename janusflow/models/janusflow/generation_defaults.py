"""Default generation settings: generation_config.json, and the token ids of the tokenizer.

The published folder has no generation_config.json, and its config.json has no ids, because they
belong to the tokenizer. They are read from there, so that `model.generate(**inputs)` stops at the
end of the answer.
"""

from functools import lru_cache
from pathlib import Path

from transformers import GenerationConfig
from transformers.utils import cached_file

from janusflow.models.janusflow.tags import Tags
from janusflow.models.processor_files import token_text
from janusflow.utils.hub import KEYWORDS
from janusflow.utils.safe_io import parse_object, read_object, read_text
from janusflow.utils.text import explained

FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read(name: str | Path, **hub) -> GenerationConfig:
    """Returns the folder's generation_config.json, with missing ids filled in from the tokenizer.

    Raises ValueError for a file that is not a valid generation configuration.
    """
    hub = {key: value for key, value in hub.items() if key in KEYWORDS}
    path = _file(name, FILE, hub)
    content = {} if path is None else read_object(path)
    for key, kind in KINDS.items():
        _check(content.get(key), kind, f"{FILE} in {str(name)!r} holds {key}")
    for key in IDS:
        _check_id(content.get(key), f"{FILE} in {str(name)!r} holds {key}")
    for key in ("num_beams", "num_return_sequences"):
        check_beams(content.get(key) or 1, f"{FILE} in {str(name)!r} holds {key}")
    with explained(
        f"{FILE} in {str(name)!r} is not a valid generation configuration",
        "correct or delete the file",
    ):
        config = GenerationConfig(**{k: v for k, v in content.items() if k not in UNSAID})
    ids = _ids(name, hub) if any(content.get(key) is None for key in IDS) else {}
    for key, value in ids.items():
        if content.get(key) is None:
            setattr(config, key, value)
    return config


IDLE = ("use_cache", "output_attentions", "output_hidden_states")  # of every new model
KINDS = dict(  # which transformers takes as they come, and stumbles over later
    do_sample=bool,
    max_new_tokens=int,
    max_length=int,
    num_beams=int,
    num_return_sequences=int,
    top_k=int,
    top_p=float,
    temperature=float,
    guidance_scale=float,
    repetition_penalty=float,
)
BEAMS = 256  # at most, of a question: each keeps keys and values of its own
UNSAID = ("transformers_version", "_from_model_config", "_commit_hash")


def _check(value, kind: type, what: str) -> None:
    right = value is None or isinstance(value, kind) or (kind is float and type(value) is int)
    if not right or (kind is not bool and (isinstance(value, bool) or (value or 0) < 0)):
        names = {bool: "true or false", int: "a whole number from 0", float: "a number from 0"}
        raise ValueError(f"{what} {value!r:.40}; expected {names[kind]}")


def _check_id(value, what: str) -> None:
    ids = value if isinstance(value, list) else [value]
    if value is not None and not all(type(one) is int and one >= 0 for one in ids):
        raise ValueError(f"{what} {value!r:.40}; expected a token's id, or a list of ids")


def check_rows(config: GenerationConfig, rows: int, name: str | Path) -> None:
    """Raises ValueError for a token beyond the vocabulary, because no answer would end at it."""
    for key in IDS:
        value = getattr(config, key)
        if any(one >= rows for one in (value if isinstance(value, list) else [value or 0])):
            raise ValueError(
                f"{key} of {str(name)!r} is {value!r:.40}, beyond the vocabulary of {rows:,} "
                f"tokens; correct {FILE}, or take the tokenizer and the weights from one checkpoint"
            )


def check_beams(value: int, what: str) -> None:
    """Raises ValueError for more beams or sequences than a question may have."""
    if value > BEAMS:
        raise ValueError(f"{what} {value}; at most {BEAMS} are taken")


def said(config: GenerationConfig | None) -> set[str]:
    """Returns the settings of a configuration besides token ids, which the tokenizer has too."""
    return set() if config is None else config.to_diff_dict().keys() - {*IDS, *UNSAID, *IDLE}


def _ids(name: str | Path, hub: dict) -> dict[str, int]:
    """Returns the ids of the tokens that tokenizer_config.json or special_tokens_map.json name."""
    whole = _file(name, "tokenizer.json", hub)
    if whole is None:
        return {}
    known = _added_tokens(whole, whole.stat().st_mtime_ns)
    named: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = _file(name, file, hub)
        named |= _named(read_object(path)) if path is not None else {}
    found = {f"{kind}_token_id": known.get(token) for kind, token in named.items()}
    found.setdefault("pad_token_id", found.get("eos_token_id"))
    return {key: value for key, value in found.items() if isinstance(value, int)}


def image_id(name: str | Path, **hub) -> int | None:
    """Returns the id that stands for an image in prompts, None without a tokenizer."""
    hub = {key: value for key, value in hub.items() if key in KEYWORDS}
    whole, own = (_file(name, file, hub) for file in ("tokenizer.json", "processor_config.json"))
    if whole is None:
        return None
    tag = None if own is None else read_object(own).get("image_tag")
    tag = tag if isinstance(tag, str) and tag else Tags.image_tag
    found = _added_tokens(whole, whole.stat().st_mtime_ns).get(tag)
    return found if isinstance(found, int) else None


@lru_cache(maxsize=1)
def _added_tokens(path: Path, _changed: int) -> dict[str, int]:
    """Returns the ids of the tokens that a tokenizer's file adds to its vocabulary."""
    added = parse_object(read_text(path, "tokenizer_bytes"), path).get("added_tokens")
    tokens = [one for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    return {one["content"]: one.get("id") for one in tokens if isinstance(one.get("content"), str)}


def _named(content: dict) -> dict[str, str]:
    """Returns the tokens that a file names, as text or as {"content": text}."""
    texts = {kind: token_text(content.get(f"{kind}_token")) for kind in ("bos", "eos", "pad")}
    return {kind: text for kind, text in texts.items() if isinstance(text, str)}


def _file(name: str | Path, file: str, hub: dict) -> Path | None:
    """Returns a file of a folder or hub id, or None."""
    quiet = {
        f"_raise_exceptions_for_{why}": False for why in ("missing_entries", "connection_errors")
    }
    found = cached_file(str(name), file, **hub, **quiet)
    return None if found is None else Path(found)
