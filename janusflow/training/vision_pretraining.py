"""Trains the small vision encoder as SigLIP, and to predict what lies under each patch."""

from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from janusflow.data.prefetch import ahead
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.scenes import patches
from janusflow.scenes.questions import vocabulary
from janusflow.training import schedules
from janusflow.training.recipes import Recipe
from janusflow.utils import atomic_io

KEEP = 250  # steps after which the state is written
WORDS = {word: index for index, word in enumerate(sorted(vocabulary()), start=1)}  # 0 pads


def word_ids(captions: list[str]) -> Tensor:
    """Returns words as numbers, (B, longest), padded with zeros."""
    rows = [torch.tensor([WORDS[w] for w in c.replace(",", " ,").split()]) for c in captions]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class Heads(nn.Module):
    """Modules for the training: a linear layer per patch, a text transformer, scale and bias."""

    def __init__(self, width: int):
        super().__init__()
        self.patches = nn.Linear(width, patches.OUTPUTS)
        self.words = nn.Embedding(len(WORDS) + 1, width, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(32, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.text = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def caption(self, ids: Tensor) -> Tensor:
        """Embeds word ids (B, L) to (B, width) by the mean over the words."""
        seen = ids > 0
        x = self.text(self.words(ids) + self.places[: ids.shape[1]], src_key_padding_mask=~seen)
        return (x * seen[..., None]).sum(dim=1) / seen.sum(dim=1, keepdim=True)


def sigmoid_contrastive(images: Tensor, texts: Tensor, same: Tensor, scale, bias) -> Tensor:
    """-log sigmoid(z (scale <p, t> + bias)) summed over texts, (B, D) twice -> (B,).

    p and t have unit length; z is 1 where `same` (B, B) is true and -1 elsewhere. Zhai et al. 2023
    (SigLIP), Alg. 1.
    """
    cosine = nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    return -nn.functional.logsigmoid((2 * same.float() - 1) * (scale * cosine + bias)).sum(dim=1)


def matching(encoder: VisionEncoder, heads: Heads, tokens: Tensor, captions: list[str]):
    """Returns the contrastive loss (B,) of the images' tokens, and the fraction whose caption ranks
    first.

    Images with equal captions match each other's captions.
    """
    images = encoder.vision_tower.forward_head(tokens)
    texts = heads.caption(word_ids(captions).to(tokens.device))
    same = torch.tensor([[a == b for b in captions] for a in captions], device=tokens.device)
    losses = sigmoid_contrastive(images, texts, same, heads.log_scale.exp(), heads.bias)
    cosine = nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    best = cosine.argmax(dim=1, keepdim=True)
    return losses, same.gather(1, best).float().mean().item()


def step_losses(
    recipe: Recipe, encoder: VisionEncoder, heads: Heads, batch, old: VisionEncoder | None = None
) -> tuple:
    """Returns the total loss, and the accuracies of patches and captions for the progress bar.

    With the encoder as it was, `old`, twice the squared distance to its tokens is added, as a share
    of their variance.
    """
    pixels, targets, captions = batch
    device = heads.bias.device
    tokens = encoder(pixels.to(device))
    total, right = patches.loss(heads.patches(tokens), targets.to(device))
    shown = {"loss": total.item(), "patches": right}
    if recipe.vision_contrastive:
        losses, shown["captions"] = matching(encoder, heads, tokens, captions)
        total = total + recipe.vision_contrastive * losses.mean()
    if old is not None:
        with torch.no_grad():
            wanted = old(pixels.to(device))
        moved = (tokens - wanted).square().mean() / wanted.var()
        total, shown["moved"] = total + 2 * moved, moved.item()
    return total, shown


def pretrain(
    recipe: Recipe,
    kept: Path | None = None,
    device: str = "cpu",
    workers: int = 0,
    old: VisionEncoder | None = None,
) -> tuple[VisionEncoder, Heads]:
    """Returns an encoder trained for `vision_steps` batches, and the heads it was trained with.

    It resumes from the file `kept`, which it writes every `KEEP` steps. It starts from the weights
    of `old`, if given, and stays near its tokens.
    """
    torch.manual_seed(recipe.seed)
    encoder = VisionEncoder(recipe.config(vocab_size=1).vision).to(device)
    if old is not None:
        encoder.load_state_dict(old.state_dict())
        old = old.to(device).eval()
    heads = Heads(recipe.vision_width).to(device)
    if not recipe.vision_steps:  # untrained, as a dry run wants it
        return encoder.cpu(), heads.cpu()
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.vision_lr, betas=recipe.betas)
    start = _take_up(kept, recipe, parameters, optimizer)
    steps = range(start, recipe.vision_steps)
    batches = ahead(partial(patches.batch, count=recipe.vision_batch), steps, workers)
    bar = tqdm(steps, desc="vision encoder", mininterval=5, disable=None, initial=start)
    for step, batch in zip(bar, batches, strict=True):
        total, shown = step_losses(recipe, encoder, heads, batch, old)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        if not torch.isfinite(norm):  # of the loss too, and before the weights move
            raise FloatingPointError(
                f"the vision encoder's gradient is not finite at step {step}; lower vision_lr"
            )
        for group in optimizer.param_groups:
            group["lr"] = recipe.vision_lr * _share(recipe, step)
        optimizer.step()
        bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items()}, refresh=False)
        if kept and (step + 1) % KEEP == 0:
            _keep(kept, step + 1, recipe, parameters, optimizer)
    return encoder.cpu(), heads.cpu()


