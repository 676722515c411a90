"""`--json` of the command line: what a command returns, as one object on stdout, nothing else."""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import wraps
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


def scripted(command: Callable[..., dict]) -> Callable[..., None]:
    """The command with one more option, `--json`: its prints are dropped and the dictionary that it
    returns is written instead. Paths become text, NaN and infinity null.
    """

    @wraps(command)
    def run(*args, as_json: bool = False, **kwargs) -> None:
        if not as_json:
            command(*args, **kwargs)
            return
        with redirect_stdout(io.StringIO()):
            result = command(*args, **kwargs)
        write(result)

    # typer reads annotations in the namespace of `run`, where those of the command mean nothing
    own = inspect.signature(command, eval_str=True).parameters
    option = inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
    )
    run.__signature__ = inspect.Signature([*own.values(), option])
    run.__annotations__ = {name: p.annotation for name, p in own.items()} | {"as_json": Json}
    return run


def write(result: dict) -> None:
    from samplers.benchmark.summary import finite

    plain = json.loads(json.dumps(result, default=str))
    json.dump(finite(plain), sys.stdout, allow_nan=False, ensure_ascii=False)
    print()
