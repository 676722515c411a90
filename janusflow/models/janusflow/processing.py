"""Prepares texts and images for the model, from the files of the published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

from janusflow.models.janusflow.chat_format import (
    Turn,
    is_one,
    listed,
    opened,
    read_turns,
    render,
    roles,
)
from janusflow.models.janusflow.image_places import inline, mismatch, nested, placed
from janusflow.models.janusflow.image_processing import JanusFlowImageProcessor
from janusflow.models.janusflow.processor_options import Padding, check_decoding
from janusflow.models.janusflow.tags import Tags as Tags
from janusflow.models.janusflow.tokenizer import BOS, EOS
from janusflow.models.processor_files import (
    FILES,
    ProcessorFiles,
    add_tags,
    parse_tokenizer,
    unpadded,
)
from janusflow.models.special_tokens import check_written, special_tokens
from janusflow.models.tokenizer_guard import is_usual, tokenizing
from janusflow.utils import limits
from janusflow.utils.hub import locate, unlist
from janusflow.utils.safe_io import check_prompt
from janusflow.utils.text import printable


class JanusFlowProcessor(ProcessorMixin):
    """The tokenizer, chat format and image processor of a JanusFlow checkpoint.
    `processor(conversation, images)` prepares questions, `processor.prompt(texts)` prompts of
    images, and `processor.decode(ids)` reads answers. The tokenizer is tokenizer.json itself,
    whatever class tokenizer_config.json names (transformers 5 would rebuild it and lose every
    space), with BOS first exactly once. `added_tags` are the tags that the vocabulary lacked.
    """

    needed_tags = ("image_tag", "image_gen_tag", "image_start_tag", "image_end_tag")

    def __init__(self, files: ProcessorFiles):
        self.tags = Tags.from_dict(files.processor_config)
        tags = [getattr(self.tags, name) for name in self.needed_tags]
        text, self.added_tags = add_tags(files.tokenizer, tags)
        self.files = replace(files, tokenizer=text)
        self.tokenizer = _tokenizer(self.files, self.tags.pad_tag)
        self._quiet = not is_usual(self.tokenizer.backend_tokenizer)
        self._known = len(self.tokenizer)
        self._special_of: tuple[int, frozenset[str]] = (-1, frozenset())
        self.image_processor = JanusFlowImageProcessor.from_dict(files.preprocessor_config)
        # janusflow.models.janusflow.chat_format renders; no template is executed
        self.chat_template = None

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub) -> JanusFlowProcessor:
        """Loads a folder or hub id in the published layout; `hub` holds keywords of
        `snapshot_download`.

        Raises ValueError for files that are missing, malformed or lack the special tokens.
        """
        return cls(ProcessorFiles.read(locate(name, files=FILES, **hub)))

    def save_pretrained(self, folder: str | Path) -> list[Path]:
        """Writes the files as they were read, plus tags and tokens added since."""
        files = self.files
        if len(self.tokenizer) != self._known:
            files = replace(files, tokenizer=unpadded(self.tokenizer.backend_tokenizer))
        unlist(Path(folder))
        return files.save(Path(folder))

    # Understanding

    def __call__(
        self,
        conversation: str | Sequence | None = None,
        images=None,
        *,
        text: str | Sequence[str] | None = None,
        **options,
    ) -> BatchFeature:
        """Prepares questions or conversations for the model; with `text`, prompts that are already
        in the chat format.

        A question is a string; a conversation is a list of messages in the published or
        transformers' format; a list of either is a batch. `images` are the images in reading order,
        as a flat list or one list per conversation, unless the messages contain them. If no message
        has a placeholder, the first question gets one for each image, before its text.

        Returns input_ids and attention_mask (B, L), padded on the left; with images also
        pixel_values (images, 3, S, S) in reading order and image_token_mask (B, L), true at every
        start tag and placeholder. `options` are transformers' `padding`, `max_length`,
        `padding_side` and so on. Raises ValueError if the numbers of images and placeholders
        differ, and TypeError for an unknown option.
        """
        padding = Padding.read(options)
        if (conversation is None) == (text is None):
            came = "neither" if text is None else "both"
            raise ValueError(
                f"{came} of a question and `text` came; give a question or conversation, or as "
                "`text` a formatted prompt"
            )
        if text is not None:
            rows = [text] if isinstance(text, str) else list(text)
            if wrong := [row for row in rows if not isinstance(row, str)]:
                raise ValueError(f"text holds {wrong[0]!r:.60}; expected one text or a list")
            samples = self._pair([(row, ()) for row in rows], nested(images, len(rows)))
        else:
            samples = self._read(conversation, images)
        expanded = [self._expand(text, len(shown)) for text, shown in samples]
        data = self._pad([ids for ids, _ in expanded], padding)
        shown = [image for _, own in samples for image in own]
        if shown:
            data["pixel_values"] = self.image_processor(shown)
            data["image_token_mask"] = padding.tensor([mask for _, mask in expanded], False)
        return BatchFeature(data)

    understand = __call__

    def apply_chat_template(
        self,
        conversation: Sequence,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool | None = False,
        continue_final_message: bool | None = False,
        images=None,
        return_dict: bool = True,
        **options,
    ) -> str | list[str] | BatchFeature | Tensor:
        """Returns the prompt's text, a list of texts for a batch, or with `tokenize` the model's
        input.

        As in transformers, the text asks for nothing by default: every message is closed, as in a
        text to learn from. `add_generation_prompt=True` opens the assistant's message that is to be
        generated, and `continue_final_message=True` leaves the last message open, which must be the
        assistant's. The processor itself, called with messages, does the one or the other.
        """
        batch = [conversation] if is_one(conversation) else listed(conversation)
        turns = [self._turns(one, 0, shown=True) for one in batch]
        ending = _ending(turns, add_generation_prompt, continue_final_message)
        texts = [self._render(one, ending=ending) for one in turns]
        if not tokenize:
            if Padding.read(options) != Padding():
                raise ValueError("padding and max_length count tokens; set tokenize=True with them")
            return texts[0] if is_one(conversation) else texts
        told = [(text, inline(one)) for text, one in zip(texts, turns, strict=True)]
        samples = self._pair(told, nested(images, len(batch)))
        data = self(text=texts, images=[own for _, own in samples], **options)
        return data if return_dict else data["input_ids"]

    def _read(self, conversation, images) -> list[tuple[str, list]]:
        batch = [conversation] if is_one(conversation) else listed(conversation)
        given = nested(images, len(batch))
        own = given if given and isinstance(given[0], list) else [[]] * len(batch)
        turns = [self._turns(c, len(i), bool(given)) for c, i in zip(batch, own, strict=True)]
        return self._pair([(self._render(one), inline(one)) for one in turns], given)

    def _turns(self, conversation, count: int, shown: bool = False) -> list[Turn]:
        """Returns messages as turns; without placeholders the first question gets all images."""
        if isinstance(conversation, str):
            if not conversation.strip():
                raise ValueError("the question is empty; give some text")
            turns = [Turn("user", conversation)]
        else:
            turns = read_turns(listed(conversation), self.image_tag)
        count = count or len(inline(turns))
        turns = placed(turns, self.image_tag, bool(count or shown))
        if any(self.image_tag in turn.text for turn in turns):
            return turns
        first = next((i for i, turn in enumerate(turns) if turn.kind == "user"), 0)
        text = f"{self.image_tag}\n" * count + turns[first].text
        return [*turns[:first], replace(turns[first], text=text), *turns[first + 1 :]]

    def _render(self, turns: list[Turn], **options) -> str:
        for turn in turns:
            if turn.kind != "assistant":
                check_prompt(turn.text, "a question or prompt")
                check_written(turn.text, self._special - {self.image_tag}, ())
        eos = self.tokenizer.eos_token
        return render(
            turns, self.role_words, **{"system": self.tags.system_prompt, "eos": eos, **options}
        )

    def _pair(self, rows: list[tuple[str, tuple]], images) -> list[tuple[str, list]]:
        """Returns each text with its images: its own, or those of a flat list."""
        if images is None:
            return [(text, [opened(image) for image in own]) for text, own in rows]
        if any(not isinstance(image, str | Path) for _, own in rows for image in own):
            raise ValueError("images came both in the messages and as `images`; give one of them")
        if not images or isinstance(images[0], list):
            return [(text, own) for (text, _), own in zip(rows, images, strict=True)]
        counts = [text.count(self.image_tag) for text, _ in rows]
        if len(rows) > 1 and not any(counts):
            raise ValueError(
                f"{len(images)} images came for {len(rows)} conversations without "
                f"{self.image_tag!r}; give a list of images for each, as [[first], [second]]"
            )
        if sum(counts) != len(images):
            raise ValueError(mismatch(len(images), sum(counts), self.image_tag))
        deal = iter(images)
        return [
            (text, [next(deal) for _ in range(n)])
            for (text, _), n in zip(rows, counts, strict=True)
        ]

    def _expand(self, text: str, count: int) -> tuple[list[int], list[bool]]:
        """Returns ids with images' tags and placeholders, and the mask of images' places."""
        plain, image = self.ids(text), self.image_id
        if plain.count(image) != count:
            raise ValueError(mismatch(count, plain.count(image), self.image_tag))
        filled = [self.image_start_id] + [image] * self.num_image_tokens
        block = [*filled, self.image_end_id]
        ids, mask = [], []
        for token in plain:
            ids += block if token == image else [token]
            mask += [True] * len(filled) + [False] if token == image else [False]
        return ids, mask

    # Generation

    def prompt(
        self, texts: str | Sequence[str], images: Sequence[Sequence] | None = None
    ) -> BatchFeature:
        r"""Tokenizes prompts of images: input_ids and attention_mask (B, L), padded on the left.
        `User: {text}\n\nAssistant:` and the generation tag are tokenized together and the last id
        is dropped, as published. Negative prompts are prepared the same way. `images` holds for
        each text the images it shows, such as the one to edit; they come after the text, so that an
        image token and the generated token at the same place are always equally far apart, and are
        returned as pixel_values and image_token_mask. Raises ValueError for an empty text.
        """
        texts = self._texts(texts)
        shown = [()] * len(texts) if images is None else list(images)
        if len(shown) != len(texts):
            raise ValueError(
                f"{len(shown)} lists of images came for {len(texts)} texts; give one list for each "
                "text"
            )
        rows = [
            self._render([Turn("user", text + f"\n{self.image_tag}" * len(own))], system="")
            + self.tags.image_gen_tag
            for text, own in zip(texts, shown, strict=True)
        ]
        if not any(shown):
            return BatchFeature(self._pad([self.ids(row)[:-1] for row in rows]))
        expanded = [self._expand(row, len(own)) for row, own in zip(rows, shown, strict=True)]
        data = self._pad([ids[:-1] for ids, _ in expanded])
        data["pixel_values"] = self.image_processor([one for own in shown for one in own])
        data["image_token_mask"] = Padding().tensor([mask[:-1] for _, mask in expanded], False)
        return BatchFeature(data)

    def _texts(self, texts: str | Sequence[str]) -> list[str]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"prompts are {texts!r:.80}; expected one text or several, none empty")
        for text in texts:
            check_written(text, self._image_tags, self._image_tags)
        return texts

    # Tokens

    def ids(self, text: str) -> list[int]:
        """Returns a text's ids with BOS first, exactly once even if the text begins with it."""
        limits.hold("text", len(text), f"a text has {len(text)} characters")
        with tokenizing(self._quiet):
            ids = self.tokenizer(text).input_ids
        limits.hold("tokens", len(ids), f"a text has {len(ids)} tokens")
        return ids[1:] if ids[1:2] == [self.tokenizer.bos_token_id] else ids

    def decode(self, ids, skip_special_tokens: bool = True, **options) -> str:
        check_decoding(f"{type(self).__name__}.decode", ids, options)
        with tokenizing(self._quiet):
            return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, **options)

    def batch_decode(self, ids, skip_special_tokens: bool = True, **options) -> list[str]:
        return [self.decode(row, skip_special_tokens, **options) for row in ids]

    def check_fits(self, vocab_size: int) -> None:
        """Raises ValueError if a tag's id is not below `vocab_size`, the rows of the embedding."""
        ids = [self._id(getattr(self.tags, name)) for name in self.needed_tags]
        ids = (*ids, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.pad_id)
        if max(ids) >= vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ValueError(
                f"token {token!r} has id {max(ids)}, the model's vocabulary {vocab_size}; "
                "resize the embeddings or use the checkpoint's own tokenizer"
            )

    def check_images(self, side: int, tokens: int) -> None:
        """Raises ValueError unless image size and placeholder count match the vision tower's."""
        made = (self.image_processor.image_size, self.tags.num_image_tokens)
        if made != (side, tokens):
            raise ValueError(
                f"the processor makes images of side {made[0]} and {made[1]} placeholders, the "
                f"network takes {side} and {tokens}; take config.json, "
                "preprocessor_config.json and processor_config.json from one folder"
            )

    def _pad(self, rows: list[list[int]], padding: Padding | None = None) -> dict[str, Tensor]:
        padding, ones = padding or Padding(), [[1] * len(row) for row in rows]
        return {
            "input_ids": padding.tensor(rows, self.pad_id),
            "attention_mask": padding.tensor(ones, 0),
        }

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    @property
    def role_words(self) -> tuple[str, str]:
        """The words that begin the user's and the assistant's messages, whatever `sft_format` says,
        as in the published examples.
        """
        return roles("deepseek_old")

    @property
    def _special(self) -> frozenset[str]:
        """The special tokens, found anew when the tokenizer got others."""
        count = len(self.tokenizer)
        if self._special_of[0] != count:
            self._special_of = (count, special_tokens(self.tokenizer))
        return self._special_of[1]

    @property
    def _image_tags(self) -> frozenset[str]:
        return frozenset(getattr(self.tags, name) for name in self.needed_tags)

    image_tag = property(lambda self: self.tags.image_tag)
    sft_format = property(lambda self: self.tags.sft_format)
    num_image_tokens = property(lambda self: self.tags.num_image_tokens)
    image_id = property(lambda self: self._id(self.tags.image_tag))
    image_start_id = property(lambda self: self._id(self.tags.image_start_tag))
    image_end_id = property(lambda self: self._id(self.tags.image_end_tag))
    image_gen_id = property(lambda self: self._id(self.tags.image_gen_tag))
    pad_id = property(lambda self: self.tokenizer.pad_token_id)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "image_token_mask"]

    def to_dict(self) -> dict:
        return dict(self.files.processor_config)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.tokenizer)} tokens, "
            f"{self.image_processor.image_size} px, roles {' and '.join(self.role_words)})"
        )


