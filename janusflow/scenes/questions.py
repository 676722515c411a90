"""Questions about scenes with exact answers, and the vocabulary of the world of scenes."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from numpy.random import Generator

from janusflow.scenes.world import (
    COLORS,
    FRAMES,
    HELD_PAIRS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    Need,
    Obj,
    Prompt,
    Scene,
    categories_of,
    clearly,
    describe,
    generator,
    opposite,
    pick,
    relates,
    scene,
)
from janusflow.utils.keywords import choice


@dataclass(frozen=True)
class Question:
    """A question about a scene, its only correct answer, and the template that made it."""

    text: str
    answer: str
    template: str
    scene: Scene


Asked = tuple[str, str] | None
Ask = Callable[[Scene, Generator], Asked]
TEMPLATES: dict[str, Ask] = {}
PROBES: dict[str, Ask] = {}  # of evaluations alone, never asked in training


def template(ask: Ask) -> Ask:
    """A decorator that registers a template: (scene, rng) -> (question, answer), or None for an
    unsuitable scene.

    Yes and no are equally frequent: the answer is drawn first, then a question for it.
    """
    TEMPLATES[ask.__name__] = ask
    return ask


def _yes_or_no(rng: Generator, text: str, yes: list, no: list) -> Asked:
    answer, options = ("yes", yes) if rng.random() < 0.5 else ("no", no)
    return (text.format(*pick(rng, options)), answer) if options else None


def _pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(obj.shape, obj.color) for obj in scene.objects}


def _absent(scene: Scene) -> list[tuple[str, str]]:
    """Returns pairs that the scene lacks, except held-out ones, whose answer would always be no."""
    present = _pairs(scene) | HELD_PAIRS
    return [(s, c) for s in SHAPES for c in COLORS if (s, c) not in present]


@template
def existence(scene: Scene, rng: Generator) -> Asked:
    """Asks whether a shape or a coloured shape is there; absent ones are drawn uniformly."""
    shapes = {shape for shape, _ in _pairs(scene)}
    yes, no = sorted(_pairs(scene)), _absent(scene)
    if rng.random() < 0.5:
        yes = [(shape, None) for shape in sorted(shapes)]
        no = [(shape, None) for shape in SHAPES if shape not in shapes]
    phrases = [[(Need(*pair).phrase,) for pair in pairs] for pairs in (yes, no)]
    return _yes_or_no(rng, "is there {}?", *phrases)


@template
def adversarial(scene: Scene, rng: Generator) -> Asked:
    """As POPE's adversarial setting: the absent object has the shape or colour of another."""
    names = {name for pair in _pairs(scene) for name in pair}
    yes = [(Need(*pair).phrase,) for pair in sorted(_pairs(scene))]
    no = [(Need(*pair).phrase,) for pair in _absent(scene) if names & set(pair)]
    return _yes_or_no(rng, "is there {}?", yes, no)


