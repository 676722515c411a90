"""Times questions that share an image, together and alone: python -m checks.questions [--wide]

"alone" reads the image for each row of a batch, and all that was said for each turn of a
conversation; "shared" is what `asking.ask` and `pipe.conversation` do. In turns, greedy answers of
so many tokens at most, medians with their range. `--wide` takes the 1.3B's widths with 4 blocks, a
small vision encoder on 384 pixels and fresh weights.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from checks.forecast import published
from janusflow import JanusFlowPipeline
from janusflow.bench.speed import wide
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.pipelines import prefix_cache
from janusflow.pipelines.answering import message
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene
from samplers import command_line

QUESTIONS = (
    "how many shapes are there?",
    "is there a red circle?",
    "what color is the circle?",
    "is the circle left of the square?",
)


def pipeline(large: bool) -> JanusFlowPipeline:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    if large:
        pipe = JanusFlowPipeline(wide(4), JanusFlowProcessor(published(pipe.processor)), pipe.vae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def batches(pipe, image, count: int, tokens: int) -> tuple:
    rows = [message(QUESTIONS[i % len(QUESTIONS)], [image]) for i in range(count)]
    settings = dict(do_sample=False, max_new_tokens=tokens, pad_token_id=0)

    def alone():
        pipe.model.generate(**pipe.processor(rows), **settings)

    def shared():
        inputs = pipe.processor(rows)
        if prefix_cache.generate(pipe.model, inputs, **settings) is None:
            pipe.model.generate(**inputs, **settings)

    return alone, shared


def conversations(pipe, image, tokens: int) -> tuple:
    def alone():
        turns = []
        for question in QUESTIONS:
            turns += message(question, [] if turns else [image])
            answer = pipe.chat(turns, max_new_tokens=tokens)
            turns.append({"role": "assistant", "content": answer})

    def shared():
        talk = pipe.conversation([image])
        for question in QUESTIONS:
            talk.ask(question, max_new_tokens=tokens)

    return alone, shared


def seconds(way) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--wide",
        action="store_true",
        help="Measures the 1.3B's widths with 4 blocks and random weights.",
    )
    parser.add_argument(
        "--tokens", type=int, default=8, help="Generates this many tokens for each answer."
    )
    parser.add_argument("--rounds", type=int, default=5, help="Measures each way this many times.")
    parser.add_argument(
        "--counts",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        help="Asks these numbers of questions at once.",
    )
    asked = parser.parse_args()
    pipe, image = pipeline(asked.wide), render(scene("test", 0).objects)
    cases = {f"{n} at once": batches(pipe, image, n, asked.tokens) for n in asked.counts}
    cases["4 in turn"] = conversations(pipe, image, asked.tokens)
    print("| questions | alone, s | shared, s | faster |\n|---|---|---|---|")
    for name, ways in cases.items():
        for way in ways:
            way()
        rounds = [[seconds(way) for way in ways] for _ in range(asked.rounds)]
        alone, shared = (median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(a / b for a, b in rounds)
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {alone:.3f} | {shared:.3f} | {spread} |", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