def _tokenizer(files: ProcessorFiles, pad: str) -> PreTrainedTokenizerFast:
    """Returns transformers' wrapper of tokenizer.json, with BOS and nothing else added."""
    backend = parse_tokenizer(files.tokenizer)
    bos = files.named_token("bos_token") or BOS
    eos = files.named_token("eos_token") or EOS
    for name, token in (("bos_token", bos), ("eos_token", eos)):
        if backend.token_to_id(token) is None:
            raise ValueError(
                f"tokenizer.json has no {printable(token, 60)!r}, which is the {name}; "
                "take tokenizer.json and tokenizer_config.json from one checkpoint"
            )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad if backend.token_to_id(pad) is not None else eos,
        add_bos_token=True,  # replaces the file's own post-processor
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _ending(turns: list[list[Turn]], adds: bool | None, continues: bool | None) -> str:
    """Returns how the text ends, in `render`'s terms, from transformers' two switches."""
    for name, value in (("add_generation_prompt", adds), ("continue_final_message", continues)):
        if value not in (True, False, None):
            raise ValueError(f"{name} is {value!r:.40}; expected True or False")
    if adds and continues:
        raise ValueError(
            "add_generation_prompt and continue_final_message are both true; an answer is either "
            "new or continued, so give one of them"
        )
    if continues and any(one[-1].kind != "assistant" for one in turns):
        raise ValueError(
            "continue_final_message is true and the last message is not the assistant's; let the "
            "conversation end with what the answer begins with"
        )
    return "answer" if continues else "new" if adds else "closed"
