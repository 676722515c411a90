"""Prompts of the small world, read back from their texts."""

import pytest

from janusflow.scenes.captions import parse_prompt
from janusflow.scenes.world import SPLITS, prompt


def test_a_prompts_text_says_what_it_asks_for():
    for split, categories in SPLITS.items():
        for category in categories:
            for asked in (prompt(split, category, i) for i in range(40)):
                read = parse_prompt(asked.text)
                assert (read.needs, read.relation) == (asked.needs, asked.relation), asked.text


@pytest.mark.parametrize("text", ["", "a cat", "a circle and", "a ring above a star above a heart"])
def test_other_texts_are_not_prompts_of_the_world(text):
    assert parse_prompt(text) is None
