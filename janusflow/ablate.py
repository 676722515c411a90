"""Does representation alignment help here? One command trains the same small model with several
teachers and without, several seeds each, and draws the curves:

    python -m janusflow.ablate --out runs/alignment

All arms of a seed start from the same weights and see the same pictures, noises and times. A run
is saved as it ends; the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import samplers
from janusflow import ablate_world, losses, teachers, times
from janusflow.ablate_world import KINDS, Pool
from janusflow.alignment import Aligner, Alignment, build, gradient_cosine, preset
from janusflow.autoencoder import PatchAutoencoder
from janusflow.modeling_janusflow import JanusFlowModel, Prompt
from janusflow.recipes import Recipe
from janusflow.scorer import score
from janusflow.similarity import cknna
from janusflow.teachers import Cached, View

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


@dataclass(frozen=True, kw_only=True)
class Study:
    """Every number of the experiment, the same in all its arms."""

    steps: int = 500
    batch: int = 64
    pool: int = 4096  # training scenes
    lr: float = 2e-3  # of AdamW
    matrix_lr: float = 0.02  # of Muon
    warmup: int = 30
    decay_from: float = 0.7  # share of the steps after which the rate falls to zero, linearly
    ema: float = 0.99
    density_mean: float = -1.0  # of logit(t)
    density_std: float = 1.2
    prompt_drop: float = 0.1
    every: int = 50  # steps between measurements
    held_out: int = 240  # scenes for the flow loss
    pictures: int = 8  # of each prompt, for the score
    calls: int = 13  # of the sampler
    guidance: float = 2.0
    hidden: int = 96
    blocks: int = 4
    channels: int = 48

    @property
    def recipe(self) -> Recipe:
        """The geometry; the vision encoder's is the shipped model's."""
        return Recipe(
            hidden=self.hidden, blocks=self.blocks, channels=self.channels, mlp=self.hidden * 8 // 3
        )


@dataclass
class Lab:
    """What all runs of a study share."""

    study: Study
    encoder: nn.Module  # the pretrained vision encoder
    autoencoder: PatchAutoencoder
    train: Pool
    test: Pool
    texts: dict[str, Tensor]
    vocabulary: int
    features: dict[str, Tensor]  # of the training pictures, by teacher

    def model(self, seed: int) -> JanusFlowModel:
        torch.manual_seed(seed)
        model = JanusFlowModel(self.study.recipe.config(self.vocabulary))
        model.vision_und_enc_model.load_state_dict(self.encoder.state_dict())
        model.requires_grad_(True)
        model.vision_und_enc_model.requires_grad_(False)
        return model


def prepare(study: Study, folder: Path, encoder: nn.Module) -> Lab:
    made = ablate_world.autoencoder(study.recipe.latent_channels)
    texts, vocabulary = ablate_world.prompts(folder)
    train = ablate_world.pool("train", study.pool, made)
    test = ablate_world.pool("test", study.held_out, made)
    return Lab(study, encoder, made, train, test, texts, vocabulary, {})


def pretrained(path: Path | None, recipe: Recipe) -> nn.Module:
    """The shipped model's vision encoder, or that of a file, trained first where it is missing."""
    from safetensors.torch import load_file

    from janusflow import vision_training
    from janusflow.vision import VisionEncoder

    if path is None:
        return JanusFlowModel.from_pretrained("janusflow/scenes").float().vision_und_enc_model
    if not path.exists():
        vision_training.save(vision_training.pretrain(recipe), path)
    encoder = VisionEncoder(recipe.config(vocab_size=1).vision)
    encoder.load_state_dict(load_file(path))
    return encoder.requires_grad_(False).eval()


# Training


def prompt_of(lab: Lab, model: JanusFlowModel, kinds: np.ndarray, dropped: Tensor) -> Prompt:
    """The prompts of these kinds; a dropped one keeps BOS and its positions."""
    found = model.encode_prompt(**lab.texts)[torch.from_numpy(kinds)]
    first = nn.functional.one_hot(found.seen.long().argmax(dim=1), found.seen.shape[1]).bool()
    return replace(found, mask=torch.where(dropped[:, None], first, found.seen))


