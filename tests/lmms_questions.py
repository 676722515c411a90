"""Writes tests/lmms_tasks with their questions, for `lmms-eval --include_path`.

python tests/lmms_questions.py FOLDER 20
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from janusflow.evaluation.tasks import vqa
from janusflow.scenes.questions import question
from janusflow.scenes.shapes import render

TASKS = Path(__file__).parent / "lmms_tasks"
CLOSED = ("existence", "adversarial", "comparison")
ASKED = (*CLOSED, "count", "color", "shape", "relation")


def rows(templates, each: int, split: str = "test") -> list[dict]:
    found = []
    for template in templates:
        for index in range(each):
            q = question(split, index, template)
            own = dict(split=split, template=template, index=index)
            found.append(own | dict(question=q.text, answer=q.answer))
    return found


def write(folder: Path, each: int) -> Path:
    """`each` questions of a template; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name.lower()}.jsonl" for name in ("QUESTIONS", "CLOSED")}
    for path, templates in zip(files.values(), (ASKED, CLOSED), strict=True):
        lines = [json.dumps(row) for row in rows(templates, each)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(TASKS / "utils.py", folder)
    for task in TASKS.glob("*.yaml"):
        text = task.read_text(encoding="utf-8")
        for name, path in files.items():
            text = text.replace(f"test: {name}\n", f"test: {path}\n")
        (folder / task.name).write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))


def answer(pipe, asked) -> list[str]:
    """What `janusflow evaluate` hears to these questions."""
    return vqa.answer(
        pipe, [Image.fromarray(render(q.scene.objects)) for q in asked], [q.text for q in asked]
    )
