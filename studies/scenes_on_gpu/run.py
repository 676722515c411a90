"""Trains images and answers together, then distils the result:

    python -m studies.scenes_on_gpu.run --init-from MODEL --out OUT --seconds 200 200

OUT/joint-DECAY and OUT/few-DECAY.safetensors hold the averaged weights in bfloat16, OUT/run.json
the settings, the numbers of steps and the scores on 600 test prompts; OUT/few-after-SECONDS holds
the slowest average every two minutes. The student begins with the new weights plus what
distillation had added to the packaged model's (`--student`). `--seconds 0 400` only distils.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training.recipes import Recipe
from janusflow.utils.devices import pick_device
from janusflow.utils.hub import locate
from janusflow.utils.text import explained
from samplers import command_line
from studies.scenes_on_gpu.exact_score import Judge
from studies.scenes_on_gpu.few import Distiller, Few
from studies.scenes_on_gpu.joint import Joint, Trainer
from studies.scenes_on_gpu.pool import Pool, image_place

CATEGORIES = (1, 3, 2, 1, 4, 5, 3)  # shares of SPLITS["train"]
TEMPLATES = (1, 1, 2, 1, 1, 8, 1, 3)  # shares of questions.TEMPLATES
TESTED = 600  # prompts


def student(old: Path, few: Path, device: torch.device, new: nn.Module) -> nn.Module:
    """Returns new + (few - old), weight by weight, as a model like that of `few`."""
    made = JanusFlowModel.from_pretrained(few, dtype=torch.float32).to(device)
    before = JanusFlowModel.from_pretrained(old, dtype=torch.float32).to(device).state_dict()
    with torch.no_grad():
        for (name, value), now in zip(
            made.state_dict().items(), new.state_dict().values(), strict=True
        ):
            if "vision_und" in name or not value.is_floating_point():
                value.copy_(now)
            else:
                value.add_(now - before[name])
    return made


class Log:
    """What is known of a run, printed and kept in OUT/run.json."""

    def __init__(self, out: Path):
        self._path, self._started, self._told = out / "run.json", time.monotonic(), {}
        out.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, value) -> None:
        """Adds a value, or the result of a function, whose failure does not end the run."""
        self._told[name] = value = attempted(value) if callable(value) else value
        self._path.write_text(json.dumps(self._told, indent=1) + "\n", encoding="utf-8")
        print(f"{time.monotonic() - self._started:.0f} s: {name} {value}", flush=True)


def joint(args, pool: Pool, judge: Judge, say: Log) -> nn.Module:
    """Trains images and answers; returns the model with its slowest average."""
    own = changed(Joint(), args.set, "joint")
    trainer = Trainer(locate(args.init_from), pool, own)
    if not args.seconds[0]:
        return trainer.model
    say("joint", asdict(own))
    say("joint before", lambda: judge.teacher(trainer.model))
    trainer.run(args.seconds[0], lambda past: keep(trainer, "joint", args.out, past))
    say("joint steps", trainer.step)
    for decay in own.ema:
        model = trainer.averaged(decay)
        say(f"joint {decay}", lambda own=model: judge.teacher(own))
    return model


def few(args, teacher: nn.Module, pool: Pool, judge: Judge, say: Log) -> None:
    """Distils the teacher."""
    grid, base = judge.grid, locate(args.init_from)
    own = Few(times=tuple(grid.ts.tolist()), guided_until=float(grid.settings["guided"][1]))
    own = changed(own, args.set, "few")
    first = student(locate("janusflow/scenes"), locate(args.student), pool.device, teacher)
    say("few", asdict(own))
    say("few before", lambda: {n: judge.few(first, n)["all"] for n in (4, 2, 1)})
    shape = tuple(judge.noise.shape[1:])
    distiller = Distiller(first, teacher, shape, pool, own, image_place(base))
    distiller.run(args.seconds[1], lambda past: keep(distiller, "few", args.out, past))
    say("few steps", distiller.step)
    for decay in own.ema:
        model = distiller.averaged(decay)
        say(f"few {decay}", lambda own=model: {n: judge.few(own, n) for n in (4, 2, 1)})


def keep(trainer: Trainer | Distiller, name: str, out: Path, past: float | None) -> None:
    """Writes the averaged weights in bfloat16; before the end, only the slowest average."""
    names = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    whole = trainer.model.state_dict()
    for decay, average in trainer.averages.items():
        if past and decay < max(trainer.averages):
            continue
        named = f"{name}-after-{past:.0f}" if past else f"{name}-{decay}"
        weights = whole | dict(zip(names, average, strict=True))
        halves = {k: v.detach().to("cpu", torch.bfloat16).clone() for k, v in weights.items()}
        save_file(halves, out / f"{named}.safetensors", metadata={"format": "pt"})


def main() -> None:
    args = options()
    args.set = sections(args.set)  # refused before anything is drawn
    device, say = torch.device(pick_device()), Log(args.out)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    say("device", torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    recipe = Recipe(categories=CATEGORIES, templates=TEMPLATES, seed=77)
    pool = Pool(locate(args.init_from), recipe, device, args.chunks, args.processes)
    judge = Judge(locate("janusflow/scenes"), device, min(args.processes, 8), args.tested)
    pool.fill()
    say("pool", pool.images)
    while args.wait_for and not args.wait_for.exists():
        time.sleep(0.2)
    few(args, joint(args, pool, judge, say), pool, judge, say)
    pool.close()


def options() -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--init-from", default="janusflow/scenes", help="Names the first model.")
    add("--student", default="janusflow/scenes-few", help="Names the few-step model.")
    add("--out", type=Path, required=True, help="Writes to this folder.")
    told = "Trains for the first and distils for the second number of seconds."
    add("--seconds", type=float, nargs=2, default=(200, 200), help=told)
    add("--processes", type=int, default=12, help="Draws scenes in this many processes.")
    add("--chunks", type=int, default=1000, help="Holds this many chunks of scenes on the GPU.")
    add("--set", nargs="*", default=[], help="Changes settings, such as joint.lr=1e-3.")
    add("--tested", type=int, default=TESTED, help="Scores this many prompts.")
    add("--wait-for", type=Path, help="Starts to train once this file exists.")
    return parser.parse_args()


def attempted(make):
    """Returns a score, or the error in its place, so that the training goes on."""
    try:
        return make()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:2000]


def changed(settings: Joint | Few, changes: dict[str, object], section: str):
    """Returns the settings with the changes of their section."""
    return replace(settings, **changes.get(section, {}))


def sections(told: list[str]) -> dict[str, dict[str, object]]:
    """Reads ["joint.lr=1e-3", "few.betas=[0, 0.99]"] as {"joint": {"lr": 0.001}, ...}.

    Raises ValueError for a name that is no setting, and for a value that is no JSON.
    """
    found: dict[str, dict[str, object]] = {"joint": {}, "few": {}}
    for one in told:
        name, _, value = one.partition("=")
        section, _, key = name.partition(".")
        known = {"joint": Joint, "few": Few}.get(section)
        if known is None or key not in known.__dataclass_fields__:
            raise ValueError(f"no setting named {name!r}; write --set joint.lr=1e-3, for example")
        with explained(f"--set {one} holds no value", "write it as JSON, 1e-3 or [0, 0.99]"):
            found[section][key] = json.loads(value)
    return found


if __name__ == "__main__":
    main()
