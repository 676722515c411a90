"""Reads the results of the official evaluators of GenEval and DPG-Bench as items of a report."""

from pathlib import Path

from janusflow.evaluation.plan import Plan
from janusflow.evaluation.task import OFFICIAL_FIELDS, Item, Sources, Task, register
from janusflow.evaluation.tasks import official
from janusflow.evaluation.tasks.official import GRID
from janusflow.utils import safe_io
from janusflow.utils.locked_dir import write
from janusflow.utils.text import explained

RESULTS = "results"  # the official file's copy in the folder: results.jsonl, results.txt


def geneval(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns `correct` of each line of evaluate_images.py's file, by tag; none without a file."""
    entries = official.metadata(Path(plan.paths["prompts"]))
    shots = official.geneval_shots(entries, plan.seeds)
    made = official.calls(plan, folder, shots)
    path = folder / f"{RESULTS}.jsonl"
    if not path.exists():
        return {}, made
    rows = dict(_row(line, number, path) for number, line in _lines(path))
    _complete([(i, s) for i in range(len(entries)) for s in range(plan.seeds)], rows, path)
    items = []
    for index, entry in enumerate(entries):
        for seed in range(plan.seeds):
            items.append(_judged(entry, index, seed, rows[index, seed], path))
    return {"model": items}, made | {"official": "GenEval's evaluate_images.py"}


def _lines(path: Path) -> list[tuple[int, str]]:
    with explained(f"{str(path)!r} is not UTF-8 text", "save it as UTF-8", UnicodeDecodeError):
        text = safe_io.read_bytes(path, "results_bytes", "results").decode("utf-8")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _row(line: str, number: int, path: Path) -> tuple[tuple[int, int], dict]:
    """Returns the numbers of prompt and image from the file name, and the whole line."""
    row = safe_io.parse_object(line, Path(f"{path}, line {number}"))
    with explained(
        f"line {number} of {str(path)!r} is not GenEval's",
        "give the file that evaluate_images.py wrote",
    ):
        *_, index, _, name = Path(row["filename"]).parts
        if row["correct"] not in (True, False) or not isinstance(row["prompt"], str):
            raise ValueError("correct is neither true nor false, or prompt no text")
        return (int(index), int(Path(name).stem)), row


def _complete(wanted: list[tuple], rows: dict, path: Path) -> None:
    missing = [key for key in wanted if key not in rows]
    if missing or len(rows) > len(wanted):
        first = f", the first {missing[0]}" if missing else ""
        raise ValueError(
            f"{str(path)!r} has results of {len(rows)} images where {len(wanted)} were generated, "
            f"and lacks {len(missing)}{first}; run the official evaluator on this folder"
        )


def _judged(entry: dict, index: int, seed: int, row: dict, path: Path) -> Item:
    if row["prompt"] != entry["prompt"]:
        raise ValueError(
            f"{str(path)!r} judges image {index} by {row['prompt']!r:.80}, which was generated for "
            f"{entry['prompt']!r:.80}; run the official evaluator on this folder"
        )
    said = str(row.get("reason") or "correct")
    scores = {"correct": bool(row["correct"])}
    cluster = f"{index} {entry['prompt']}"
    return Item("geneval", entry["tag"], index, seed, cluster, scores, entry["prompt"], said)


def dpg(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns each image's fraction of questions answered with yes, from compute_dpg_bench.py's
    file.

    The file's own averages are added to the protocol.
    """
    found = official.texts(Path(plan.paths["prompts"]))
    made = official.calls(plan, folder, official.dpg_shots(found))
    path = folder / f"{RESULTS}.txt"
    if not path.exists():
        return {}, made
    rows, told = {}, {}
    for number, line in _lines(path):
        name, values = _scores(line)
        if name:
            rows[name] = values
        elif line.startswith("\t") or line.startswith("DPG-Bench score"):
            title, _, value = line.strip().rpartition(":")
            told[title] = _number(value, number, path)
    _complete(list(found), rows, path)
    items = [
        Item("dpg", "all", index, seed, name, {"share": value}, text, f"{value:.3f}")
        for index, (name, text) in enumerate(found.items())
        for seed, value in enumerate(rows[name])
    ]
    _agrees(items, told, path)
    return {"model": items}, made | {"official": told}


def _scores(line: str) -> tuple[str, list[float]]:
    """Name and scores of a line `path, s, s, s, s, average`; an empty name for any other line."""
    *path, a, b, c, d, mean = line.split(", ") if line.count(", ") > GRID else ["", *[""] * 5]
    try:
        values = [float(x) for x in (a, b, c, d)]
        fits = abs(sum(values) / GRID - float(mean)) < 1e-6 and 0 <= min(values) <= max(values) <= 1
    except ValueError:
        return "", []
    return (Path(", ".join(path)).name.split(".")[0], values) if fits else ("", [])


def _number(text: str, number: int, path: Path) -> float:
    with explained(
        f"line {number} of {str(path)!r} is not DPG-Bench's",
        "give the file that compute_dpg_bench.py wrote",
    ):
        return float(text)


def _agrees(items: list[Item], told: dict[str, float], path: Path) -> None:
    mean = 100 * sum(item.scores["share"] for item in items) / len(items)
    said = told.get("DPG-Bench score")
    if said is not None and abs(said - mean) > 0.01:
        raise ValueError(
            f"{str(path)!r} says {said:.2f}, and its own lines give {mean:.2f}; check that the "
            "file is complete"
        )


def take(path: Path, folder: Path, name: str) -> None:
    """Copies an official results file into the folder, which can then be scored."""
    ends = {"geneval": "jsonl", "dpg": "txt"}
    if name not in ends:
        raise ValueError(
            f"--results is for the tasks {' and '.join(ends)}, and {str(folder)!r} is of {name}; "
            "leave --results out"
        )
    content = "\n".join(line for _, line in _lines(path))
    if not content:
        raise ValueError(f"{str(path)!r} is empty; give the file that the evaluator wrote")
    write(folder / f"{RESULTS}.{ends[name]}", content + "\n")


register(
    "geneval",
    Task(
        official.geneval,
        geneval,
        OFFICIAL_FIELDS,
        inputs=official.geneval_inputs,
        images=lambda item: official.sample(item["index"], item["seed"]),
        next="run GenEval's evaluate_images.py on this folder, then evaluate --results its file",
    ),
)
register(
    "dpg",
    Task(
        official.dpg,
        dpg,
        OFFICIAL_FIELDS,
        inputs=official.dpg_inputs,
        images=lambda item: official.single(item["cluster"], item["seed"]),
        next="run DPG-Bench's compute_dpg_bench.py on images/ in this folder with --pic-num 4, "
        "then evaluate --results its file",
    ),
)
