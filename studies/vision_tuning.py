"""Trains only the vision encoder of a model, on scenes of coloured shapes.

python -m studies.vision_tuning --init-from janusflow/scenes --steps 600 --out seeing

Its tokens are held near the old ones, so that the language model still understands them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.scenes.shapes import SIDE
from janusflow.training import export
from janusflow.training.beginning import fitted, flow_folder
from janusflow.training.recipe_data import check_model
from janusflow.training.recipes import Recipe
from janusflow.training.vision_pretraining import pretrain, score
from janusflow.utils.devices import pick_device, use_threads
from samplers import command_line


def tune(name: str, out: Path, recipe: Recipe) -> dict[str, float]:
    """Trains the encoder for the recipe's `vision_steps` and writes the model, in float32.

    Returns the encoder's scores on the test split. Raises ValueError for a model whose encoder is
    of another library, or that reads images of another size.
    """
    under = flow_folder(name)
    check_model(under, SIDE, "the world of scenes draws")
    model = JanusFlowModel.from_pretrained(under, dtype=torch.float32)
    old = model.vision_und_enc_model
    if not isinstance(old, VisionEncoder):
        raise ValueError(
            f"the vision encoder of {name!r:.200} is a {type(old).__name__}, and the SigLIP of the "
            "recipes is expected; name a model that was trained by a recipe of scenes"
        )
    recipe = fitted(recipe, model.config, {})
    encoder, heads = pretrain(recipe, device=str(pick_device()), old=old)
    old.load_state_dict(encoder.state_dict())
    export.write(model, under, out, torch.float32)
    return score(recipe, encoder, heads)


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--init-from", default="janusflow/scenes", help="Names the model, or its folder."
    )
    parser.add_argument("--out", type=Path, required=True, help="Writes the model to this folder.")
    parser.add_argument("--steps", type=int, default=600, help="Trains for this many batches.")
    parser.add_argument("--batch", type=int, default=64, help="Takes this many scenes a batch.")
    parser.add_argument("--lr", type=float, default=1e-3, help="Sets the highest learning rate.")
    parser.add_argument("--threads", type=int, help="Uses this many threads.")
    args = parser.parse_args()
    if args.threads:
        use_threads(args.threads)
    own = dict(vision_steps=args.steps, vision_batch=args.batch, vision_lr=args.lr)
    started, recipe = time.time(), replace(Recipe(), vision_contrastive=0.0, **own)
    shown = ", ".join(f"{k} {v:.3f}" for k, v in tune(args.init_from, args.out, recipe).items())
    print(f"{args.out} after {time.time() - started:.0f} s; on the test split: {shown}")


if __name__ == "__main__":
    main()
