"""Trains the same small model with several alignment teachers and without, and draws the curves:

    python -m studies.alignment.run --out runs/alignment

All arms of a seed start from the same weights and see the same images, noises and times. A run
is saved as it ends; the command goes on where it was stopped.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.training import losses, timestep_sampling
from janusflow.training.alignment import teachers
from janusflow.training.alignment.repa import (
    Aligner,
    Alignment,
    build,
    gradient_cosine,
    preset,
    watching,
)
from janusflow.training.alignment.teachers import CachedTeacher, View
from janusflow.training.schedules import share
from janusflow.utils import atomic_io
from janusflow.utils.devices import use_threads
from samplers import command_line
from studies.alignment import findings
from studies.alignment.measurements import brief, layers, measure
from studies.alignment.models import Lab, Study, prepare, pretrained, prompt_of
from studies.average_weights import move_module

ARMS: dict[str, Alignment | None] = {
    "none": None,
    "janusflow": preset("janusflow"),
    "irepa": preset("irepa"),
    "sra": preset("sra"),
    "oracle": Alignment(teacher="oracle"),
    "random": Alignment(teacher="random"),
    "dispersive": preset("dispersive"),
    "contrastive": preset("contrastive"),
}
ASKED = ("none", "janusflow", "irepa", "sra", "oracle", "random")  # unless --arms says otherwise


# Training


def aligner(lab: Lab, protocol: Alignment, model: nn.Module, average: nn.Module) -> Aligner:
    """Returns the aligner, with the features of a pixel teacher computed once for all runs."""
    if protocol.kind != "teacher" or protocol.teacher in ("ema", "oracle"):
        return build(protocol, model, average)
    if protocol.teacher not in lab.features:
        teacher = teachers.make(protocol.teacher, model)
        with torch.no_grad():
            views = (View(t=torch.zeros(0), pixel_values=p) for p in lab.train.pixels())
            lab.features[protocol.teacher] = torch.cat([teacher(view) for view in views])
    width = lab.features[protocol.teacher].shape[-1]
    return Aligner(protocol, lab.study.hidden, lab.study.blocks, CachedTeacher(width))


def batch(lab: Lab, seed: int, step: int, teacher: str | None) -> tuple[np.ndarray, View, Tensor]:
    """Returns kinds, view and dropped prompts of a step, a function of (seed, step)."""
    study, n = lab.study, lab.study.batch
    rows = torch.randint(len(lab.train), (n,), generator=timestep_sampling.generator(seed, step, 9))
    kinds = lab.train.kinds[rows.numpy()]
    data, everything = lab.train.latents[rows], range(n)
    dropped = (
        timestep_sampling.step_uniform(seed, step, everything, n, stream=3) < study.prompt_drop
    )
    shape = dict(mean=study.density_mean, std=study.density_std)
    view = View(
        t=timestep_sampling.step_times(seed, step, everything, n, "logit_normal", **shape),
        noise=torch.randn(data.shape, generator=timestep_sampling.generator(seed, step, 4)),
        data=data,
        features=lab.features[teacher][rows] if teacher in lab.features else None,
        objects=[lab.train.objects[i] for i in rows],
        uniform=timestep_sampling.step_uniform(seed, step, everything, n, stream=2),
        hidden_of=lambda model, x, t, k: model.velocity(
            x, t, prompt_of(lab, model, kinds, dropped), return_hidden=k
        )[1],
    )
    return kinds, view, dropped


def optimizers_of(study: Study, model: nn.Module, extra: nn.Module | None) -> list:
    """Returns Muon for the matrices of the language model's blocks, and AdamW for the rest."""
    blocks = {p for p in model.language_model.model.layers.parameters() if p.ndim == 2}
    others = [p for p in model.parameters() if p.requires_grad and p not in blocks]
    others += extra.parameters() if extra else []
    both = [
        torch.optim.Muon(
            [p for p in model.parameters() if p in blocks], lr=study.matrix_lr, weight_decay=0.0
        ),
        torch.optim.AdamW(others, lr=study.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in both:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return both


def run(lab: Lab, arm: str, seed: int, bar=print) -> dict:
    """Trains one arm with one seed, and returns what was measured as plain numbers."""
    study, protocol = lab.study, ARMS[arm]
    model = lab.model(seed)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    extra = aligner(lab, protocol, model, average) if protocol else None
    learns = [p for p in model.parameters() if p.requires_grad]
    if extra:
        torch.manual_seed(seed)
        learns += extra.parameters()
    optimizers = optimizers_of(study, model, extra)
    points, started, conflict = [], time.process_time(), None
    for step in range(study.steps):
        parts, cosine = compute(lab, model, extra, seed, step)
        weights = {"flow": 1.0} | (
            {name: protocol.strength(step) for name in parts if name != "flow"}
        )
        total = sum(weights[name] * part.mean() for name, part in parts.items())
        conflict = cosine if cosine is not None else conflict
        total.backward()
        nn.utils.clip_grad_norm_(learns, 1.0)
        falls = share(step, study.steps, study.warmup, "linear", study.decay_from)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * falls
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        move_module(average, model, study.ema, step + 1)
        if (step + 1) % study.every == 0:
            now = {"step": step + 1} | {k: v.mean().item() for k, v in parts.items()}
            points.append(now | {"gradient_cosine": conflict} | measure(lab, average, seed))
            bar(f"{arm} {seed}: {brief(points[-1])}")
    return {
        "arm": arm,
        "seed": seed,
        "protocol": asdict(protocol) if protocol else None,
        "study": asdict(study),
        "cpu_seconds": round(time.process_time() - started, 1),
        "points": points,
        "cknna": layers(lab, average),
    }


def compute(lab, model, extra, seed, step) -> tuple[dict[str, Tensor], float | None]:
    """Returns the losses of a step, and before a measurement the cosine of the two gradients."""
    protocol = extra.protocol if extra else None
    kinds, view, dropped = batch(lab, seed, step, protocol.teacher if protocol else None)
    x = losses.interpolate(view.noise, view.data, view.t)
    prompt = prompt_of(lab, model, kinds, dropped)
    tap = extra.tap if extra and extra.needs_hidden(step) else lab.study.blocks
    with watching(model, tap) as states:
        v, hidden = model.velocity(x, view.t, prompt, return_hidden=tap)
    parts = {"flow": losses.flow(v, view.noise, view.data)}
    parts |= extra.losses(step, view, v, hidden) if extra else {}
    cosine = None
    if (step + 1) % lab.study.every == 0 and "alignment" in parts:
        cosine = gradient_cosine(parts["flow"], parts["alignment"], states[-1]).item()
    return parts, cosine


# The command


def go(study: Study, arms: list[str], seeds: int, out: Path, encoder: Path | None) -> list[dict]:
    """Runs all arms and seeds, and saves each. Raises ValueError for another study's folder."""
    out.mkdir(parents=True, exist_ok=True)
    todo = [(arm, seed) for seed in range(seeds) for arm in arms]
    done = {}
    for arm, seed in todo:
        path = out / f"{arm}-{seed}.json"
        if path.exists():
            done[arm, seed] = json.loads(path.read_text(encoding="utf-8"))
            if done[arm, seed]["study"] != asdict(study):
                raise ValueError(f"{path} belongs to another study; choose another folder")
    if len(done) < len(todo):
        lab = prepare(study, out / "base", pretrained(encoder, study.recipe))
    for arm, seed in todo:
        if (arm, seed) not in done:
            done[arm, seed] = run(lab, arm, seed, bar=lambda line: print(line, flush=True))
            path = out / f"{arm}-{seed}.json"
            atomic_io.write_text(path, json.dumps(done[arm, seed]))
    return [done[key] for key in todo]


def changed(settings: list[str]) -> Study:
    """Returns the study with NAME=VALUE set. Raises ValueError for an unknown name."""
    pairs = dict(s.split("=", 1) if "=" in s else (s, "null") for s in settings)
    known = [f.name for f in fields(Study)]
    if unknown := sorted(pairs.keys() - set(known)):
        raise ValueError(f"the study has no number {unknown[0]!r}; it has {', '.join(known)}")
    try:
        return Study(**{name: json.loads(value) for name, value in pairs.items()})
    except json.JSONDecodeError as error:
        raise ValueError(f"{settings} does not read as NAME=NUMBER ({error})") from error


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Stores the runs in this folder.")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ASKED, help="Trains these arms.")
    parser.add_argument(
        "--seeds", type=int, default=2, help="Trains each arm with this many seeds."
    )
    parser.add_argument(
        "--encoder", type=Path, help="Reads the vision encoder; trains it if missing."
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="Changes these settings of the study.",
    )
    parser.add_argument(
        "--threads", type=int, help="Runs torch on this many threads; by default all."
    )
    args = parser.parse_args()
    use_threads(args.threads)
    runs = go(changed(args.set), args.arms, args.seeds, args.out, args.encoder)
    print(findings.table(findings.save(runs, args.out / "summary.json")))


if __name__ == "__main__":
    main()