def aligner(lab: Lab, protocol: Alignment, model: nn.Module, average: nn.Module) -> Aligner:
    """With the features of a teacher of pixels computed once, for all runs."""
    if protocol.kind != "teacher" or protocol.teacher in ("ema", "oracle"):
        return build(protocol, model, average)
    if protocol.teacher not in lab.features:
        teacher = teachers.make(protocol.teacher, model)
        with torch.no_grad():
            views = (View(t=torch.zeros(0), pixel_values=p) for p in lab.train.pixels())
            lab.features[protocol.teacher] = torch.cat([teacher(view) for view in views])
    width = lab.features[protocol.teacher].shape[-1]
    return Aligner(protocol, lab.study.hidden, lab.study.blocks, Cached(width))


def batch(lab: Lab, seed: int, step: int, teacher: str | None) -> tuple[np.ndarray, View, Tensor]:
    """Kinds, view and dropped prompts of a step: a function of (seed, step)."""
    study, n = lab.study, lab.study.batch
    rows = torch.randint(len(lab.train), (n,), generator=times.generator(seed, step, 9))
    kinds = lab.train.kinds[rows.numpy()]
    data, everything = lab.train.latents[rows], range(n)
    dropped = times.step_uniform(seed, step, everything, n, stream=3) < study.prompt_drop
    shape = dict(mean=study.density_mean, std=study.density_std)
    view = View(
        t=times.step_times(seed, step, everything, n, "logit_normal", **shape),
        noise=torch.randn(data.shape, generator=times.generator(seed, step, 4)),
        data=data,
        features=lab.features[teacher][rows] if teacher in lab.features else None,
        objects=[lab.train.objects[i] for i in rows],
        uniform=times.step_uniform(seed, step, everything, n, stream=2),
        hidden_of=lambda model, x, t, k: model.velocity(
            x, t, prompt_of(lab, model, kinds, dropped), return_hidden=k
        )[1],
    )
    return kinds, view, dropped


def optimizers_of(study: Study, model: nn.Module, extra: nn.Module | None) -> list:
    """Muon for the matrices of the language model's blocks, AdamW for everything else."""
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


def rate(study: Study, step: int) -> float:
    """Share of the rate: linear warm-up, constant, then linearly to zero."""
    falling = (study.steps - step) / (study.steps * (1 - study.decay_from))
    return min(1.0, (step + 1) / study.warmup, falling)


