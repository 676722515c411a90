"""Alternative option names: Python's, and those of version 0.1, which work with a warning for one
release.
"""

from collections.abc import Sequence

OLD = {
    "--batch": "--batch-size",
    "--calls": "--nfe",
    "--count": "--num-images",
    "--draw": "--figures",
    "--guidance": "--guidance-scale",
    "--limit": "--max-bad-samples",
    "--looks": "--max-trials",
    "--mask": "--mask-image",
    "--negative": "--negative-prompt",
    "--no-draw": "--no-figures",
    "--pictures": "--images",
    "--reuse": "--first-block-cache",
    "--source": "--source-prompt",
    "--start": "--init-from",
    "--until": "--guidance-end",
    "--weights": "--teacher-weights",
}
ALSO = {  # no warning: Python's longer names
    "--num-images-per-prompt": "--num-images",
    "--num-inference-steps": "--steps",
}


def renamed(args: Sequence[str], known: set[str]) -> list[str]:
    """Returns the arguments with current names, for a command that has these options."""
    words = list(args)
    for i, word in enumerate(words):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        new = OLD.get(name) or ALSO.get(name)
        if new not in known or name in known:
            continue
        if name in OLD:
            from janusflow.cli.terminal import tell

            tell(f"warning: {name} is now {new}; the old name ends with the next release")
        words[i] = new + equals + value
    return words
