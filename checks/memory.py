"""Measures how much memory a process holds while it generates images and answers.

    python -m checks.memory [COUNT]

The first number is the resident memory, the second the same after glibc's `malloc_trim(0)` has
given back unused pages. Only growth of the second is memory that the process keeps.
"""

import ctypes
import os

import torch

from janusflow import JanusFlowPipeline
from samplers import command_line

QUESTIONS = ("describe the picture.", "how many shapes are there?", "what color is the circle?")


def resident() -> float:
    """Returns the memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def work(pipe: JanusFlowPipeline, i: int) -> None:
    """Generates an image of a prompt whose length changes, and an answer about it."""
    words = " and ".join(["a red circle"] * (1 + i % 5))
    generator = torch.Generator().manual_seed(i)
    image = pipe(words, quality="draft", generator=generator).images[0]
    pipe.chat(QUESTIONS[i % len(QUESTIONS)], [image])


def main(count: int) -> None:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    trim = ctypes.CDLL("libc.so.6").malloc_trim
    print("| images and answers | MiB | after malloc_trim |\n|---|---|---|")
    for i in range(count + 1):
        if i in (10, count // 4, count // 2, 3 * count // 4, count):
            before = resident()
            trim(0)
            print(f"| {i} | {before:.1f} | {resident():.1f} |", flush=True)
        work(pipe, i)


if __name__ == "__main__":
    told = "Generates this many images, with an answer each. The default is 1000."
    main(**command_line.positionals(__doc__, count=(int, 1000, told)))
