"""Runs `janusflow train` as a module, for one process or several:

    python -m janusflow.train --recipe scenes-pico --out runs/pico
    accelerate launch -m janusflow.train --stage 3 --model M --data D --out runs/a

The options are those of `janusflow train`.
"""

import sys


def main() -> None:
    from janusflow.cli import main as cli

    sys.argv[1:1] = ["train"]
    cli.main()


if __name__ == "__main__":
    main()
