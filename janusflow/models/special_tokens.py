"""Special tokens in texts that users write: a tokenizer reads them as such, as in transformers."""

import warnings
from collections.abc import Collection

from transformers import PreTrainedTokenizerBase

from janusflow.utils.text import printable


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Returns the texts that the tokenizer reads as one special token each."""
    added = tokenizer.added_tokens_decoder.values()
    return frozenset(str(token) for token in added if token.special and str(token))


def check_written(text: str, special: Collection[str], tags: Collection[str]) -> None:
    """Checks a text that a user wrote.

    Raises ValueError for one of the `tags`, which stand for images, and warns about another special
    token.
    """
    found = [token for token in special if token in text]
    if not found:
        return
    if images := sorted(set(found) & set(tags)):
        raise ValueError(
            f"a prompt holds {printable(repr(images[0]), 60)}, which stands for an image; leave it "
            "out, and give the image itself where one is taken"
        )
    warnings.warn(
        f"a text holds {printable(repr(max(found, key=len)), 60)}, which the model reads as a "
        "special token and not as text; leave it out if it is not meant",
        stacklevel=2,
    )
