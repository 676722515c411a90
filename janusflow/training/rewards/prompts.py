"""Prompts of the scenes world as training samples, for learning from rewards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from janusflow.data.drawing import Scheduled, share
from janusflow.data.samples import Sample
from janusflow.scenes.batches import Batches, _weighted
from janusflow.scenes.world import CATEGORIES, SPLITS, Prompt, generator, prompt

SHARES = (1, 2, 2, 1, 3, 3, 3)  # of SPLITS["train"], of a run unless told


@dataclass
class Prompts(Scheduled):
    """Prompts of the split "train", each `group` times in a row, and questions about other scenes.

    They depend on `batches.seed`, or in a run on training.seed. Raises ValueError for shares that
    are not one number from 0 for each category.
    """

    batches: Batches
    group: int = 16
    categories: Sequence[float] = (1, 1, 1, 1, 1, 1, 1)  # shares of SPLITS["train"]

    def __post_init__(self):
        names, own = SPLITS["train"], tuple(self.categories)
        if len(own) != len(names) or not sum(own) or not all(0 <= x < math.inf for x in own):
            raise ValueError(
                f"the shares of categories are {own}; expected {len(names)} numbers from 0, not "
                f"all 0, for {', '.join(names)}"
            )

    @property
    def seed(self) -> int:
        return self.batches.seed

    def draw(
        self,
        step: int,
        rank: int,
        world: int,
        counts: dict[str, int],
        start: dict[str, int] | None = None,
    ) -> list[Sample]:
        """Returns one process's samples of a step; `start` counts the samples of all earlier steps.

        Raises ValueError if a group would be divided between processes.
        """
        made = counts.get("generation", 0)
        if made % (self.group * world):
            raise ValueError(
                f"{made} images a step do not form complete groups of {self.group} for {world} "
                "process(es); choose a multiple"
            )
        groups = made // self.group
        before = step * groups if start is None else start.get("generation", 0) // self.group
        batches = replace(self.batches, seed=self.seed_at(step))
        asked = {"understanding": counts.get("understanding", 0)}
        own = [self.one(before + i, batches.seed) for i in share(groups, rank, world)]
        return [
            *(one for one in own for _ in range(self.group)),
            *batches.draw(step, rank, world, asked),
        ]

    def one(self, index: int, seed: int | None = None) -> Sample:
        """Returns the prompt of this number; its category is drawn by the shares."""
        seed = self.batches.seed if seed is None else seed
        rng = generator("train", index, "reward", seed)
        category = SPLITS["train"][_weighted(rng, self.categories)]
        return self.sample(prompt("train", category, int(rng.integers(2**31))))

    def told(self) -> dict[str, str]:
        """Returns what a checkpoint records about the prompts, to compare when a run resumes."""
        return {"prompts": " ".join(f"{share:g}" for share in self.categories)}

    def sample(self, request: Prompt) -> Sample:
        """Returns a request as a sample without an image."""
        return replace(self.text(request.text), request=request)

    def text(self, text: str) -> Sample:
        """Returns a prompt without requirements."""
        return Sample(kind="generation", input_ids=self.batches.prompt_ids(text), name=text)

    def test(self, count: int, first: int = 0) -> list[Sample]:
        """Returns `count` prompts of the split "test" from `first` on, categories in turn."""
        return [
            self.sample(prompt("test", CATEGORIES[i % 6], first + i // 6)) for i in range(count)
        ]


def shares_of(text: str | None) -> tuple[float, ...]:
    """Parses shares, "1 4 2 1 3 4 3"; the default is SHARES. Raises ValueError for others."""
    if text is None:
        return SHARES
    try:
        return tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(
            f"--categories is {text!r:.80}; expected {len(SHARES)} numbers, as in "
            f'"{" ".join(map(str, SHARES))}"'
        ) from error
