"""What batch sources that make their samples share: equal parts, changing seeds, and texts."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from janusflow.models.janusflow.tokenizer import BOS, EOS, IMAGE, IMAGE_END, IMAGE_START


def share(count: int, part: int, parts: int) -> range:
    """Returns the numbers that belong to one of several parts of nearly equal size."""
    return range(part * count // parts, (part + 1) * count // parts)


class Scheduled:
    """A batch source with a `seed`, which may change during the run that it follows."""

    schedule = None

    def follow(self, schedule, steps: int) -> None:  # noqa: ARG002
        """Takes the seed of each step from `schedule.stage(step)`."""
        self.schedule = schedule

    def seed_at(self, step: int) -> int:
        return self.seed if self.schedule is None else self.schedule.stage(step).seed


def turn(text: str) -> str:
    """Returns a user message and the start of the answer, in the chat format `deepseek_old`."""
    return f"User: {text}\n\nAssistant:"


class Texts:
    """Token ids of prompts and conversations, by the `tokenizer` of a subclass."""

    tokenizer: Tokenizer

    def prompt_ids(self, caption: str) -> Tensor:
        """Returns the ids (L,) of BOS and the prompt."""
        return torch.tensor([self._id(BOS), *self._ids(turn(caption))])

    def conversation(self, asked: Sequence[tuple[str, str]], tokens: int) -> dict[str, Tensor]:
        """Returns the fields of a `Sample` of questions and answers about one image.

        The image comes first and takes `tokens` places.
        """
        ids, labels = [self._id(BOS)], [-100]
        shown = f"{IMAGE_START}{IMAGE * tokens}{IMAGE_END}\n"
        for question, answer in asked:
            known = self._ids(turn(shown + question))
            told = [*self._ids(f" {answer}"), self._id(EOS)]
            ids += known + told
            labels += [-100] * len(known) + told
            shown = ""
        row = torch.tensor(ids)
        places = (row == self._id(IMAGE)) | (row == self._id(IMAGE_START))
        return {"input_ids": row, "labels": torch.tensor(labels), "image_token_mask": places}

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _id(self, token: str) -> int:
        return self.tokenizer.token_to_id(token)
