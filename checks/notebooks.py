"""Runs the notebooks from top to bottom, each with a fresh kernel, and prints their times:

python -m checks.notebooks                   # all; ends with status 1 where one fails
python -m checks.notebooks --jobs 2          # two at once
python -m checks.notebooks 3 --store         # the third; what it drew and printed is kept
python -m checks.notebooks 3 --model FOLDER  # with another model in its one line
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from samplers import command_line

FOLDER = Path(__file__).parent.parent / "notebooks"
SHIPPED = '"janusflow/scenes"'
LIMIT = 900  # seconds that a cell may take
NOT_STORED = "not-stored"  # tag of cells that show images of another licence
QUIET = {"TORCH_LOGS": "-all", "DIFFUSERS_VERBOSITY": "error"}  # torchao, where it is installed


def read(script: Path, model: str | None = None) -> nbformat.NotebookNode:
    """The script's cells, without outputs, in the notebook beside it if there is one.

    ValueError if `model` is to be put in place of the packaged one and its line is not there once.
    """
    cells = jupytext.read(script)
    stored = script.with_suffix(".ipynb")
    if stored.exists():
        cells = jupytext.combine.combine_inputs_with_outputs(
            cells, nbformat.read(stored, as_version=4)
        )
    for cell in cells.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    if model:
        lines = [
            cell for cell in cells.cells if cell.cell_type == "code" and SHIPPED in cell.source
        ]
        if len(lines) != 1 or lines[0].source.count(SHIPPED) != 1:
            raise ValueError(f"{script.name} names {SHIPPED} not once; give a model one line")
        lines[0].source = lines[0].source.replace(SHIPPED, repr(model))
    return cells


def run(notebook: nbformat.NotebookNode) -> None:
    """Fills the notebook's outputs; CellExecutionError at the first cell that fails."""
    NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    ).execute()


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes the notebook, without what its cells tagged "not-stored" have shown."""
    for cell in notebook.cells:
        if NOT_STORED in cell.metadata.get("tags", []):
            cell.outputs = []
    nbformat.write(notebook, path)


def attempt(script: Path, model: str | None, keep: bool) -> str:
    """Runs a notebook, which is stored if `keep`, and returns the error of its cell that fails."""
    notebook, started, error = read(script, model), time.monotonic(), ""
    try:
        run(notebook)
    except CellExecutionError as found:
        error = str(found)
    print(f"{error}\n{script.stem}: {time.monotonic() - started:.0f} s".strip(), flush=True)
    if keep and not error:
        store(notebook, script.with_suffix(".ipynb"))
    return error


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "numbers", nargs="*", type=int, help="Runs the notebooks of these numbers; by default all."
    )
    parser.add_argument(
        "--store", action="store_true", help="Keeps the outputs in the .ipynb files."
    )
    parser.add_argument("--jobs", type=int, default=1, help="Runs this many notebooks at once.")
    parser.add_argument(
        "--model", help="Uses this folder or hub id in place of the packaged model."
    )
    args = parser.parse_args()
    if args.store and args.model:
        parser.error("--store keeps the packaged model's run; leave out --model")
    os.environ.update(QUIET)
    scripts, begun = sorted(FOLDER.glob("*.py")), time.monotonic()
    if args.numbers:
        scripts = [script for script in scripts if int(script.stem[:2]) in args.numbers]
    with ProcessPoolExecutor(args.jobs) as pool:
        errors = pool.map(partial(attempt, model=args.model, keep=args.store), scripts)
        failed = [s.stem for s, error in zip(scripts, errors, strict=True) if error]
    print(f"altogether: {time.monotonic() - begun:.0f} s")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
