"""The exact score of a model's images on the device, as a training goes on."""

from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

import samplers
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.scenes import scorer
from janusflow.training import init_checkpoint, rollouts, timestep_sampling
from janusflow.training.objectives.online import shape_of
from janusflow.training.rewards.prompts import Prompts
from samplers import PilotGrid

FIRST = 100_000  # index of the first prompt


class Judge:
    """The exact score of images of a model's test prompts, by several processes."""

    def __init__(self, base: Path, device: torch.device, processes: int, count: int):
        self.prompts = Prompts(init_checkpoint.batches(base), 1).test(count, FIRST)
        self.vae = load_vae(base, None).to(device)
        self.grid = PilotGrid.load(base / "pilot-fast.json")
        noise = [timestep_sampling.generator(0, 0, 8, i) for i in range(count)]
        shape = shape_of(JanusFlowModel.from_pretrained(base), self.vae)
        self.noise = torch.stack([torch.randn(shape, generator=g) for g in noise]).to(device)
        self._workers = ProcessPoolExecutor(processes, get_context("spawn"))
        list(self._workers.map(abs, range(4 * processes)))  # starts them

    @torch.no_grad()
    def teacher(self, model: nn.Module) -> dict[str, float]:
        """The score of the quality "fast" by category."""
        guidance = samplers.guidance_interval(2.0, 0, float(self.grid.settings["guided"][1]))
        ts = self.grid.ts.to(self.noise.device)
        paths = rollouts.paths(model, self.prompts, self.noise, ts, self.grid.solver, guidance)
        return self._scored(paths[:, -1])

    @torch.no_grad()
    def few(self, model: nn.Module, evaluations: int) -> dict[str, float]:
        """The score of so many jumps of a flow map."""
        ts, found = self.grid.ts.float().to(self.noise.device), []
        for first in range(0, len(self.prompts), 100):
            u = rollouts.flow_map(model, self.prompts[first : first + 100])
            x = self.noise[first : first + 100]
            for t, s in pairwise(ts[:: (len(ts) - 1) // evaluations]):
                x = x + (s - t) * u(x, t, s)
            found.append(x)
        return self._scored(torch.cat(found))

    def _scored(self, states: Tensor) -> dict[str, float]:
        images = [p.numpy() for p in rollouts.pixels_of(self.vae, states)]
        asked = [one.request for one in self.prompts]
        right = [s.strict for s in self._workers.map(scorer.score, images, asked, chunksize=20)]
        by: dict[str, list] = {"all": right}
        for one, hit in zip(asked, right, strict=True):
            by.setdefault(one.category, []).append(hit)
        return {name: round(sum(hits) / len(hits), 4) for name, hits in by.items()}
