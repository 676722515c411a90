"""Compares two reports on the same prompts and seeds, item by item."""

from textwrap import wrap

from janusflow.evaluation.intervals import Interval, bootstrap, mcnemar, overall, share, signs
from janusflow.evaluation.report import Rows, aligned

DIFFERENT = 0.05  # p below which a pair of scores may be called different
Pairs = list[tuple[dict, dict]]


def pairs(a: dict, b: dict) -> Pairs:
    """Returns pairs of items with the same key. Raises ValueError if tasks or prompts differ."""
    tasks = [report["protocol"]["task"] for report in (a, b)]
    if tasks[0] != tasks[1]:
        raise ValueError(
            f"the reports are of the tasks {tasks[0]} and {tasks[1]}; compare reports of one task"
        )
    others = {_key(item): item for item in b["items"]}
    found = [(item, others[_key(item)]) for item in a["items"] if _key(item) in others]
    if not found:
        raise ValueError(
            "the reports have no prompt with the same seed in common; evaluate the same splits "
            "with the same seeds"
        )
    for x, y in found:
        if x["cluster"] != y["cluster"]:
            raise ValueError(
                f"prompt {x['index']} of {x['group']} is {x['cluster']!r} in one report and "
                f"{y['cluster']!r} in the other; evaluate both with one version"
            )
    return found


def _key(item: dict) -> tuple:
    return item["split"], item["group"], item["index"], item["seed"]


def differences(a: dict, b: dict) -> dict[str, tuple]:
    """Returns the protocol entries that differ, with both values."""
    one, two = a["protocol"], b["protocol"]
    names = dict.fromkeys([*one, *two])
    return {n: (one.get(n), two.get(n)) for n in names if one.get(n) != two.get(n)}


def compare(a: dict, b: dict) -> list[dict]:
    """Returns a row per split, measure and group, and one overall.

    A row holds both scores, the paired difference b - a with its interval, its p, and which is
    `better`. Neither is better if the two scores' own intervals overlap or p is not below 0.05.
    """
    both, rows = pairs(a, b), []
    for split in dict.fromkeys(x["split"] for x, _ in both):
        here = [pair for pair in both if pair[0]["split"] == split]
        names = dict.fromkeys(x["group"] for x, _ in here)
        groups = [[pair for pair in here if pair[0]["group"] == name] for name in names]
        for measure in here[0][0]["scores"]:
            rows += [_row(split, name, measure, [g]) for name, g in zip(names, groups, strict=True)]
            rows.append(_row(split, "overall", measure, groups))
    return rows


def _row(split: str, name: str, measure: str, groups: list[Pairs]) -> dict:
    right = [[(x["scores"][measure], y["scores"][measure]) for x, y in g] for g in groups]
    clusters = [[x["cluster"] for x, _ in g] for g in groups]
    flat = [pair for group in right for pair in group]
    p = _probability(flat, [cluster for group in clusters for cluster in group])
    sides = [[[pair[side] for pair in group] for group in right] for side in (0, 1)]
    scores = [sum(sum(g) / len(g) for g in side) / len(side) for side in sides]
    own = [_interval(side, clusters) for side in sides]
    change = [([float(y) - float(x) for x, y in group]) for group in right]
    low, high = bootstrap(list(zip(change, clusters, strict=True)))
    better = None
    if p < DIFFERENT and not own[0].overlaps(own[1]):
        better = "b" if scores[1] > scores[0] else "a"
    values = dict(a=scores[0], b=scores[1], difference=scores[1] - scores[0], low=low, high=high)
    place = dict(split=split, group=name, measure=measure)
    return place | values | dict(p=p, pairs=len(flat), better=better)


def _probability(flat: list[tuple], clusters: list[str]) -> float:
    """Returns p: McNemar's for right and wrong, the sign-flip test's for fractions."""
    if {value for pair in flat for value in pair} <= {0, 1}:
        return mcnemar(sum(x > y for x, y in flat), sum(y > x for x, y in flat))
    return signs([y - x for x, y in flat], clusters)


def _interval(side: list[list[float]], clusters: list[list[str]]) -> Interval:
    """Returns the report's interval: `share` for one group, the bootstrap for several."""
    if len(side) == 1:
        return share(side[0], clusters[0])
    return overall(list(zip(side, clusters, strict=True)))


def terminal(a: dict, b: dict) -> str:
    """Formats the comparison in 80 columns: differing protocol entries, then a table per split."""
    changed = [
        f"{name} {one} / {two}"
        for name, (one, two) in differences(a, b).items()
        if name != "weights"
    ]
    both = len(pairs(a, b))
    alone = len(a["items"]) + len(b["items"]) - 2 * both
    head = f"{both} pairs, {alone} answers without a partner; "
    head += "protocols differ in " + "; ".join(changed) if changed else "one protocol"
    rows: Rows = [["", "", "a", "b", "b - a", "", "p", "better"]]
    for row in compare(a, b):
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        numbers = [f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.3f}", interval]
        name = row["group"]
        rows.append([name, row["measure"], *numbers, f"{row['p']:.3f}", row["better"] or "-"])
    note = (
        "p: McNemar, exact (of shares, random signs of texts); intervals: 95 %, paired bootstrap "
        "over texts; better: only where the two scores' own intervals do not overlap and p < 0.05."
    )
    splits = ", ".join(dict.fromkeys(item["split"] for item, _ in pairs(a, b)))
    return "\n".join(
        [*wrap(head, 80), "", f"in order: {splits}", *aligned(rows), "", *wrap(note, 80)]
    )
