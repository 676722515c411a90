"""Pairs of noise and the data that a model generates from it, the training data of reflow.

A folder holds `pairs.json` with the settings, and files of `SHARD` pairs each, complete or absent.
The data come from the guided flow, so guidance is part of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

import samplers
from janusflow.data.drawing import Scheduled, share
from janusflow.data.samples import Sample
from janusflow.scenes.batches import Batches
from janusflow.training import rollouts, timestep_sampling
from janusflow.training.objectives.map_losses import straightness
from janusflow.training.objectives.online import shape_of, times_of
from janusflow.utils import atomic_io
from janusflow.utils.safe_io import check_file, parse_object, read_text
from janusflow.utils.text import explained

SHARD = 64  # pairs of a file
TOLD = "pairs.json"
NOISE = 11  # stream of random numbers


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """How the flow is integrated, and everything else that changes the pairs."""

    model: str
    weights: str  # fingerprint
    count: int
    sampler: str = "abm"
    steps: int = 8
    times: str = ""  # the sampler's own grid unless given
    guidance: float = 2.0
    guided_until: float = 1.0
    seed: int = 0
    round: int = 1  # of reflow, counted from 1


@torch.no_grad()
def make(
    model: nn.Module,
    vae: nn.Module,
    samples: Sequence[Sample],
    settings: PairSettings,
    out: Path,
    part: tuple[int, int] = (0, 1),
) -> dict[str, float]:
    """Writes the missing files whose number is `part[0]` modulo `part[1]`.

    Sample i of `samples`, repeated to `settings.count`, starts at noise that depends on (seed, i)
    alone, so any division among processes makes the same files. Returns the mean straightness of
    the flow along these pairs, and how many were made. Raises ValueError for a folder with other
    settings.
    """
    _claim(out, settings)
    solver = samplers.core.find(settings.sampler)
    ts = times_of(settings.times, settings.steps, solver)
    until = samplers.guidance_interval(settings.guidance, 0, settings.guided_until)
    shape, bent = shape_of(model, vae), []
    shards = range(part[0], -(-settings.count // SHARD), part[1])
    todo = [n for n in shards if not whole(_file(out, n))]
    for number in tqdm(todo, desc="pairs", unit="file", disable=None):
        rows = range(number * SHARD, min((number + 1) * SHARD, settings.count))
        own = [samples[i % len(samples)] for i in rows]
        keys = (timestep_sampling.generator(settings.seed, i, NOISE) for i in rows)
        noise = torch.stack([torch.randn(shape, generator=key) for key in keys])
        paths = rollouts.paths(model, own, noise, ts, solver, until).cpu()
        bent.append(straight(paths, ts))
        _write(_file(out, number), own, noise, paths[:, -1])
    found = torch.cat(bent) if bent else torch.zeros(0)
    return {"made": len(found), "straightness": float(found.mean()) if len(found) else float("nan")}


def straight(paths: Tensor, ts: Tensor) -> Tensor:
    """Returns the straightness (B,) of trajectories (B, S, ...), by their mean velocities."""
    steps = ts.diff().to(paths).view(1, -1, *[1] * (paths.ndim - 2))
    velocities = paths.diff(dim=1) / steps
    weights = (ts.diff() / (ts[-1] - ts[0])).to(paths)
    each = [straightness(paths[:, 0], paths[:, -1], v[None]) for v in velocities.unbind(1)]
    return (torch.stack(each) * weights[:, None]).sum(dim=0)


def _claim(out: Path, settings: PairSettings) -> None:
    atomic_io.make_folder(out)
    told, path = asdict(settings), out / TOLD
    if path.is_file() and (found := parse_object(read_text(path, "config_bytes"), path)) != told:
        name = next(key for key in told if found.get(key) != told[key])
        raise ValueError(
            f"{out} holds pairs of other settings ({name} is {found.get(name)!r:.80} there, "
            f"{told[name]!r:.80} here); choose another folder"
        )
    atomic_io.write_text(path, json.dumps(told, indent=1))


def _file(out: Path, number: int) -> Path:
    return out / f"pairs-{number:05d}.safetensors"


def _write(path: Path, samples: Sequence[Sample], noise: Tensor, data: Tensor) -> None:
    lengths = torch.tensor([len(s.input_ids) for s in samples])
    ids = torch.cat([s.input_ids for s in samples])
    tensors = {"noise": noise, "data": data.contiguous(), "ids": ids, "lengths": lengths}
    atomic_io.write_tensors(path, tensors, {"names": json.dumps([s.name for s in samples])})


def whole(path: Path) -> bool:
    """Returns whether a file of pairs exists and can be read."""
    try:
        return len(read(path)) > 0
    except ValueError:
        return False


def read(path: Path) -> list[Sample]:
    """Returns a file's pairs as samples with noise. Raises ValueError if it is damaged."""
    with explained(f"{path} cannot be read", "check the file or generate the pairs again"):
        with safe_open(check_file(path), "pt") as file:
            found = {name: file.get_tensor(name) for name in ("noise", "data", "ids", "lengths")}
            names = json.loads((file.metadata() or {}).get("names", "[]"))
        rows = found["ids"].split(found["lengths"].tolist())
        parts = zip(rows, found["noise"], found["data"], names, strict=True)
    return [
        Sample(kind="generation", input_ids=ids, latents=x, extra={"noise": z}, name=name)
        for ids, z, x, name in parts
    ]


@dataclass
class Pairs(Scheduled):
    """A folder of pairs as a batch source, reshuffled each round, with questions added."""

    folder: Path
    batches: Batches
    seed: int = 0

    def settings(self) -> Mapping:
        """The pairs' settings. Raises ValueError if the folder holds none or is incomplete."""
        path = self.folder / TOLD
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no {TOLD}; generate pairs by janusflow pairs")
        told = parse_object(read_text(path, "config_bytes"), path)
        files = [_file(self.folder, n) for n in range(-(-told["count"] // SHARD))]
        if missing := [path.name for path in files if not path.exists()]:
            raise ValueError(
                f"{self.folder} lacks {len(missing)} files of pairs, the first {missing[0]}; give "
                "the command of janusflow pairs again"
            )
        return told

    def draw(self, step: int, rank: int, world: int, counts, start=None) -> list[Sample]:
        """Returns one process's equal share of the pairs of a step, followed by the questions."""
        made = counts.get("generation", 0)
        before = step * made if start is None else start.get("generation", 0)
        asked = {"understanding": counts.get("understanding", 0)}
        seed = self.seed_at(step)
        pairs = [self.pair(before + i, seed) for i in share(made, rank, world)]
        return pairs + replace(self.batches, seed=seed).draw(step, rank, world, asked)

    def pair(self, index: int, seed: int) -> Sample:
        """Returns pair number `index`, counted over all rounds, in the order of a seed."""
        count = _settings(self.folder)["count"]
        order = _order(count, index // count, seed)
        number = int(order[index % count])
        return replace(_shard(_file(self.folder, number // SHARD))[number % SHARD])


@lru_cache
def _settings(folder: Path) -> dict:
    return dict(parse_object(read_text(folder / TOLD, "config_bytes"), folder / TOLD))


@lru_cache(4)
def _order(count: int, round_: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, round_]).permutation(count)


@lru_cache(64)
def _shard(path: Path) -> list[Sample]:
    return read(path)