def run(lab: Lab, arm: str, seed: int, bar=print) -> dict:
    """Trains one arm with one seed; what was measured, as plain numbers."""
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
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate(study, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        blend(average, model, min(study.ema, (step + 1) / (step + 10)))
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
    """The losses of a step, and before a measurement the cosine of the two gradients."""
    protocol = extra.protocol if extra else None
    kinds, view, dropped = batch(lab, seed, step, protocol.teacher if protocol else None)
    x = losses.interpolate(view.noise, view.data, view.t)
    prompt = prompt_of(lab, model, kinds, dropped)
    tap = extra.tap if extra and extra.needs_hidden(step) else lab.study.blocks
    v, hidden = model.velocity(x, view.t, prompt, return_hidden=tap)
    parts = {"flow": losses.flow(v, view.noise, view.data)}
    parts |= extra.losses(step, view, v, hidden) if extra else {}
    cosine = None
    if (step + 1) % lab.study.every == 0 and "alignment" in parts:
        cosine = gradient_cosine(parts["flow"], parts["alignment"], hidden).item()
    return parts, cosine


@torch.no_grad()
def blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    ours, theirs = zip(*((a, p) for a, p in pairs if p.requires_grad), strict=True)
    torch._foreach_lerp_(ours, theirs, 1 - decay)


# Measuring


@torch.no_grad()
def measure(lab: Lab, model: JanusFlowModel, seed: int) -> dict:
    """Held-out flow loss by time, what a wrong prompt costs, and the score of pictures."""
    return held_out(lab, model) | scene_score(lab, model, seed)


def held_out(lab: Lab, model: JanusFlowModel) -> dict:
    """Flow loss in ten parts of time on scenes never trained on, and by how much it is higher with
    the prompt of another kind; the same noises and times whenever it is called.
    """
    pool, n = lab.test, len(lab.test)
    t = (torch.arange(n) % 10 + 0.5) / 10
    noise = torch.randn(pool.latents.shape, generator=times.generator(0, 0, 5))
    x, none = losses.interpolate(noise, pool.latents, t), torch.zeros(n, dtype=torch.bool)

    def by_time(kinds: np.ndarray) -> Tensor:
        v = model.velocity(x, t, prompt_of(lab, model, kinds, none))
        sums, counts = losses.by_time(losses.flow(v, noise, pool.latents), t)
        return sums / counts

    right, wrong = by_time(pool.kinds), by_time(ablate_world.other(pool.kinds))
    return {"held_out": right.tolist(), "gap": (wrong - right).tolist()}


def scene_score(lab: Lab, model: JanusFlowModel, seed: int) -> dict:
    """Pictures of every prompt read back by the scorer: right or wrong, one after another."""
    study = lab.study
    kinds = np.repeat(np.arange(len(KINDS)), study.pictures)
    noise = torch.randn(
        (len(kinds), *lab.test.latents.shape[1:]), generator=times.generator(seed, 0, 6)
    )
    rows = torch.zeros(len(kinds), dtype=torch.bool)
    cond, uncond = (prompt_of(lab, model, kinds, rows | drop) for drop in (False, True))

    def velocity(prompt):
        return lambda x, t: model.velocity(x, torch.full((len(x),), float(t)), prompt)

    v = samplers.guide((velocity(cond), velocity(uncond)), study.guidance)
    latents = samplers.sample(v, noise, study.calls, solver="abm")
    images = lab.autoencoder.decode(latents / lab.autoencoder.config.scaling_factor).sample
    images = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    scores = [score(i, ablate_world.request(k)) for i, k in zip(images, kinds, strict=True)]
    asked = [KINDS[k][1] for k in kinds]
    colors = [[f.color for f in s.found] == [c] for s, c in zip(scores, asked, strict=True)]
    shares = {name: [getattr(s, name) for s in scores] for name in ("strict", "lenient")}
    return shares | {"color": colors}  # one object of the right colour, whatever its shape


@torch.no_grad()
def layers(lab: Lab, model: JanusFlowModel, pictures: int = 60, tokens: int = 8) -> list[float]:
    """CKNNA of every block's tokens at t = 0.5 with the vision encoder's of the clean picture."""
    pool = replace(lab.test, objects=lab.test.objects[:pictures], kinds=lab.test.kinds[:pictures])
    clean = torch.cat([lab.encoder(p) for p in pool.pixels()])
    data, t = lab.test.latents[:pictures], torch.full((pictures,), 0.5)
    noise = torch.randn(data.shape, generator=times.generator(0, 0, 7))
    prompt = prompt_of(lab, model, pool.kinds, torch.zeros(pictures, dtype=torch.bool))
    x = losses.interpolate(noise, data, t)
    rng = times.generator(0, 0, 8)
    chosen = torch.stack([torch.randperm(clean.shape[1], generator=rng)[:tokens] for _ in t])
    rows = torch.arange(pictures)[:, None]
    found = []
    for k in range(1, lab.study.blocks + 1):
        hidden = model.velocity(x, t, prompt, return_hidden=k)[1]
        found.append(cknna(hidden[rows, chosen].flatten(0, 1), clean[rows, chosen].flatten(0, 1)))
    return found


def brief(point: dict) -> str:
    low = sum(point["held_out"][:5]) / 5
    shares = [f"{name} {np.mean(point[name]):.2f}" for name in ("strict", "lenient", "color")]
    gap = sum(point["gap"]) / len(point["gap"])
    return f"step {point['step']} held-out {low:.4f} gap {gap:.4f} {' '.join(shares)}"


# The command


def go(study: Study, arms: list[str], seeds: int, out: Path, encoder: Path | None) -> list[dict]:
    """All runs, each saved as it ends; ValueError where the folder holds those of another study."""
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
            path.with_suffix(".part").write_text(json.dumps(done[arm, seed]), encoding="utf-8")
            os.replace(path.with_suffix(".part"), path)
    return [done[key] for key in todo]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ASKED)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--encoder", type=Path, help="trained vision encoder; made if missing")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the study")
    parser.add_argument("--threads", type=int, help="of torch; all cores unless told")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    study = replace(Study(), **{k: json.loads(v) for k, v in (s.split("=", 1) for s in args.set)})
    go(study, args.arms, args.seeds, args.out, args.encoder)


if __name__ == "__main__":
    main()
