"""Reports of an evaluation as JSON, as Markdown, and for a terminal of 80 columns."""

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from janusflow.evaluation.tasks import TASKS, find
from janusflow.utils.locked_dir import write
from janusflow.utils.safe_io import check_file
from janusflow.utils.text import printable
from janusflow.utils.typed import fits

NOTE = (
    "Brackets hold 95 % intervals. A group's is Wilson's, which treats answers as independent. "
    "The overall score is the mean of the groups, and its interval is a bootstrap over whole "
    "texts."
)
# what the files of evaluations call otherwise, so that old ones stay comparable
SHOWN_AS = {
    "reuse": "first_block_cache",
    "network_calls": "network_evaluations",
    "picture": "image",
}
WIDTH = 80
ITEM = dict(  # what each answer of a report has
    split=str, group=str, index=int, seed=int, cluster=int | str, scores=dict[str, float | bool]
)
Rows = list[list[str]]


def to_json(report: dict) -> str:
    """Returns a report as indented JSON with one line per item."""
    head = {name: value for name, value in report.items() if name != "items"}
    items = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in report["items"])
    text = json.dumps(head, indent=1, ensure_ascii=False)
    return f'{text[:-2]},\n "items": [\n  {items}\n ]\n}}\n'


def load(path: Path) -> dict:
    """Reads a report. Raises ValueError if the file is missing or is not a report."""
    try:
        report = json.loads(check_file(path).read_text(encoding="utf-8"))
        if not (report["items"] and report["scores"] and report["protocol"]["task"]):
            raise ValueError("it is empty")
        task, scores = report["protocol"]["task"], report["scores"]
        if task not in TASKS or not fits(scores, dict[str, dict]):
            raise ValueError("its task or scores are not of janusflow evaluate")
        for number, item in enumerate(report["items"]):
            if wrong := [name for name, hint in ITEM.items() if not fits(item[name], hint)]:
                raise ValueError(f"{wrong[0]} of item {number} is {item[wrong[0]]!r:.60}")
    except OSError as error:
        raise ValueError(
            f"report {str(path)!r} cannot be read ({error.strerror}); check the path"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not a report ({printable(repr(error), 120)}); give a report.json of "
            "`janusflow evaluate`"
        ) from error
    return report


def save(report: dict, folder: Path) -> list[Path]:
    """Writes report.json and report.md into the folder."""
    return [
        write(folder / "report.json", to_json(report)),
        write(folder / "report.md", markdown(report)),
    ]


def cell(entry: float | dict, full: bool = True) -> str:
    """Formats a score with its interval, if it has one and there is room."""
    if not isinstance(entry, dict):
        return f"{entry:.2f}"
    text = f"{entry['score']:.3f}"
    return f"{text} [{entry['low']:.3f}, {entry['high']:.3f}]" if full and "low" in entry else text


def table(scores: dict, full: bool = True) -> Rows:
    """Returns the table of one split: a header, one row per group, and one overall.

    Unless `full`, only the first measure has its interval.
    """
    whole = scores["overall"]
    measures, beside = list(whole["scores"]), list(whole["beside"])
    parts = [*scores["groups"].items(), ("overall", whole)]
    extras = list(dict.fromkeys(name for _, group in parts for name in group["extra"]))
    rows = [["", *(SHOWN_AS.get(m, m) for m in measures), *extras, *beside, "n"]]
    for name, group in parts:
        cells = [cell(group["scores"][m], full or m == measures[0]) for m in measures]
        cells += [cell(group["extra"][e], full) if e in group["extra"] else "" for e in extras]
        cells += [f"{group['beside'][source][measures[0]]:.3f}" for source in beside]
        rows.append([name, *cells, str(group["items"])])
    return rows


def narrow(scores: dict) -> list[str]:
    """Returns the table in 80 columns, if possible."""
    lines = aligned(table(scores))
    return lines if max(map(len, lines)) <= WIDTH else aligned(table(scores, full=False))


def aligned(rows: Rows) -> list[str]:
    """Formats a table with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def described(protocol: dict) -> list[str]:
    """Returns the protocol as lines `name: value`, with shortened digests of weight files.

    Settings without a value are left out.
    """
    values = dict(protocol)
    values["weights"] = {name: digest[:12] for name, digest in protocol["weights"].items()}
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return [f"{SHOWN_AS.get(name, name)}: {_plain(value)}" for name, value in given.items()]


def _plain(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if not isinstance(value, list):
        return str(value)
    is_range = len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return (" to " if is_range else ", ").join(map(str, value))


def terminal(report: dict) -> str:
    """Formats tables and protocol for 80 columns."""
    caution = report["protocol"].get("caution")
    blocks = ["\n".join(wrap(caution, WIDTH))] if caution else []
    for split, scores in report["scores"].items():
        blocks.append("\n".join([f"{report['protocol']['task']}, {split}", *narrow(scores)]))
    blocks.append("\n".join(wrap("; ".join(described(report["protocol"])), 80)))
    return "\n\n".join([*blocks, *_left(report)])


def markdown(report: dict) -> str:
    """Formats tables, protocol and the note on the intervals as Markdown."""
    lines = [f"# {report['protocol']['task']}", ""]
    if caution := report["protocol"].get("caution"):
        lines += [f"**{caution}**", ""]
    for split, scores in report["scores"].items():
        lines += [f"## {split}", "", *_markdown_table(table(scores)), ""]
    lines += [*_left(report), "", "## Protocol", ""]
    lines += [f"- {line}" for line in described(report["protocol"])]
    times = report["times"]
    return "\n".join([*lines, f"- started: {times['started']}, {times['seconds']} s", ""])


def _left(report: dict) -> list[str]:
    """Explains brackets and columns, or what is left to do before there are scores."""
    task = find(report["protocol"]["task"])
    text = f"{NOTE if report['items'] else ''} {task.note}" if report["scores"] else task.next
    return ["\n".join(wrap(text.strip(), WIDTH))]


def _markdown_table(rows: Rows) -> list[str]:
    rule = ["-" * 3, *["--:"] * (len(rows[0]) - 1)]
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def failures(report: dict, split: str, group: str) -> Sequence[dict]:
    """Returns the items of a group that are wrong by the first, strictest measure."""
    return [
        item
        for item in report["items"]
        if (item["split"], item["group"]) == (split, group)
        and not next(iter(item["scores"].values()))
    ]
