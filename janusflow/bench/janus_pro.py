"""Times Janus-Pro's token sampling against transformers' own loop, alternating, on the same
weights.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import transformers

from janusflow.utils.text import explained

Timed = tuple[float, torch.Tensor]  # seconds and tokens


def compare(pipe, prompts: Sequence[str], rounds: int = 5, guidance: float = 5.0) -> dict:
    """Runs greedy sampling of both, alternating after one unmeasured round; see `summary`."""
    return summary(list(turns(pipe, prompts, rounds, guidance)))


@torch.no_grad()
def turns(
    pipe, prompts: Sequence[str], rounds: int, guidance: float = 5.0
) -> Iterator[tuple[Timed, Timed]]:
    """Yields our and transformers' times of each round, without the decoder, which is the same."""
    x = pipe.processor.prompt(list(prompts)).to(pipe.device)

    def theirs():
        return pipe.model.generate(
            x["input_ids"],
            attention_mask=x["attention_mask"],
            generation_mode="image",
            guidance_scale=guidance,
            do_sample=False,
        )

    def ours():
        return pipe(
            list(prompts), guidance_scale=guidance, temperature=0, output_type="latent"
        ).tokens

    ours()
    with explained(
        f"transformers {transformers.__version__} cannot generate images with Janus",
        "install another version to compare with",
        TypeError,
    ):  # 5.17's loop does not call its own cache as it wants to be called
        theirs()
    for _ in range(rounds):
        yield _timed(ours), _timed(theirs)


def summary(pairs: Sequence[tuple[Timed, Timed]]) -> dict:
    """Returns the medians in seconds, the rounds' median, smallest and largest ratio, and the
    fraction of equal tokens.
    """
    ratios = [theirs[0] / ours[0] for ours, theirs in pairs]
    return {
        "ours": statistics.median(own[0] for own, _ in pairs),
        "transformers": statistics.median(other[0] for _, other in pairs),
        "ratio": statistics.median(ratios),
        "worst": min(ratios),
        "best": max(ratios),
        "equal": (pairs[0][0][1] == pairs[0][1][1]).float().mean().item(),
    }


def _timed(run: Callable) -> Timed:
    start = time.perf_counter()
    made = run()
    if made.device.type == "cuda":
        torch.cuda.synchronize(made.device)
    return time.perf_counter() - start, made


def table(result: dict, prompts: int) -> str:
    """Formats the comparison for a terminal."""
    return (
        f"{prompts} image(s), greedy, the same weights, in turns\n"
        f"  janusflow     {result['ours']:9.3f} s\n"
        f"  transformers  {result['transformers']:9.3f} s\n"
        f"  ratio         {result['ratio']:9.2f}   "
        f"({result['worst']:.2f} to {result['best']:.2f})\n"
        f"  equal tokens  {result['equal']:9.1%}"
    )
