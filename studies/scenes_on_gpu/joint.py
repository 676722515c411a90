"""Images and answers learnt together: flow matching and next token, on samples of the pool."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.scenes.batches import NOISE
from janusflow.training import losses
from janusflow.training.ema import freeze_all_but
from janusflow.training.optimizers import OPTIMIZERS
from studies.scenes_on_gpu import fixed_shapes
from studies.scenes_on_gpu.graphs import Captured
from studies.scenes_on_gpu.pool import Pool, image_place
from studies.scenes_on_gpu.timed import Timed

PARTS = ("vision_encoder", "linear", "generation", "language_model")
RENEWED = 20  # steps between two chunks that are stored


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Numbers of the training. The rate is constant until the share `decay_from` of the time."""

    images: int = 384
    questions: int = 256
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    vision_rate: float = 0.3  # of the vision encoder's learning rate to the others'
    warmup: int = 200
    decay_from: float = 0.35
    mean: float = -1.5  # of logit(t)
    std: float = 1.3
    dropout: float = 0.1  # of prompts
    answer: float = 3.0  # weight of the next-token loss
    ema: tuple[float, ...] = (0.999, 0.9997)


class Trainer(Timed):
    """Trains the model in `base` on the pool."""

    def __init__(self, base: Path, pool: Pool, settings: Joint):
        self.settings, self.pool, self.device = settings, pool, pool.device
        model = JanusFlowModel.from_pretrained(base, dtype=torch.float32).to(pool.device)
        freeze_all_but(model, PARTS)
        self.begin(model, settings.ema)
        self.vae, self.place = load_vae(base, None).to(pool.device), image_place(base)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        rates = settings.lr, settings.betas, 0.0, self._rate_of
        self.optimizer = OPTIMIZERS["muon"](named, *rates)
        self.gradients = Captured(self._gradients, self.parameters)

    def _rate_of(self, name: str) -> float:
        return self.settings.vision_rate if "vision_und_enc_model" in name else 1.0

    def update(self, past: float) -> dict[str, Tensor]:
        own, (flow, next_token) = self.settings, self.gradients()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        rate = own.lr * self.rate_share(past, own.warmup, own.decay_from)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        self.optimizer.step()
        if self.step % RENEWED == 0:
            self.pool.renew(ahead=2 * self.pool.processes)
        return {"flow": flow, "answers": next_token}

    def _gradients(self) -> tuple[Tensor, Tensor]:
        flow = self._flow()
        next_token = asked(self.model, self.pool, self.settings.questions, self.place)
        (flow + self.settings.answer * next_token).backward()
        return flow.detach(), next_token.detach()

    def _flow(self) -> Tensor:
        own, samples, device = self.settings, self.pool.tensors, self.device
        chosen = torch.randint(len(samples["images"]), (own.images,), device=device)
        data = fixed_shapes.encode(self.vae, samples["images"][chosen])
        prompts = fixed_shapes.Prompts(
            samples["prompts"][chosen].long(), samples["lengths"][chosen]
        )
        noise = torch.randn_like(data)
        t = fixed_shapes.logit_normal(own.images, own.mean, own.std, device)
        dropped = torch.rand(own.images, device=device) < own.dropout
        v = fixed_shapes.velocity(
            self.model, prompts, losses.interpolate(noise, data, t), t, dropped
        )
        return losses.flow(v, noise, data).mean()


def asked(model: nn.Module, pool: Pool, count: int, place: tuple[int, int]) -> Tensor:
    """The next-token loss of `count` conversations of the pool, whose images have slight noise."""
    samples, device = pool.tensors, pool.device
    chosen = torch.randint(len(samples["seen"]), (count,), device=device)
    images = fixed_shapes.pixels(samples["seen"][chosen])
    level = NOISE * torch.rand(count, 1, 1, 1, device=device)
    images = images + level * torch.randn_like(images)
    ids, labels = samples["ids"][chosen].long(), samples["labels"][chosen].long()
    return fixed_shapes.answers(model, images, ids, labels, place).mean()
