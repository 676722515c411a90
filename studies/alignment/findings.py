"""Summarises the study's runs: curves with intervals in JSON, a table in Markdown, a figure.

    python -m studies.alignment.findings runs/alignment docs/alignment.json

reads the runs of `studies.alignment.run` again and writes all three beside the name given;
`python -m checks.page_figures` draws the figure again from the summary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from janusflow.evaluation.intervals import bootstrap
from samplers import command_line
from studies.alignment.figure import figure

SHARES = ("color", "strict", "lenient")
LOSSES = ("held_out", "gap")


def read(folder: Path) -> list[dict]:
    """Returns the finished runs. Raises ValueError if there are none, or several studies."""
    runs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*-*.json"))]
    if not runs:
        raise ValueError(
            f"{folder} holds no finished run; run python -m studies.alignment.run first"
        )
    if any(run["study"] != runs[0]["study"] for run in runs):
        raise ValueError(f"{folder} holds runs of several studies; give each its own folder")
    return runs


def curve(runs: Sequence[dict], measure: str) -> dict[str, list]:
    """Mean over seeds at every step and 95 % bounds, and each seed's own line.

    A share's bounds are a bootstrap over prompts within the seeds; they do not hold what another
    seed would change, which is why the seeds are kept. A loss is a mean over the same scenes in
    every run and has no bounds of its own.
    """
    steps = [point["step"] for point in runs[0]["points"]]
    each = [[float(np.mean(p[measure])) for p in run["points"]] for run in runs]
    out = {"steps": steps, "mean": np.mean(each, axis=0).tolist(), "seeds": each}
    if measure in SHARES:
        bounds = [interval([run["points"][i][measure] for run in runs]) for i in range(len(steps))]
        out |= {"low": [low for low, _ in bounds], "high": [high for _, high in bounds]}
    return out


def interval(rows: Sequence[Sequence[bool]], prompts: int = 12) -> tuple[float, float]:
    """Returns bounds of the mean over seeds; images of one prompt stand together in each row."""
    clusters = [np.arange(len(row)) // (len(row) // prompts) for row in rows]
    return tuple(bootstrap(list(zip(rows, clusters, strict=True))))


def paired(runs: Sequence[dict], plain: Sequence[dict], measure: str) -> dict[str, list[float]]:
    """Arm less "none", seed by seed, of the mean over the last half of the curve: less noisy than
    its last point, and the same weights, images and noises on both sides.
    """

    def late(run: dict) -> float:
        points = run["points"]
        return float(np.mean([np.mean(p[measure]) for p in points[len(points) // 2 :]]))

    both = {run["seed"]: late(run) for run in plain}
    return [late(run) - both[run["seed"]] for run in runs if run["seed"] in both]


def summary(runs: Sequence[dict]) -> dict:
    arms = list(dict.fromkeys(run["arm"] for run in sorted(runs, key=lambda r: r["arm"] != "none")))
    by_arm = {arm: [run for run in runs if run["arm"] == arm] for arm in arms}
    plain = by_arm.get("none", [])
    return {
        "study": runs[0]["study"],
        "arms": {
            arm: {
                "seeds": [run["seed"] for run in own],
                "protocol": own[0]["protocol"],
                "cpu_seconds": [run["cpu_seconds"] for run in own],
                "curves": {name: curve(own, name) for name in (*SHARES, *LOSSES)},
                "held_out_by_time": np.mean(
                    [run["points"][-1]["held_out"] for run in own], axis=0
                ).tolist(),
                "against_none": {name: paired(own, plain, name) for name in (*SHARES, *LOSSES)},
                "gradient_cosine": [
                    [p["gradient_cosine"] for p in run["points"]]
                    for run in own
                    if run["points"][-1]["gradient_cosine"] is not None
                ],
                "cknna": np.mean([run["cknna"] for run in own], axis=0).tolist(),
            }
            for arm, own in by_arm.items()
        },
    }


# Markdown


def table(made: dict) -> str:
    """Returns every arm's last point, and its difference to "none" over the last half by seed."""
    head = "| arm | colour | strict | lenient | held-out loss | gap | late gap − none, by seed |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for arm, entry in made["arms"].items():
        shares = [_share(entry["curves"][name]) for name in SHARES]
        values = [f"{entry['curves'][name]['mean'][-1]:.4f}" for name in LOSSES]
        against = [f"{d:+.4f}" for d in entry["against_none"]["gap"]] if arm != "none" else ["-"]
        lines.append(f"| {' | '.join([arm, *shares, *values, ', '.join(against)])} |")
    return "\n".join(lines)


def _share(entry: dict) -> str:
    return f"{entry['mean'][-1]:.2f} [{entry['low'][-1]:.2f}, {entry['high'][-1]:.2f}]"


def layers(made: dict) -> str:
    """Returns CKNNA of every block with the vision encoder."""
    blocks = range(1, made["study"]["blocks"] + 1)
    lines = [
        f"| arm | {' | '.join(f'block {k}' for k in blocks)} |",
        "|---" * (len(blocks) + 1) + "|",
    ]
    for arm, entry in made["arms"].items():
        lines.append(f"| {arm} | {' | '.join(f'{value:.3f}' for value in entry['cknna'])} |")
    return "\n".join(lines)


def save(runs: Sequence[dict], path: Path) -> dict:
    """Writes the summary to `path` (.json), with the tables (.md) and the figure (.png) beside."""
    made = _rounded(summary(runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made) + "\n", encoding="utf-8")
    text = f"{table(made)}\n\n{layers(made)}\n"
    path.with_suffix(".tables.md").write_text(text, encoding="utf-8")
    figure(made).savefig(path.with_suffix(".png"), dpi=200)
    return made


def _rounded(value):
    """Rounds floats to five digits, so that the file stays small and readable."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "runs", type=Path, help="Reads the runs that studies.alignment.run wrote to this folder."
    )
    parser.add_argument("out", type=Path, help="Writes the summary to this file, NAME.json.")
    args = parser.parse_args()
    made = save(read(args.runs), args.out)
    print(table(made))


if __name__ == "__main__":
    main()
