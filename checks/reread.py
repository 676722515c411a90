"""Compares the verdicts of a saved report with those of the second reader on its PNG files.

python -m checks.reread evaluation/scenes
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from janusflow.scenes.second_reader import strict
from samplers import command_line


def compare(folder: Path) -> Counter:
    """Counts each pair of the report's strict score and this reader's."""
    items = json.loads((folder / "report.json").read_text(encoding="utf-8"))["items"]
    found = Counter()
    for item in items:
        name = f"{item['index']:05d}-{item['seed']}.png"
        with Image.open(folder / "model" / item["split"] / item["group"] / name) as image:
            pixels = np.asarray(image.convert("RGB")).astype(float)
        found[bool(item["scores"]["strict"]), strict(pixels, item["wanted"])] += 1
    return found


def main() -> None:
    told = "Reads this folder of `janusflow evaluate`."
    found = compare(**command_line.positionals(__doc__, folder=(Path, ..., told)))
    total, same = sum(found.values()), found[True, True] + found[False, False]
    print(f"{same} of {total} verdicts agree; right by the scorer alone {found[True, False]}, by")
    print(f"this reader alone {found[False, True]}; scores {_share(found, 0):.3f}, ", end="")
    print(f"{_share(found, 1):.3f}")


def _share(found: Counter, side: int) -> float:
    return sum(n for key, n in found.items() if key[side]) / sum(found.values())


if __name__ == "__main__":
    main()
