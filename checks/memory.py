"""A thousand generations in one process do not grow it: python -m checks.memory [COUNT]"""

import os
import sys

import torch

from janusflow import JanusFlowPipeline


def resident() -> float:
    """MiB of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(count: int = 1000) -> None:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    print("| generations | MiB |\n|---|---|")
    for i in range(count + 1):
        if i in (10, count // 4, count // 2, count):
            print(f"| {i} | {resident():.1f} |", flush=True)
        words = " and ".join(["a red circle"] * (1 + i % 5))  # prompts of several lengths
        pipe(words, num_inference_steps=2, generator=torch.Generator().manual_seed(i))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
