"""`janusflow doctor`: checks whether a model's files fit together, and how fast it runs here."""

from dataclasses import dataclass

from janusflow.cli import shared_options as o
from janusflow.cli.command import Ended, command
from janusflow.cli.shared_options import MODEL, OUTPUT
from janusflow.cli.terminal import importing
from janusflow.utils import limits

MARKS = {"ok": "ok", "warning": "warn", "problem": "FAIL"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow doctor`."""

    model: o.ModelName = o.DEFAULT
    vae: o.Vae = None
    device: o.Device = "auto"
    dtype: o.Dtype = "auto"
    speed: bool = OUTPUT.option(
        "Also measures the time of an image, which loads the model.", default=True
    )
    steps: int = MODEL.option(
        "Measures this many sampling steps and extrapolates to a whole image.", default=2
    )


@command("doctor", panel="Models and names")
def doctor(options: Options) -> dict:
    """Checks a model's tokenizer, special tokens, autoencoder, memory and seconds per image.

    The exit code is 0 if everything is right and 1 otherwise.
    """
    with importing():
        from janusflow.cli.commands import doctor_checks as checks

    limits.within("--steps", options.steps, 1, 1000)
    found = []
    for finding in checks.run(options):
        found.append(finding)
        print(_line(finding))
    wrong = [f for f in found if f.state == "problem"]
    said = f"{len(wrong)} of {len(found)} checks failed" if wrong else "nothing is wrong"
    print(f"\n{said}")
    result = dict(
        model=options.model,
        ok=not wrong,
        checks=[dict(name=f.name, state=f.state, found=f.sentence, **f.numbers) for f in found],
    )
    if wrong:
        raise Ended(result, 1)
    return result


def _line(finding) -> str:
    """Formats a finding in 80 columns, with continuation lines indented."""
    import textwrap

    head = f"{MARKS[finding.state]:<5}{finding.name:<16}"
    return textwrap.fill(finding.sentence, 80, initial_indent=head, subsequent_indent=" " * 21)
