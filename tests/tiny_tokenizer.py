"""A tiny tokenizer's words, and what the tests of processors do with its folder."""

import json

import numpy as np
from PIL import Image

WORDS = "a red blue circle square how many shapes are there User Assistant".split()
TEXTS = ["User: a red circle\n\nAssistant:", "What  is in\tthis picture?"]


def edit(path, **changes):
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def picture(width=60, height=31, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
