"""Answers and their likelihoods, as evaluation and the adapters of other toolkits need them."""

from collections.abc import Sequence

import torch


def ask(pipe, conversations: Sequence, images=None, **settings) -> list[str]:
    """Answers questions or conversations in one batch, greedily by default.

    `pipe` is of either family; `settings` go to transformers' `generate`. The questions are padded
    on the left and masked, so each answer depends on its own question alone.
    """
    inputs = pipe.processor(list(conversations), images=images).to(pipe.device)
    tokenizer = pipe.processor.tokenizer
    ids = pipe.answer(
        inputs,
        **{
            "do_sample": False,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        | settings,
    )
    return [text.strip() for text in pipe.processor.batch_decode(ids)]


def message(text: str, images: Sequence, marks: Sequence[str] = ()) -> list[dict]:
    """Returns one user message with the images before the text, as published.

    If the text holds as many `marks` as there are images, the images take their places.
    """
    for mark in marks:
        if images and text.count(mark) == len(images):
            texts = text.split(mark)
            break
    else:
        texts = [""] * len(images) + [text]
    parts = []
    for piece, image in zip(texts, [*images, None], strict=True):
        parts += [{"type": "text", "text": piece}] if piece else []
        parts += [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": parts}]


def likelihoods(
    pipe, conversations: Sequence, continuations: Sequence[str]
) -> list[tuple[float, bool]]:
    """Returns per conversation the mean of -ln p over the answer's tokens, and whether each is the
    likeliest.

    See `token_losses`.
    """
    found = token_losses(pipe, conversations, continuations)
    return [(float(losses.mean()), bool(right.all())) for losses, right in found]


def probabilities(pipe, conversations: Sequence, answers: Sequence[str]) -> list[float]:
    """Returns p(answer | conversation), a product over the answer's tokens (see `token_losses`)."""
    found = token_losses(pipe, conversations, answers)
    return [float(torch.exp(-losses.cpu().double().sum())) for losses, _ in found]


@torch.no_grad()
def token_losses(
    pipe, conversations: Sequence, continuations: Sequence[str]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns per conversation -ln p of each token of its answer, and whether it is the likeliest,
    both (n,).

    The answer follows the prompt after one space, as in training; its end token is not counted.
    Raises ValueError if it is empty, or if it changes how the prompt is tokenized.
    """
    processor = pipe.processor
    prompts = [_asked(processor, conversation) for conversation in conversations]
    rows = [f"{prompt} {told.strip()}" for prompt, told in zip(prompts, continuations, strict=True)]
    counts = [_added(processor, *pair) for pair in zip(prompts, rows, strict=True)]
    images = [images_of(conversation) for conversation in conversations]
    inputs = processor(text=rows, images=images).to(pipe.device)
    longest = max(counts)
    logits = pipe.model(**inputs, logits_to_keep=longest + 1).logits[:, :-1].float()
    ids = inputs["input_ids"][:, -longest:]
    losses = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    right = logits.argmax(-1) == ids
    return [(loss[-n:], hit[-n:]) for loss, hit, n in zip(losses, right, counts, strict=True)]


def _asked(processor, conversation: Sequence[dict]) -> str:
    """Returns a conversation's text up to its answer, which a last assistant message begins."""
    begun = conversation[-1]["role"] == "assistant"
    return processor.apply_chat_template(
        conversation, add_generation_prompt=not begun, continue_final_message=begun
    )


def images_of(conversation: Sequence[dict]) -> list:
    """Returns the images in a conversation's messages, in reading order."""
    parts = [part for turn in conversation for part in turn["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]


def _added(processor, prompt: str, row: str) -> int:
    """Returns how many tokens the row has beyond the prompt that it starts with."""
    before, after = processor.ids(prompt), processor.ids(row)
    if not row[len(prompt) :].strip() or after[: len(before)] != before:
        raise ValueError(f"{row[len(prompt) :]!r} adds no token to the prompt; give some text")
    return len(after) - len(before)
