"""`janusflow samplers`, `grids`, `rules` and `models`: list the available names with
explanations.
"""

import inspect
import re
from dataclasses import dataclass

from janusflow.cli.command import command
from janusflow.cli.terminal import importing

PANEL = "Models and names"


@dataclass(frozen=True, kw_only=True)
class Options:
    """These commands take only `--json` and `--plugin`."""


@command("samplers", panel=PANEL, plugins=True)
def samplers(_options: Options) -> dict:
    """Lists the solvers with order, network evaluations per step (NFE), and a description."""
    with importing("importing torch"):
        from samplers import SOLVERS

    found = {}
    for name, s in SOLVERS.items():
        order = "" if s.order is None else str(s.order)
        kinds = [k for k in ("adaptive", "stochastic") if getattr(s, k)]
        found[name] = dict(order=s.order, calls=s.calls, kinds=kinds, about=_first(s.doc))
        calls = "" if s.adaptive else f"{s.calls:g}"
        _row(name, f"order {order or '-':<3} NFE {calls or '-':<3}", found[name]["about"])
    return {"samplers": found}


@command("grids", panel=PANEL, plugins=True)
def grids(_options: Options) -> dict:
    """Lists the time grids, as `--grid` takes them."""
    with importing("importing torch"):
        from samplers import GRIDS

    found = {name: _first(inspect.getdoc(place)) for name, place in GRIDS.items()}
    for name, about in found.items():
        _row(name, "", about)
    return {"grids": found}


@command("rules", panel=PANEL, plugins=True)
def rules(_options: Options) -> dict:
    """Lists the guidance rules, as `--guidance-scale` takes them, with the names of their
    numbers.
    """
    with importing("importing torch"):
        from samplers import RULES

    found = {}
    for name, make in RULES.items():
        words = [_argument(p) for p in inspect.signature(make).parameters.values()]
        found[name] = dict(written=f"{name}:{','.join(words)}", about=_first(inspect.getdoc(make)))
        _row(found[name]["written"], "", found[name]["about"])
    return {"rules": found}


@command("models", panel=PANEL)
def models(_options: Options) -> dict:
    """Lists the packaged models and the published ones on the hub."""
    from janusflow.cli.names import HUB
    from janusflow.utils.packaged import ABOUT

    found = {
        **{name: f"packaged; {about}" for name, about in ABOUT.items()},
        **dict.fromkeys(HUB, "on the hub; janusflow info forecasts its memory first"),
    }
    for name, about in found.items():
        _row(name, "", about)
    return {"models": found}


def _first(doc: str | None) -> str:
    """Returns the first sentence of a docstring on one line."""
    text = " ".join((doc or "").split("\n\n")[0].split())
    return re.split(r"(?<! al)(?<! eq)(?<! Alg)\. ", text)[0].rstrip(".")


def _argument(parameter: inspect.Parameter) -> str:
    default = parameter.default
    plain = default is parameter.empty or callable(default)
    return parameter.name if plain else f"{parameter.name}={default}"


def _row(name: str, facts: str, about: str) -> None:
    """Formats a line for 80 columns, with a hanging indent if it is longer."""
    import textwrap

    head = f"{name:<18}{facts}{'  ' if facts else ''}"
    if len(name) > 17:
        print(name)
        head = " " * 18
    print(textwrap.fill(about, 80, initial_indent=head, subsequent_indent=" " * len(head)))


COMMANDS = (samplers, grids, rules, models)
