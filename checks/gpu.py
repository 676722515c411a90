"""Measures what needs a GPU, in about nine minutes on one H200:

    python -m checks.gpu --out OUT              # on the card
    python -m checks.gpu --out OUT --tiny       # the same lines on a CPU, in a minute

1. speed: seconds an image at the 1.3B geometry, ours against the published algorithm, batches of
   1, 4, 16 and 64, and the share of the card's measured peak;
2. training: images a second of stage 2's flow loss, forward and backward;
3. weights: `studies.scenes_on_gpu.run`, which draws its samples during 1 and 2;
4. parity, beside 3: the velocity in bfloat16 and compiled, against float32.

OUT/gpu.json holds the figures and the card, OUT/run.json and the weights are those of 3. What
follows `--` on the command line are options of 3, whose two trainings take 200 s each by default.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import samplers
from janusflow.bench import reference_sampler, speed
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training.recipes import RECIPES
from janusflow.utils.flops import Counting, peak
from samplers import command_line

BATCHES = {1: 3, 4: 3, 16: 2, 64: 1}  # images at once: rounds
PROMPT, STEPS = 20, 30


def build(tiny: bool, device: torch.device) -> JanusFlowModel:
    """Builds the published geometry, or the smallest recipe's, with fresh weights and no zeros."""
    torch.manual_seed(0)
    config = RECIPES["scenes-smoke"].config(600) if tiny else JanusFlowConfig()
    with device:
        return speed.fresh(JanusFlowModel(config))


def noise_of(model: JanusFlowModel, count: int, device: torch.device) -> Tensor:
    side = 2 * int(model.config.vision.tokens**0.5)
    shape = (count, model.config.generation.latent_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)


def prompt_ids(count: int, device: torch.device) -> Tensor:
    ids = torch.randint(5, 500, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    return ids.repeat(count, 1).to(device)


def apart(a: Tensor, b: Tensor) -> float:
    """Returns the RMS distance relative to the RMS of b."""
    a, b = a.double(), b.double()
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


@torch.no_grad()
def parity(model: JanusFlowModel, device: torch.device) -> dict:
    """Compares velocities of four images at t = 0.3, in bfloat16 and compiled, with float32.

    The weights are bfloat16's in all of them.
    """
    x, t = noise_of(model, 4, device), torch.full((4,), 0.3, device=device)

    def velocity(net) -> Tensor:
        return net(x, t, model.encode_prompt(prompt_ids(4, device)))

    half = velocity(model.bfloat16().velocity)
    compiled = velocity(torch.compile(model.velocity))
    exact = velocity(model.float().velocity)
    return {"bfloat16": apart(half, exact), "compiled": apart(compiled, exact)}


@torch.no_grad()
def latency(model: JanusFlowModel, device: torch.device, batches: dict, steps: int) -> list[dict]:
    """Times ours and the published algorithm, in turns, for every batch that fits."""
    most = peak(device, model.dtype, torch.get_num_threads())
    rows = [{"peak": most}]
    for batch, rounds in batches.items():
        ids, noise = prompt_ids(batch, device), noise_of(model, batch, device)

        def ours(ids=ids, noise=noise, batch=batch, calls=steps) -> Tensor:
            field = speed._guided(model, ids[:1], batch, steps)
            return samplers.sample(field, noise, calls, "euler")

        def theirs(ids=ids, noise=noise, calls=steps) -> Tensor:
            seen = torch.ones_like(ids)
            return reference_sampler.sample(model, ids, seen, noise, steps=calls)

        try:
            with Counting() as counted:
                ours(calls=1)
            theirs(calls=1)
            taken = speed._in_turns({"ours": ours, "published": theirs}, rounds)
        except torch.OutOfMemoryError as error:
            rows.append({"batch": batch, "refused": str(error)[:100]})
            break
        mine = median(taken["ours"])
        rows.append(
            {
                "batch": batch,
                "seconds": mine / batch,
                "published": median(taken["published"]) / batch,
                "rounds": taken,
            }
            | {"images_per_s": batch / mine, "mfu": steps * counted.total / mine / most}
        )
        print(rows[-1], flush=True)
    return rows


def training(model: JanusFlowModel, device: torch.device, batch: int, rounds: int) -> dict:
    """Returns images per second of the flow loss with all gradients; each step reads a prompt."""
    model.train().requires_grad_(True)
    x, ids = noise_of(model, batch, device).to(model.dtype), prompt_ids(batch, device)
    t = torch.rand(batch, generator=torch.Generator().manual_seed(2)).to(device)

    def step() -> None:
        loss = model.velocity(x, t, model.encode_prompt(ids)).float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    with Counting() as counted:
        step()
    taken = []
    for _ in range(rounds):
        speed.finish()
        started = time.perf_counter()
        step()
        speed.finish()
        taken.append(time.perf_counter() - started)
    seconds = median(taken)
    most = peak(device, model.dtype, torch.get_num_threads())
    model.eval().requires_grad_(False)
    return {"images_per_s": batch / seconds, "mfu": counted.total / seconds / most, "batch": batch}


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="Writes the results to this folder."
    )
    parser.add_argument(
        "--tiny", action="store_true", help="Rehearses on the CPU with a tiny model."
    )
    parser.add_argument(
        "--batches",
        type=int,
        nargs="+",
        choices=BATCHES,
        default=list(BATCHES),
        help="Times these batch sizes.",
    )
    told = sys.argv[1:]
    cut = told.index("--") if "--" in told else len(told)
    args = parser.parse_args(told[:cut])
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    go = args.out / "go"
    go.unlink(missing_ok=True)
    run = [sys.executable, "-m", "studies.scenes_on_gpu.run", "--out", str(args.out)]
    weights = subprocess.Popen([*run, "--wait-for", str(go), *told[cut + 1 :]])
    device = torch.device("cuda" if torch.cuda.is_available() and not args.tiny else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else speed.processor()
    found = {"device": card, "torch": torch.__version__, "tiny": args.tiny}

    def keep(name: str, make: Callable) -> None:
        try:
            found[name] = make()
        except Exception as error:  # a figure less, and the others go on
            found[name] = f"{type(error).__name__}: {error}"[:2000]
        (args.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{time.monotonic() - started:.0f} s: {name} {found[name]}", flush=True)

    dtype = torch.float32 if args.tiny else torch.bfloat16
    model = build(args.tiny, device).to(dtype)
    batches, steps = {b: BATCHES[b] for b in args.batches}, 2 if args.tiny else STEPS
    keep("latency", lambda: latency(model, device, batches, steps))
    keep("training", lambda: training(model, device, 2 if args.tiny else 16, 1 if args.tiny else 3))
    go.touch()
    keep("parity", lambda: parity(model, device))
    keep("weights", lambda: f"exit status {weights.wait()}")
    go.unlink()
    sys.exit(weights.returncode)


if __name__ == "__main__":
    main()
