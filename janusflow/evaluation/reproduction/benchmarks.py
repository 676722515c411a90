"""The published scores of JanusFlow-1.3B, and what is known about their settings."""

from dataclasses import dataclass

from janusflow.utils.keywords import choice

PAPER = "paper (arXiv 2411.07975)"
AGAIN = "measured again by others, guidance 2, 30 bfloat16 Euler steps"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: its prompts, the images of each, and the scores that were published."""

    task: str  # of `janusflow evaluate`
    prompts: int
    seeds: int
    measure: str
    published: dict[str, float]
    needs: str = ""  # what has to be there


BENCHMARKS = {
    "geneval": Benchmark(
        task="geneval",
        prompts=553,
        seeds=4,
        measure="correct",
        published={PAPER: 0.63, AGAIN: 0.50},
        needs="--prompts evaluation_metadata.jsonl and GenEval's evaluate_images.py",
    ),
    "dpg": Benchmark(
        task="dpg",
        prompts=1065,
        seeds=4,
        measure="share",
        published={PAPER: 0.8009, AGAIN: 0.720},
        needs="--prompts ELLA/dpg_bench/prompts and DPG-Bench's compute_dpg_bench.py",
    ),
    "mjhq": Benchmark(
        task="fid",
        prompts=30_000,
        seeds=1,
        measure="fid",
        published={PAPER: 9.51},
        needs="--prompts MJHQ-30K/meta_data.json, --reference and --features",
    ),
    "scenes": Benchmark(task="scenes", prompts=600, seeds=1, measure="strict", published={}),
}


def benchmark(name: str) -> Benchmark:
    """Returns the benchmark of this name. Raises ValueError for an unknown name."""
    choice("no benchmark named", name, BENCHMARKS)
    return BENCHMARKS[name]
