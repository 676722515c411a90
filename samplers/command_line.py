"""Parsers of the modules that run as programs."""

import argparse


class Defaults(argparse.HelpFormatter):
    """Ends an option's help with its default, unless the text names it or there is none."""

    def _get_help_string(self, action: argparse.Action) -> str:
        default, text = action.default, action.help
        none = default is None or default is False or default in ([], "", argparse.SUPPRESS)
        if none or not action.option_strings or "default" in text:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
        return f"{text} [default: {shown.replace('%', '%%')}]"


def parser(doc: str, **settings) -> argparse.ArgumentParser:
    """Returns a parser that the first paragraph of a module's docstring describes, without the
    command that may end it.
    """
    text = doc.partition("\n\n")[0].partition(": python ")[0].partition(":\npython ")[0]
    description = text.rstrip(":.") + "."
    return argparse.ArgumentParser(description=description, formatter_class=Defaults, **settings)


def positionals(doc: str, **each: tuple) -> dict:
    """Returns the positional arguments of the running program by name.

    Each is given as (type, default, help); the default `...` makes the argument required.
    """
    made = parser(doc)
    for name, (kind, default, text) in each.items():
        optional = {} if default is ... else {"nargs": "?", "default": default}
        made.add_argument(name, type=kind, help=text, **optional)
    return vars(made.parse_args())
