"""Training from the command line:

python -m janusflow.train --recipe scenes-pico --out runs/pico
accelerate launch -m janusflow.train --stage 3 --model M --data D --out runs/a
"""

from __future__ import annotations


def main() -> None:
    import argparse
    from pathlib import Path

    from janusflow.recipes import RECIPES
    from janusflow.training import runner, settings, worlds

    parser = argparse.ArgumentParser(description="Training of JanusFlow.")
    parser.add_argument("--recipe", choices=RECIPES, default="scenes-pico")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start", type=Path, help="run whose weights to begin with")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
    parser.add_argument("--threads", type=int, help="of torch; all cores unless told")
    parser.add_argument("--export", type=Path, help="write the model here instead of training")
    args = parser.parse_args()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    if args.export:
        return runner.export(args.out, args.export)
    recipe, rest = worlds.with_changes(RECIPES[args.recipe], settings.parse(args.set))
    runner.train_recipe(recipe, args.out, args.start, rest)


if __name__ == "__main__":
    main()
