"""Prompts of the small world as samples: what a model draws for when it learns from rewards."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from janusflow.data.samples import Sample
from janusflow.models.janusflow.tokenizer import BOS
from janusflow.scenes.batches import Batches, _turn, _weighted
from janusflow.scenes.world import CATEGORIES, SPLITS, Prompt, generator, prompt


@dataclass(frozen=True)
class Prompts:
    """Each prompt `group` times in a row, of the split "train", and questions about other scenes.

    Their numbers start far from those that the supervised runs drew.
    """

    batches: Batches
    group: int = 16
    categories: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)  # shares of SPLITS["train"]

    def draw(
        self,
        step: int,
        rank: int,
        world: int,
        counts: dict[str, int],
        start: dict[str, int] | None = None,
    ) -> list[Sample]:
        """The samples of a process in a step, after the `start` of all steps before (as many a
        step unless told); ValueError where a group would be cut.
        """
        made = counts.get("generation", 0)
        if made % (self.group * world):
            raise ValueError(
                f"{made} images a step make no whole groups of {self.group} for {world} "
                "process(es); choose a multiple"
            )
        groups = made // self.group
        before = step * groups if start is None else start.get("generation", 0) // self.group
        first, last = (before + groups * (rank + i) // world for i in (0, 1))
        before = step * groups
        if start is not None:
            before = start.get("generation", 0) // self.group
        asked = {"understanding": counts.get("understanding", 0)}
        return [
            *(s for g in range(first, last) for s in [self.one(before + g)] * self.group),
            *self.batches.draw(step, rank, world, asked),
        ]

    def one(self, index: int) -> Sample:
        """The prompt of this number, of a category drawn by the shares."""
        rng = generator("train", index, "reward", self.batches.seed)
        category = SPLITS["train"][_weighted(rng, self.categories)]
        return self.sample(prompt("train", category, int(rng.integers(2**31))))

    def sample(self, request: Prompt) -> Sample:
        """A request as a sample without an image."""
        return replace(self.text(request.text), request=request)

    def text(self, text: str) -> Sample:
        """A prompt that nothing holds an image to."""
        tokenizer = self.batches.tokenizer
        ids = [tokenizer.token_to_id(BOS)]
        ids += tokenizer.encode(_turn(text), add_special_tokens=False).ids
        return Sample(
            kind="generation",
            input_ids=torch.tensor(ids),
            name=text,
        )

    def test(self, count: int, first: int = 0) -> list[Sample]:
        """`count` prompts of the split "test" from number `first` on, the categories in turn."""
        return [
            self.sample(prompt("test", CATEGORIES[i % 6], first + i // 6)) for i in range(count)
        ]
