"""The task `geneval2`: images of GenEval 2's prompts, scored by Soft-TIFA.

The prompts are the official `geneval2_data.jsonl`: one object per line with `prompt`, `atom_count`,
`vqa_list` (pairs of question and answer) and `skills`, one per pair. The evaluated model answers
its own questions, which is no official score; the official script reads `image_paths.json` as
--image_filepath_data. Kamath et al. 2025, arXiv 2512.16853.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from janusflow.evaluation import provenance
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import share, wait
from janusflow.evaluation.task import OFFICIAL_FIELDS, Item, Sources, Task, register
from janusflow.evaluation.tasks import official
from janusflow.evaluation.tasks.official import Shot, numbered
from janusflow.evaluation.tasks.soft_tifa import means, number, soft_scores
from janusflow.evaluation.tasks.vqa import Key, collect, complete
from janusflow.utils import safe_io
from janusflow.utils.locked_dir import write

PATHS = "image_paths.json"


def entries(path: Path) -> list[dict]:
    """Returns GenEval 2's prompts. Raises ValueError naming the first line that is invalid."""
    return official.entries(path, _entry)


def _entry(line: str, where: Path) -> dict:
    entry = safe_io.parse_object(line, where)
    pairs, skills = entry.get("vqa_list"), entry.get("skills")
    whole = isinstance(entry.get("prompt"), str) and isinstance(entry.get("atom_count"), int)
    whole = whole and isinstance(pairs, list) and bool(pairs) and isinstance(skills, list)
    if not whole or len(skills) != len(pairs) or not all(map(_is_pair, pairs)):
        raise ValueError(
            f"{str(where)!r} is not an entry of GenEval 2; expected prompt, atom_count, vqa_list "
            "of [question, answer] and as many skills, as in geneval2_data.jsonl"
        )
    safe_io.check_prompt(entry["prompt"], str(where))
    return entry


def _is_pair(pair) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(text, str) and text.strip() for text in pair)
    )


def inputs(paths: dict[str, str]) -> dict[str, str]:
    path = official.source(paths, "file of GenEval 2's prompts")
    entries(path)
    return {"prompts": provenance.sha256(path)}


def shots(found: Sequence[dict], seeds: int) -> list[Shot]:
    texts = {index: entry["prompt"] for index, entry in enumerate(found)}
    return Shot.each("geneval2", texts, seeds, numbered)


def _atoms(found: Sequence[dict], seeds: int) -> dict[Key, tuple[Path, Sequence[str]]]:
    return {
        ("geneval2", f"seed {seed}", i, n): (numbered(i, seed), pair)
        for seed in range(seeds)
        for i, entry in enumerate(found)
        for n, pair in enumerate(entry["vqa_list"])
    }


def make(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Generates images, writes the official script's paths, and computes atoms' probabilities."""
    found = entries(Path(plan.paths["prompts"]))
    official.paint(load, plan, folder, settings, shots(found, plan.seeds))
    wait()
    if share()[0] == 0:
        places = {entry["prompt"]: str(numbered(i, 0)) for i, entry in enumerate(found)}
        write(folder / PATHS, json.dumps(places, indent=1) + "\n")
    collect(load, plan, folder, _atoms(found, plan.seeds), soft_scores)


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns both means per image, grouped by the number of atoms in the prompt."""
    found = entries(Path(plan.paths["prompts"]))
    made = official.calls(plan, folder, shots(found, plan.seeds))
    known = complete(folder, list(_atoms(found, plan.seeds)))
    items = []
    for index, entry in enumerate(found):
        for seed in range(plan.seeds):
            asked = range(len(entry["vqa_list"]))
            values = [number(known["geneval2", f"seed {seed}", index, n]) for n in asked]
            items.append(_item(entry, index, seed, values))
    return {"model": items}, made | {"answers_by": "the evaluated model itself, not official"}


def _item(entry: dict, index: int, seed: int, values: list[float]) -> Item:
    gm, am = means(values)
    said = "; ".join(f"{q} {p:.2f}" for (q, _), p in zip(entry["vqa_list"], values, strict=True))
    group, cluster = f"{entry['atom_count']} atoms", f"{index} {entry['prompt']}"
    scores = {"gm": gm, "am": am}
    return Item("geneval2", group, index, seed, cluster, scores, entry["prompt"], said)


NOTE = (
    "gm, am: Soft-TIFA's geometric and arithmetic mean, by the evaluated model itself. For the "
    f"official score run GenEval 2's evaluation.py with --image_filepath_data {PATHS}."
)
register("geneval2", Task(make, score, OFFICIAL_FIELDS, note=NOTE, inputs=inputs))