@lru_cache
def _common() -> frozenset[tuple[str, str]]:
    """Returns the third of all coloured shapes that is most frequent in 1,000 training scenes."""
    shown = Counter(pair for i in range(1000) for pair in sorted(_pairs(scene("train", i))))
    return frozenset(pair for pair, _ in shown.most_common(len(SHAPES) * len(COLORS) // 3))


def popular(scene: Scene, rng: Generator) -> Asked:
    """As POPE's popular setting: the absent object is one of the most frequent coloured shapes."""
    yes = [(Need(*pair).phrase,) for pair in sorted(_pairs(scene))]
    no = [(Need(*pair).phrase,) for pair in _absent(scene) if pair in _common()]
    return _yes_or_no(rng, "is there {}?", yes, no)


PROBES["popular"] = popular


@template
def count(scene: Scene, rng: Generator) -> Asked:
    """Asks for the number of all objects, or of a shape or colour or both, sometimes absent."""
    shape, color = pick(rng, sorted(_pairs(scene)))
    absent = [s for s in SHAPES if s not in {o.shape for o in scene.objects}]
    what, number = pick(
        rng,
        [
            ("shapes", len(scene.objects)),
            (Need(shape).plural, sum(o.shape == shape for o in scene.objects)),
            (f"{color} shapes", sum(o.color == color for o in scene.objects)),
            (Need(shape, color).plural, sum(Need(shape, color).matches(o) for o in scene.objects)),
            (Need(pick(rng, absent)).plural, 0),
        ],
    )
    where = pick(rng, ["there", "in the picture"])
    return f"how many {what} are {where}?", NUMBERS[number]


def unique(scene: Scene, kind: str) -> list[Obj]:
    """Returns the objects that no other one equals in "shape" or in "color"."""
    counts = Counter(getattr(obj, kind) for obj in scene.objects)
    return [obj for obj in scene.objects if counts[getattr(obj, kind)] == 1]


@template
def color(scene: Scene, rng: Generator) -> Asked:
    if not (known := unique(scene, "shape")):
        return None
    obj = pick(rng, known)
    return f"what color is the {obj.shape}?", obj.color


@template
def shape(scene: Scene, rng: Generator) -> Asked:
    if not (known := unique(scene, "color")):
        return None
    obj = pick(rng, known)
    return f"what shape is the {obj.color} object?", obj.shape


@template
def relation(scene: Scene, rng: Generator) -> Asked:
    """Asks "is the circle left of the square?", or half of the time "what is left of the square?"
    where three shapes are shown.
    """
    known = unique(scene, "shape")
    if rng.random() < 0.5 and (asked := _neighbour(scene, known, rng)):
        return asked
    said = [(a, r, b) for a, b in permutations(known, 2) for r in RELATIONS if clearly(a, r, b)]
    yes = [(a.shape, r, b.shape) for a, r, b in said]
    no = [(a.shape, opposite(r), b.shape) for a, r, b in said]
    return _yes_or_no(rng, "is the {} {} the {}?", yes, no)


def _neighbour(scene: Scene, known: list, rng: Generator) -> Asked:
    """Asks only if one object is clearly in the direction and no other arguably is.

    A third shape must be there: of two shapes the other one is the answer wherever it is, so that a
    reader who sees no places would be right.
    """
    options = []
    if len({obj.shape for obj in scene.objects}) < 3:
        return None
    for obj in known:
        for name in RELATIONS:
            near = [other for other in scene.objects if relates(other, name, obj)]
            if len(near) == 1 and clearly(near[0], name, obj):
                options.append((f"what is {name} the {obj.shape}?", near[0].shape))
    return pick(rng, options) if options else None


@template
def comparison(scene: Scene, rng: Generator) -> Asked:
    """Compares the numbers of two shapes of which at least one is there."""
    counts = Counter(obj.shape for obj in scene.objects)
    options = [(a, b) for a, b in permutations(SHAPES, 2) if counts[a] + counts[b]]
    if len(counts) > 1 and rng.random() < 0.75:  # mostly between shapes that are there
        options = list(permutations(counts, 2))
    asked = {True: [], False: []}
    for a, b in options:
        asked[counts[a] > counts[b]].append((Need(a).plural, Need(b).plural))
    return _yes_or_no(rng, "are there more {} than {}?", asked[True], asked[False])


@template
def caption(scene: Scene, _rng: Generator) -> Asked:
    return "describe the picture.", describe(scene.objects)


def ask(scene: Scene, template: str, rng: Generator) -> Question | None:
    """Returns a question of one template about a scene, or None if the scene does not suit it."""
    known = TEMPLATES | PROBES
    choice("no template named", template, known)
    asked = known[template](scene, rng)
    return Question(*asked, template, scene) if asked else None


def prompt_questions(prompt: Prompt) -> list[tuple[str, str]]:
    """Returns questions and the answers that a correct image of the prompt gets.

    They ask for each required object, the number of all objects, and the relation; together they
    test the same as the strict score.
    """
    total = sum(need.count for need in prompt.needs)
    pairs = [_about(need) for need in prompt.needs]
    pairs.append(("how many shapes are there?", NUMBERS[total]))
    if prompt.relation:
        first, second = (need.shape for need in prompt.needs)
        pairs.append((f"is the {first} {prompt.relation} the {second}?", "yes"))
    return pairs


def _about(need: Need) -> tuple[str, str]:
    if need.count == 1:
        return f"is there {need.phrase}?", "yes"
    return f"how many {need.plural} are there?", NUMBERS[need.count]


def question(split: str, index: int, template: str | None = None) -> Question:
    """Returns question number `index` of a split, of a random template if none is named.

    The scenes are of the category "mixed" if the split has it, otherwise of the split's own
    ("pairs" shows shapes in colours never seen in training). Raises ValueError if no scene of the
    split suits the template.
    """
    rng = generator(split, index, template or "", "question")
    template = template or pick(rng, list(TEMPLATES))
    categories = categories_of(split)
    for _ in range(200):
        category = "mixed" if "mixed" in categories else pick(rng, categories)
        if asked := ask(scene(split, int(rng.integers(2**31)), category), template, rng):
            return asked
    raise ValueError(f"split {split!r} has no scenes for {template!r}; choose another template")


def pieces(text: str) -> list[str]:
    """Splits a text into lower-case words and punctuation marks, in order."""
    return re.findall(r"[a-z]+|[^a-z\s]", text.lower())


SPELLINGS = {"colour": "color", "Colour": "color"}  # what people write, and what is in vocabulary()


def vocabulary() -> list[str]:
    """Returns all words and marks in captions, prompts, questions and answers, sorted."""
    texts = [Need(s, c, n).phrase for s in SHAPES for c in (None, *COLORS) for n in range(1, 5)]
    texts += [frame.format("", verb="is are") for frames in FRAMES.values() for frame in frames]
    texts += [*RELATIONS, *NUMBERS, "and, yes no is the", "how many shapes are there?"]
    texts += ["what color is the", "what shape is the object", "are there more than"]
    texts += ["describe the picture."]
    return sorted({piece for text in texts for piece in pieces(text)})
