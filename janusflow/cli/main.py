"""The entry point of the command line: signals, errors as one sentence, exit codes.

0 is success, 2 an error that the user can correct, told in one sentence, 130, 143 and 129 are
Ctrl+C, SIGTERM and SIGHUP. Heavy imports happen inside the commands, so that --help answers at
once.
"""

from janusflow.cli import signals  # first and alone: until it is there, Ctrl+C is a traceback

# both speak at the import of torchao, where it is installed, of what nobody here can mend
NOISY = ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")


def main() -> None:
    """Runs the command in `sys.argv`; an error of the user's is one sentence and exit code 2."""
    before = signals.install()
    try:
        _guarded()
    finally:
        signals.restore(before)


def _guarded() -> None:
    import logging
    import sys
    import warnings

    from janusflow.cli.terminal import LONGEST_WRITE, Plain, warn

    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    own, shown = sys.stderr, warnings.showwarning
    sys.stderr, warnings.showwarning = Plain(own, LONGEST_WRITE), warn
    try:
        _run()
    except KeyboardInterrupt as error:
        signals.leave(error)
    finally:
        sys.stderr, warnings.showwarning = own, shown


def _run() -> None:
    import sys

    from janusflow.cli import command_tree

    try:
        result = command_tree.app(
            sys.argv[1:] or ["--help"], prog_name="janusflow", standalone_mode=False
        )
    except Exception as error:
        _fail(error)
    if signals.code() or result == 130:
        raise KeyboardInterrupt
    if isinstance(result, int) and result:
        sys.exit(result)


def _fail(error: Exception) -> None:
    """Prints what the user can do about an error and exits, or raises a developer's error."""
    import sys

    from janusflow.cli.command import Interrupted, advice
    from janusflow.cli.terminal import tell

    if isinstance(error, Interrupted):
        raise error.signal
    if signals.code():  # a library made an error of its own of it
        raise KeyboardInterrupt from error
    said = advice(error)
    if said is None:
        raise error
    tell(said)
    sys.exit(2)


def __getattr__(name: str):
    """Returns `app`, typer's object, for tests and documents that import it from here."""
    if name == "app":
        from janusflow.cli.command_tree import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
