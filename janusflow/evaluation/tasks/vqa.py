"""The task `scenes-vqa`: questions about drawn scenes, each with one right answer."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import batches, fill, share
from janusflow.evaluation.task import ANSWER_FIELDS, Item, Sources, Task, register
from janusflow.pipelines.answering import ask
from janusflow.scenes.questions import PROBES, TEMPLATES, Question, pieces, question
from janusflow.scenes.shapes import render
from janusflow.scenes.world import Scene
from janusflow.utils import images
from janusflow.utils.locked_dir import write
from janusflow.utils.safe_io import check_file
from janusflow.utils.text import explained

POPE = {"existence": "random", "popular": "popular", "adversarial": "adversarial"}
ORDER = [*POPE, *(name for name in [*TEMPLATES, *PROBES] if name not in POPE)]
ANSWERS = "answers.json"
LONGEST = 40  # tokens of an answer; the longest caption has fewer

Key = tuple[str | int, ...]


def questions(plan: Plan) -> dict[Key, Question]:
    """Returns questions by (split, template, index), without templates that suit no scene."""
    return {
        (split, template, index): question(split, index, template)
        for split in plan.splits
        for template in ORDER
        if _suits(split, template)
        for index in range(plan.prompts)
    }


def _suits(split: str, template: str) -> bool:
    try:
        question(split, 0, template)
    except ValueError:
        return False
    return True


def answer(pipe, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[str]:
    """Returns greedy answers to one question about each image, in one batch."""
    shown = [[image] for image in pictures]
    return ask(pipe, list(texts), shown, max_new_tokens=LONGEST)


def collect(
    load: Callable,
    plan: Plan,
    folder: Path,
    asked: Mapping[Key, tuple[Path | Scene, object]],
    reply: Callable[..., list[str]] | None = None,
) -> None:
    """Adds the missing answers to the folder's file, batch by batch.

    `asked` names an image in the folder, or a scene, and what `reply(pipe, images, questions)`, by
    default `answer`, is to answer. The first two parts of a key are its split and group. One
    process answers, because answers are few and share a file.
    """
    known = read(folder)
    if share()[0] > 0:
        return

    def shown(one: Path | Scene) -> Image.Image:
        if isinstance(one, Scene):
            return Image.fromarray(render(one.objects))
        return images.read(folder / one)

    def say(keys: Sequence[Key]) -> list[str]:
        pairs = [asked[key] for key in keys]
        return (reply or answer)(
            load(), [shown(one) for one, _ in pairs], [text for _, text in pairs]
        )

    def keep(made: list[tuple[Key, str]]) -> None:
        known.update(made)
        _write(folder, known)

    parts = list(batches(list(asked), plan.batch, lambda key: key[:2]))
    fill(parts, lambda key: key not in known, say, keep, "answers", among=(0, 1))


def make(load: Callable, plan: Plan, folder: Path, _settings: dict) -> None:
    asked = {key: (one.scene, one.text) for key, one in questions(plan).items()}
    collect(load, plan, folder, asked)


def _write(folder: Path, known: dict[Key, str]) -> None:
    lines = [json.dumps([*key, text], ensure_ascii=False) for key, text in known.items()]
    write(folder / ANSWERS, "[" + ",\n".join(lines) + "]\n")


def read(folder: Path) -> dict[Key, str]:
    """Returns the answers in a folder. Raises ValueError if their file is damaged."""
    path = folder / ANSWERS
    if not path.exists():
        return {}
    with explained(f"{path} is damaged", "delete it and evaluate again"):
        rows = json.loads(check_file(path).read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("expected a list of answers")
        known = {tuple(key): text for *key, text in rows}
        if not all(isinstance(text, str) for text in known.values()):
            raise ValueError("an answer is no text")
        if not all(isinstance(p, str) or (type(p) is int and p < 2**31) for k in known for p in k):
            raise ValueError("a question's name is neither text nor a number")
        return known


def complete(folder: Path, asked: Sequence[Key]) -> dict[Key, str]:
    """Returns the answers to all of these questions. Raises ValueError if one is missing."""
    known = read(folder)
    missing = [key for key in asked if key not in known]
    if missing:
        raise ValueError(
            f"{str(folder)!r} lacks {len(missing)} of {len(asked)} answers, the first of "
            f"{' '.join(map(str, missing[0]))}; evaluate into it again without --rescore"
        )
    return known


def judge(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Scores each answer by exact match of words, and the most frequent answer for comparison."""
    asked = questions(plan)
    known = complete(folder, list(asked))
    model = [_item(key, q, known[key]) for key, q in asked.items()]
    often = {}
    for (split, template, _), q in asked.items():
        often.setdefault((split, template), Counter())[q.answer] += 1
    usual = {key: counts.most_common(1)[0][0] for key, counts in often.items()}
    constant = [_item(key, q, usual[key[:2]]) for key, q in asked.items()]
    made = {"pope": {POPE[name]: name for name in POPE}, "max_new_tokens": LONGEST}
    return {"model": model, "constant": constant}, made


def _item(key: Key, q: Question, said: str) -> Item:
    split, template, index = key
    right = {"exact": pieces(said) == pieces(q.answer)}
    wanted = f"{q.text} {q.answer}"
    return Item(split, template, index, 0, f"{q.text} {index}", right, wanted, said)


def detection(items: Sequence[Item]) -> dict[str, float]:
    """Yes-or-no scores as in POPE (Li et al. 2023): precision, recall and F1 of yes, rate of yes,
    accuracy.

    Any other answer counts as no.
    """
    closed = [i for i in items if i.wanted.endswith(("? yes", "? no"))]
    if not closed:
        return {}
    pairs = [(pieces(i.said) == ["yes"], i.wanted.endswith("? yes")) for i in closed]
    hits = sum(said and due for said, due in pairs)
    said, due = (sum(side) for side in zip(*pairs, strict=True))
    found = {"prec": hits / said} if said else {}
    found |= {"rec": hits / due, "F1": 2 * hits / (said + due)} if due else {}
    return found | {"yes": said / len(closed), "due": due / len(closed)}


NOTE = (
    "prec, rec, F1: precision, recall and F1 of the answer yes. yes: the fraction of answers "
    "that are yes. due: the fraction that should be yes. constant: the score of always giving "
    "the most frequent answer. POPE's splits are existence (random), popular and adversarial."
)
FIELDS = ("splits", "prompts", *ANSWER_FIELDS)
register("scenes-vqa", Task(make, judge, FIELDS, detection, note=NOTE))
