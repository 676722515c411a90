"""Which settings of the command line belong to which family."""

from __future__ import annotations

from collections.abc import Iterable

from janusflow.pipelines.auto import FLOW, PRO

OWN = {
    FLOW: ("quality", "steps", "sampler", "grid", "height", "width", "vae", "reuse", "compile"),
    PRO: ("temperature", "top_k", "top_p"),
}
GUIDANCE = {FLOW: "2", PRO: "5"}  # as published


def given(ctx) -> set[str]:
    """Names of the options that the user wrote."""
    return {n for n in ctx.params if ctx.get_parameter_source(n).name == "COMMANDLINE"}


def check(kind: str, names: Iterable[str]) -> None:
    """ValueError for an option that this family has no use for."""
    other = FLOW if kind == PRO else PRO
    wrong = [name for name in names if name in OWN[other]]
    if wrong:
        raise ValueError(
            f"--{wrong[0].replace('_', '-')} is for {other}, and this model is of {kind}; leave it "
            f"out, or choose a model of {other}"
        )


def guidance(kind: str, text: str, names: Iterable[str]) -> str:
    """The user's guidance, or the family's own where none was written."""
    return text if "guidance" in names else GUIDANCE[kind]
