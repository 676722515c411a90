"""Collects results of lmms-eval and VLMEvalKit in one table, each score with its protocol.

    python -m janusflow.integrations.benchmark_report out/*_results.json work/mine_POPE_score.csv

Some benchmark names do not say what was measured: POPE has three splits, and MMBench asks each
question once or in every rotation of its options. The table says which.
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from janusflow.utils.safe_io import parse_object, read_text
from janusflow.utils.text import explained

HEADER = ("benchmark", "protocol", "metric", "score", "questions", "model")
POPE = {
    "pope": "the three splits together",
    "pope_adv": "adversarial split",
    "pope_pop": "popular split",
    "pope_random": "random split",
}
CIRCULAR = "circular: right only if right in every rotation that the data holds"
YES = "that of the right answers, not of the model's"  # what lmms-eval 0.7.3 counts


def protocol(name: str) -> str:
    """Returns what an lmms-eval task or VLMEvalKit dataset measures, if its name is silent."""
    low = name.lower()
    if low.startswith("pope"):
        return POPE.get(low, POPE["pope"])
    if not low.startswith(("mmbench", "ccbench")):
        return ""
    if "test" in low:
        return "test answers are kept back: only a file to submit is made"
    if low.startswith("mmbench_") and low.endswith("_static"):
        return f"{CIRCULAR}; letters found by rules"
    return f"{CIRCULAR}; letters found by a judge model where one is set up"


def of_lmms_eval(results: dict, path: Path) -> Iterator[list[str]]:
    """Returns the rows of a `*_results.json`. Raises ValueError for another file."""
    with explained(f"{str(path)!r} is not a result of lmms-eval", "give a *_results.json"):
        model = results["config"]["model_args"] or results["config"]["model"]
        for task, scores in results["results"].items():
            split = results["configs"].get(task, {}).get("test_split") or "its own"
            said = protocol(task) or f"split {str(split).strip()}"
            count = results["n-samples"].get(task, {}).get("effective", "")
            for name, value in scores.items():
                metric = name.removesuffix(",none")
                if isinstance(value, int | float) and "_stderr" not in name:
                    about = f"{said}; {YES}" if metric == "pope_yes_ratio" else said
                    error = scores.get(f"{metric}_stderr,none")
                    yield [task, about, metric, _value(value, error), str(count), str(model)]


def of_vlmevalkit(text: str, path: Path) -> Iterator[list[str]]:
    """Returns the rows of a `MODEL_DATASET_acc.csv` or `_score.csv`, or raises ValueError."""
    model, _, dataset = path.stem.rpartition("_")[0].partition("_")
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not model or not dataset or "Overall" not in (rows[0] or {}):
        raise ValueError(
            f"{str(path)!r} is not a result of VLMEvalKit; give a MODEL_DATASET_acc.csv or "
            "_score.csv"
        )
    for row in rows:
        split = row.get("split") or "all"
        said = f"{split} split" if dataset == "POPE" else protocol(dataset) or f"split {split}"
        said = protocol("pope") if dataset == "POPE" and split == "Overall" else said
        metric = "F1, %" if dataset == "POPE" else "Overall"
        yield [dataset, said, metric, row["Overall"], "", model]


def _value(value: float, error) -> str:
    spread = f" ± {1.96 * error:.4f}" if isinstance(error, int | float) else ""
    return f"{value:.4f}{spread}"


def table(paths: Sequence[Path]) -> str:
    """Formats rows as Markdown; ± is 1.96 standard errors as lmms-eval reports them."""
    rows: list[list[str]] = [list(HEADER), ["---"] * len(HEADER)]
    for path in paths:
        text = read_text(path, "config_bytes")
        make = of_vlmevalkit(text, path) if path.suffix == ".csv" else None
        rows += make or of_lmms_eval(parse_object(text, path), path)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(names: Sequence[str]) -> None:
    """Prints the table of the named files."""
    if not names:
        raise SystemExit("benchmark_report: no file is named; give *_results.json or *_acc.csv")
    try:
        print(table([Path(name) for name in names]))
    except ValueError as error:
        raise SystemExit(f"benchmark_report: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
