"""Commands as functions of one options object: `@command()` makes them typer commands.

    @dataclass(frozen=True, kw_only=True)
    class Options(Placement):
        image: Path = argument("Describes this image.")
        words: int = OUTPUT.option("Writes at most this many words.", default=20)

    @command("describe")
    def describe(options: Options) -> dict: ...

The fields become options. `--json` prints the returned dictionary and nothing else, and `--plugin`
imports a user's module first if the command supports it.
"""

import inspect
import io
import sys
import typing
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from janusflow.cli.old_names import renamed

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Prints the result as one JSON object on stdout, and nothing else.",
        rich_help_panel="Scripts",
    ),
]
Plugins = Annotated[
    list[str],
    typer.Option(
        "--plugin",
        help="Imports this module or .py file first, which may register solvers, rewards, "
        "tasks and more; repeat for several.",
        rich_help_panel="Scripts",
    ),
]
HELP = {"help_option_names": ["-h", "--help"]}


class Interrupted(Exception):
    """Carries a signal's exception through typer, which would drop it."""

    def __init__(self, signal: KeyboardInterrupt):
        super().__init__(str(signal))
        self.signal = signal


class Ended(Exception):
    """Raised by a command that has its result and ends with an exit code other than 0."""

    def __init__(self, result: dict, code: int):
        super().__init__(code)
        self.result, self.code = result, code


class Passing:
    """A mixin of typer's classes that passes signals on."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(error) from error


class Command(Passing, TyperCommand):
    """typer's command, which also accepts old option names."""

    def parse_args(self, ctx, args):
        known = {name for p in self.params for name in (*p.opts, *p.secondary_opts)}
        return super().parse_args(ctx, renamed(args, known))


@dataclass(frozen=True)
class Registration:
    """A function with the signature that typer reads, and its place in the help."""

    name: str
    run: Callable
    panel: str

    def mount(self, app: typer.Typer) -> None:
        """Adds the command to a typer app."""
        add = app.command(self.name, cls=Command, context_settings=HELP, rich_help_panel=self.panel)
        add(self.run)


def command(name: str, panel: str = "Commands", plugins: bool = False, json: bool = True):
    """A decorator that registers a function of one options object as a command.

    The function returns a dictionary, or None if it has no JSON output.
    """

    def register(function: Callable) -> Registration:
        run = _runner(function, plugins)
        own = _parameters(_options_of(function))
        keyword = inspect.Parameter.KEYWORD_ONLY
        if plugins:
            own.append(inspect.Parameter("plugin", keyword, default=[], annotation=Plugins))
        if json:
            own.append(inspect.Parameter("as_json", keyword, default=False, annotation=Json))
        run.__name__, run.__doc__ = name, _unwrapped(function.__doc__)
        run.__signature__ = inspect.Signature(own)
        run.__annotations__ = {p.name: p.annotation for p in own}
        return Registration(name, run, panel)

    return register


def _unwrapped(doc: str) -> str:
    """Joins the lines of each paragraph, because the terminal wraps them."""
    return "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))


def _runner(function: Callable, plugins: bool) -> Callable:
    def run(*, as_json: bool = False, plugin: list[str] = (), **values) -> None:
        from janusflow.cli.terminal import Plain

        stream = io.StringIO() if as_json else Plain(sys.stdout)
        with redirect_stdout(stream):
            if plugins:
                from janusflow.utils import plugins as modules

                modules.load(plugin)
            _refuse_blank(values)
            result, code = _outcome(function, _options_of(function)(**values))
        if as_json:
            write(result)
        if code:
            raise typer.Exit(code)

    return run


MAY_BE_BLANK = ("prompt", "negative_prompt", "question", "out", "source_prompt")  # texts


def _refuse_blank(values: dict) -> None:
    """Raises ValueError for an empty option, such as an unset shell variable."""
    for name, value in values.items():
        blank = isinstance(value, str) and not value.strip()
        if blank and name not in MAY_BE_BLANK:
            shown = name if name == "model" else name.replace("_", "-")
            raise ValueError(f"--{shown} is empty; name one, or leave it out")


def _outcome(function: Callable, options) -> tuple[dict, int]:
    try:
        return function(options), 0
    except Ended as ended:
        return ended.result, ended.code


def _options_of(function: Callable) -> type:
    name = next(iter(inspect.signature(function).parameters))
    found = typing.get_type_hints(function)[name]
    assert is_dataclass(found), f"{function.__name__} takes {found}, no options object"
    return found


def declared(info: Any, default: Any) -> Any:
    """Returns a field of an options object with its typer option; the default `...` requires it."""
    known = {} if default is ... else {"default": default}
    if isinstance(default, list):
        known = {"default_factory": default.copy}
    return field(**known, metadata={"typer": info})


def _parameters(options: type) -> list[inspect.Parameter]:
    """Returns the fields as keyword parameters, the class's own before those of its bases."""
    hints = typing.get_type_hints(options, include_extras=True)
    names = [name for kind in options.__mro__ for name in inspect.get_annotations(kind)]
    known = {item.name: item for item in fields(options)}
    return [_parameter(known[name], hints[name]) for name in dict.fromkeys(names)]


def _parameter(item: Field, hint: Any) -> inspect.Parameter:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    return inspect.Parameter(
        item.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[hint, item.metadata["typer"]] if item.metadata else hint,
    )


def write(result: dict) -> None:
    """Prints one JSON object to stdout: paths as text, NaN as null, unprintable letters escaped."""
    import json

    from samplers.benchmark.summary import finite

    plain = finite(json.loads(json.dumps(result, default=str)))
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(plain, allow_nan=False)
    print(text)


class Group(Passing, TyperGroup):
    """typer's group; for a mistyped command it suggests the nearest one."""


def advice(error: Exception) -> str | None:
    """Returns the sentence for an error that the user can correct, or None for other errors."""
    if isinstance(error, OSError):
        from janusflow.utils import locked_dir

        return locked_dir.advised(error)
    if isinstance(error, ValueError | TypeError | FloatingPointError | ImportError | MemoryError):
        return str(error)
    if is_out_of_memory(error):
        return "memory is full; make smaller images or fewer at once, or choose another --dtype"
    if type(error).__name__ == "SafetensorError":  # what its library says of a full disk too
        from janusflow.utils import locked_dir

        return f"weights cannot be written or read ({error}); {locked_dir.AGAIN}"
    if hasattr(error, "format_message"):  # of the parser's own exceptions
        return _parsing(error)
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether torch ran out of memory, on a device or a CPU, whose error has no class."""
    kind = type(error).__name__
    return kind == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _parsing(error) -> str:
    """Adds the nearest known option and a hint to the parser's error."""
    ctx = getattr(error, "ctx", None)
    where = ctx.command_path if ctx else "janusflow"
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption":
        near = _nearest(option, ctx)
        said = f"{where} has no option {option}"
        return f"{said}; did you mean {near}?" if near else f"{said}; see {where} --help"
    said = error.format_message().rstrip(".")
    return said if said.endswith("?") else f"{said}; see {where} --help"


def _nearest(option: str, ctx) -> str | None:
    from difflib import get_close_matches

    names = [n for p in (ctx.command.params if ctx else []) for n in p.opts if n[:2] == "--"]
    if starts := [name for name in names if name.startswith(option)]:
        return starts[0]
    words = {name.lstrip("-"): name for name in names}
    close = get_close_matches(option.lstrip("-"), words, 1, 0.65)
    return words[close[0]] if close else None
