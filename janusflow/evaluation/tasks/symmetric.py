"""The task `symmetric`: one fact asked in two ways, about drawn scenes.

A model that knows the fact gives consistent answers. Consistency can be measured without knowing
the scene; here the scene is known, so the task also reports how well consistency predicts right
answers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from numpy.random import Generator

from janusflow.evaluation import calibration
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.task import ANSWER_FIELDS, Item, Sources, Task, register
from janusflow.evaluation.tasks.vqa import LONGEST, Key, collect, complete
from janusflow.scenes.questions import pieces, unique
from janusflow.scenes.world import (
    COLORS,
    NUMBERS,
    RELATIONS,
    Need,
    Scene,
    categories_of,
    clearly,
    generator,
    opposite,
    pick,
    scene,
)

TRIALS = 200  # scenes that are looked at for one that suits a kind


@dataclass(frozen=True)
class QuestionPair:
    """Two questions about a scene, their right answers, and a test of two answers' consistency."""

    scene: Scene
    texts: tuple[str, str]
    due: tuple[str, str]
    fits: Callable[[str, str], bool]


Build = Callable[[Scene, Generator], QuestionPair | None]
KINDS: dict[str, Build] = {}


def kind(build: Build) -> Build:
    """A decorator that registers a kind of pair; it returns None for unsuitable scenes."""
    KINDS[build.__name__] = build
    return build


def _words(truth: bool) -> str:
    return "yes" if truth else "no"


def equal(a: str, b: str) -> bool:
    return {a, b} in ({"yes"}, {"no"})


def opposed(a: str, b: str) -> bool:
    return {a, b} == {"yes", "no"}


@kind
def relation(scene: Scene, rng: Generator) -> QuestionPair | None:
    """Is the circle left of the square, and the square right of the circle? Both must be equal."""
    known = unique(scene, "shape")
    said = [(a, r, b) for a, b in permutations(known, 2) for r in RELATIONS if clearly(a, r, b)]
    if not said:
        return None
    (a, name, b), truth = pick(rng, said), rng.random() < 0.5
    name = name if truth else opposite(name)
    first = f"is the {a.shape} {name} the {b.shape}?"
    second = f"is the {b.shape} {opposite(name)} the {a.shape}?"
    return QuestionPair(scene, (first, second), (_words(truth),) * 2, equal)


@kind
def comparison(scene: Scene, rng: Generator) -> QuestionPair | None:
    """Are there more circles than squares? More squares than circles? The answers must differ."""
    counts = Counter(obj.shape for obj in scene.objects)
    pairs = [(a, b) for a, b in permutations(counts, 2) if counts[a] != counts[b]]
    if not pairs:
        return None
    a, b = pick(rng, sorted(pairs))
    texts = [f"are there more {Need(x).plural} than {Need(y).plural}?" for x, y in ((a, b), (b, a))]
    truth = counts[a] > counts[b]
    return QuestionPair(scene, tuple(texts), (_words(truth), _words(not truth)), opposed)


@kind
def counting(scene: Scene, rng: Generator) -> QuestionPair:
    """Is there a red circle? How many red circles are there? Yes unless the number is zero."""
    present = sorted({(obj.shape, obj.color) for obj in scene.objects})
    shape, color = pick(rng, present)
    if rng.random() < 0.5:
        absent = [c for c in COLORS if (shape, c) not in present]
        color = pick(rng, absent)
    need = Need(shape, color)
    number = sum(need.matches(obj) for obj in scene.objects)
    texts = (f"is there {need.phrase}?", f"how many {need.plural} are there?")
    return QuestionPair(scene, texts, (_words(number > 0), NUMBERS[number]), _counted)


def _counted(there: str, number: str) -> bool:
    known = there in ("yes", "no") and number in NUMBERS
    return known and (there == "yes") == (number != NUMBERS[0])


@kind
def naming(scene: Scene, rng: Generator) -> QuestionPair | None:
    """What color is the circle? Is there a red circle? Yes if the first answer is red."""
    if not (known := unique(scene, "shape")):
        return None
    obj = pick(rng, known)
    other = pick(rng, [c for c in COLORS if c != obj.color])
    color = obj.color if rng.random() < 0.5 else other

    def fits(named: str, there: str) -> bool:
        return there in ("yes", "no") and named in COLORS and (named == color) == (there == "yes")

    texts = (f"what color is the {obj.shape}?", f"is there {Need(obj.shape, color).phrase}?")
    return QuestionPair(scene, texts, (obj.color, _words(color == obj.color)), fits)


def pair(split: str, name: str, index: int) -> QuestionPair:
    """Returns pair `index` of a kind. Raises ValueError if no scene of the split suits it."""
    rng, categories = generator(split, name, index, "symmetric"), categories_of(split)
    for _ in range(TRIALS):
        category = "mixed" if "mixed" in categories else pick(rng, categories)
        shown = scene(split, int(rng.integers(2**31)), category)
        if made := KINDS[name](shown, rng):
            return made
    raise ValueError(f"split {split!r} has no scenes for {name!r}; choose another split")


def pairs(plan: Plan) -> dict[Key, QuestionPair]:
    """Returns pairs by (split, kind, index); kinds that suit no scene of a split are left out."""
    found = {}
    for split in plan.splits:
        for name in KINDS:
            try:
                found |= {(split, name, i): pair(split, name, i) for i in range(plan.prompts)}
            except ValueError:
                continue
    return found


def make(load: Callable, plan: Plan, folder: Path, _settings: dict) -> None:
    """Collects the answers to both questions of every pair."""
    asked = {
        (*key, side): (one.scene, one.texts[side])
        for key, one in pairs(plan).items()
        for side in (0, 1)
    }
    collect(load, plan, folder, asked)


def score(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns per pair whether the answers are consistent, and whether both are right."""
    asked = pairs(plan)
    known = complete(folder, [(*key, side) for key in asked for side in (0, 1)])
    items = [
        _item(key, one, [known[(*key, side)] for side in (0, 1)]) for key, one in asked.items()
    ]
    return {"model": items}, {"max_new_tokens": LONGEST}


def _item(key: Key, asked: QuestionPair, said: list[str]) -> Item:
    first, second = (" ".join(pieces(text)) for text in said)
    scores = {
        "consistent": asked.fits(first, second),
        "right": all(pieces(s) == pieces(d) for s, d in zip(said, asked.due, strict=True)),
    }
    text, split, name, index = " ".join(asked.texts), *key
    wanted = f"{text} {' '.join(asked.due)}"
    return Item(split, name, index, 0, f"{text} {index}", scores, wanted, " ".join(said))


def wrongness(items: Sequence[Item]) -> dict:
    """The error of consistency as a predictor of right answers."""
    fit, right = ([item.scores[name] for item in items] for name in ("consistent", "right"))
    found = calibration.errors(fit, right)
    found.pop("false-", None)  # right answers always fit
    return {"bias": calibration.bias(fit, right, [item.cluster for item in items])} | found


NOTE = (
    "consistent: the two answers are consistent. right: both answers are right. bias: "
    "consistent minus right. false+: the fraction of consistent pairs among those that are not "
    "both right."
)
FIELDS = ("splits", "prompts", *ANSWER_FIELDS)
register("symmetric", Task(make, score, FIELDS, wrongness, note=NOTE))
