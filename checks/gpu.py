"""What only a GPU can tell, within nine minutes on one H100:

    python -m checks.gpu --out OUT              # on the card
    python -m checks.gpu --out OUT --tiny       # the same lines on a CPU, in a minute

1. parity: the velocity in bfloat16 and compiled, against float32;
2. speed: seconds an image at the 1.3B geometry, ours against the published algorithm, batches of
   1, 4, 16 and 64, and the share of the card's measured peak;
3. training: images a second of stage 2's flow loss, forward and backward;
4. weights: the recipe scenes-mini, for the seconds that are left.

OUT/gpu.json holds the figures and the card; OUT/scenes-mini the weights. No GPU was at hand so far:
only --tiny has been run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
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

SECONDS = 520  # of the whole, starts included
BATCHES = (1, 4, 16, 64)
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
    """Compares velocities of four images at t = 0.3, in bfloat16 and compiled, with float32."""
    x, t = noise_of(model, 4, device), torch.full((4,), 0.3, device=device)

    def velocity(net) -> Tensor:
        prompt = model.encode_prompt(prompt_ids(4, device))
        return net(x.to(model.dtype), t, prompt)

    exact = velocity(model.velocity)
    model.bfloat16()
    half = velocity(model.velocity)
    compiled = velocity(torch.compile(model.velocity))
    return {"bfloat16": apart(half, exact), "compiled": apart(compiled, half)}


@torch.no_grad()
def latency(model: JanusFlowModel, device: torch.device, rounds: int, steps: int) -> list[dict]:
    """Times ours and the published algorithm, in turns, for every batch that fits."""
    most = peak(device, model.dtype, torch.get_num_threads())
    rows = []
    for batch in BATCHES:
        ids, noise = prompt_ids(batch, device), noise_of(model, batch, device)

        def ours(ids=ids, noise=noise, batch=batch) -> Tensor:
            field = speed._guided(model, ids[:1], batch, steps)
            return samplers.sample(field, noise, steps, "euler")

        def theirs(ids=ids, noise=noise) -> Tensor:
            seen = torch.ones_like(ids)
            return reference_sampler.sample(model, ids, seen, noise, steps=steps)

        try:
            taken = speed._in_turns({"ours": ours, "published": theirs}, rounds)
        except torch.OutOfMemoryError as error:
            rows.append({"batch": batch, "refused": str(error)[:100]})
            break
        with Counting() as counted:
            ours()
        mine = median(taken["ours"])
        rows.append(
            {
                "batch": batch,
                "seconds": mine / batch,
                "published": median(taken["published"]) / batch,
            }
            | {"images_per_s": batch / mine, "mfu": counted.total / mine / most}
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
    return {"images_per_s": batch / seconds, "mfu": counted.total / seconds / most, "batch": batch}


def weights(out: Path, seconds: float, tiny: bool) -> dict:
    """Trains the recipe until the time is over, and exports what it has."""
    recipe = "scenes-smoke" if tiny else "scenes-mini"
    janusflow = [sys.executable, "-m", "janusflow", "train", "-o", str(out / "run")]
    options = ["--recipe", recipe, *([] if tiny else ["--set", "run.workers=12"])]
    run = subprocess.Popen([*janusflow, *options])
    try:
        run.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGTERM)  # leaves a checkpoint
        run.wait()
    export = subprocess.run([*janusflow, "--export", str(out / recipe)], check=False)
    return {"recipe": recipe, "exported": export.returncode == 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="Writes the results to this folder."
    )
    parser.add_argument(
        "--tiny", action="store_true", help="Rehearses on the CPU with a tiny model."
    )
    args = parser.parse_args()
    started = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.tiny else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else speed.processor()
    found = {"device": card, "tiny": args.tiny, "commit": speed.commit()}
    model = build(args.tiny, device)

    def keep(name: str, value) -> None:
        found[name] = value
        (args.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{time.monotonic() - started:.0f} s: {name} {value}", flush=True)

    keep("parity", parity(model, device))
    rounds, steps = (1, 2) if args.tiny else (3, STEPS)
    keep("latency", latency(model, device, rounds, steps))
    keep("training", training(model, device, 2 if args.tiny else 16, rounds))
    del model
    keep("weights", weights(args.out, SECONDS - (time.monotonic() - started), args.tiny))


if __name__ == "__main__":
    main()