def _share(recipe: Recipe, step: int) -> float:
    """Returns the fraction of the learning rate: rising for a tenth of the steps, then falling."""
    steps = recipe.vision_steps
    return schedules.share(step, steps, steps // 10, "cosine", 0.1)


def _keep(path: Path, step: int, recipe: Recipe, parameters, optimizer) -> None:
    """Writes atomically what is needed to resume from `step`."""
    tensors = {}
    for i, p in enumerate(parameters):
        state = optimizer.state[p]
        tensors |= {f"{i}.value": p.detach(), f"{i}.mean": state["exp_avg"]}
        tensors[f"{i}.square"] = state["exp_avg_sq"]
    _write(tensors, path, {"step": str(step), "recipe": recipe.to_json()})


def _take_up(path: Path | None, recipe: Recipe, parameters, optimizer) -> int:
    """Returns the step of the file, after loading its parameters and averages.

    It is 0 without a file, or if the file is of another recipe.
    """
    if path is None or not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        meta = file.metadata() or {}
        if meta.get("recipe") != recipe.to_json():
            return 0
        found = {name: file.get_tensor(name) for name in file.keys()}
    step = int(meta["step"])
    for i, p in enumerate(parameters):
        p.data.copy_(found[f"{i}.value"])
        means = {"exp_avg": found[f"{i}.mean"], "exp_avg_sq": found[f"{i}.square"]}
        own = {name: tensor.to(p.device) for name, tensor in means.items()}
        optimizer.state[p] = {"step": torch.tensor(float(step)), **own}
    return step


@torch.no_grad()
def score(recipe: Recipe, encoder: VisionEncoder, heads: Heads, batches: int = 16) -> dict:
    """Returns means over "test" batches: patch accuracy, and captions retrieved in the batch."""
    found = [
        step_losses(recipe, encoder, heads, patches.batch(i, recipe.vision_batch, "test"))[1]
        for i in range(batches)
    ]
    return {key: sum(f[key] for f in found) / batches for key in found[0]}


def save(encoder: VisionEncoder, path: Path) -> None:
    """Writes the encoder's weights atomically."""
    _write(encoder.state_dict(), path, None)


def _write(tensors: dict[str, Tensor], path: Path, meta: dict[str, str] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_io.replacing(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, meta)
