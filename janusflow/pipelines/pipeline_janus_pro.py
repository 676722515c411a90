"""Janus-Pro behind the calls of `JanusFlowPipeline`: pictures token by token, and answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from transformers import GenerationMixin

from janusflow.models.janus_pro import sampling, vq
from janusflow.models.janus_pro.image_ranking import Choice, Seeds, check_seeds
from janusflow.models.janus_pro.loading import GUIDANCE, is_original, load_model, read_config
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.pipelines.conversation import Conversation, Reread
from janusflow.pipelines.lora_mixin import Adapted
from janusflow.pipelines.outputs import check
from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.utils import finite
from janusflow.utils.atomic_io import readable
from janusflow.utils.hub import locate
from samplers.guidance import Rule

FILES = ["*.json", "*.jinja", "*.safetensors", "*.bin"]  # .bin is read as tensors only


@dataclass
class JanusProOutput(BaseOutput):
    """`images` as JanusFlow's; `tokens` (B, n); `calls`: network evaluations per picture."""

    images: list | Tensor
    tokens: Tensor
    calls: int


class JanusProPipeline(DiffusionPipeline, Adapted):
    """Janus or Janus-Pro: transformers' own model and the processor of its folder.

    `pipe(prompts)` makes pictures, `pipe.chat(text, images)` answers. `from_pretrained` reads the
    published layout and transformers', `save_pretrained` writes transformers'.
    """

    model_cpu_offload_seq = "model"
    echoes = True

    def __init__(self, model, processor: JanusProProcessor):
        super().__init__()
        self.register_modules(model=model, processor=processor)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, dtype: torch.dtype = torch.float32, **hub
    ) -> JanusProPipeline:
        """A folder or hub id in either layout; ValueError where files are missing or do not fit."""
        dtype = hub.pop("torch_dtype", dtype)
        folder = locate(name, files=FILES, **hub)
        is_original(read_config(folder))
        processor = JanusProProcessor.from_pretrained(folder)
        return cls(load_model(folder, processor, dtype), processor)

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """transformers' layout; `kwargs` such as `max_shard_size` go to the model. ValueError while
        adapters are loaded.
        """
        self._check_saved()
        self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder)
        readable(Path(folder))

    @property
    def fold(self) -> int:
        """Pixels per value of the VQ model and side; 1 but where it works on folded patches."""
        return math.isqrt(self.model.config.vq_config.out_channels // 3)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per token and side."""
        return self.fold * 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)

    @property
    def default_size(self) -> int:
        """The side of every picture in pixels."""
        return self.model.config.vq_config.num_patches * self.vae_scale_factor

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | Rule = GUIDANCE,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Seeds = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        return_dict: bool = True,
    ) -> JanusProOutput | tuple:
        """Pictures of the prompts, those of one prompt beside each other.

        `guidance_scale` is w in uncond + w (cond - uncond) of the logits, 1 for none, or a rule of
        `samplers.guidance`, for which t is the share of the picture that is done. `temperature` 0
        takes the likeliest token at every place. `generator` is one for all or one a picture: a
        picture depends on its own alone, whatever is drawn beside it. `callback_on_step_end(pipe,
        step, t, {"tokens": (B, step + 1)})` is called after each token; `pipe._interrupt = True`
        stops, and the tokens that are not there yet are 0. `output_type` is "pil", "np", "pt" or
        "latent" (the tokens). Raises ValueError for what does not fit.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        check(prompts, 1, num_images_per_prompt, output_type)
        choice = Choice(temperature=temperature, top_k=top_k, top_p=top_p)
        count = len(prompts) * num_images_per_prompt
        choose = choice.function(check_seeds(generator, count))
        combine, guided = _guidance(guidance_scale)
        follow = self.processor.prompt_ids(prompts)
        against = self._against(follow, negative_prompt) if guided else None
        places = [i for i in range(len(prompts)) for _ in range(num_images_per_prompt)]
        rows = [[ids[i] for i in places] for ids in (follow, against) if ids is not None]
        tokens = self._draw(
            rows[0], rows[1] if guided else None, combine, choose, callback_on_step_end
        )
        images = self.decode(tokens, output_type)
        self.maybe_free_model_hooks()
        calls = tokens.shape[1] * len(rows)
        if not return_dict:
            return (images, calls)
        return JanusProOutput(images=images, tokens=tokens, calls=calls)

    def _against(
        self, prompts: Sequence[sampling.Ids], negative: str | Sequence[str] | None
    ) -> list[sampling.Ids]:
        """The rows to move away from: the published unconditional one, or the given prompts."""
        if negative is None:
            return [sampling.unconditional(ids, self.processor.pad_id) for ids in prompts]
        texts = [negative] * len(prompts) if isinstance(negative, str) else list(negative)
        if len(texts) != len(prompts):
            raise ValueError(
                f"{len(texts)} negative prompts came for {len(prompts)} prompts; give one each"
            )
        return self.processor.prompt_ids(texts)

    def _draw(self, prompts, against, combine, choose, callback) -> Tensor:
        """Tokens (B, n)."""
        total = self.model.config.vq_config.num_patches**2
        tokens = torch.zeros(len(prompts), total, dtype=torch.long, device=self._execution_device)
        self._interrupt = False
        path = sampling.draw(self.model, prompts, against, combine, choose)
        with self.progress_bar(total=total) as bar:
            for step, new in enumerate(path):
                tokens[:, step] = new
                bar.update()
                if callback is not None:
                    known = tokens[:, : step + 1].clone()
                    callback(self, step, (step + 1) / total, {"tokens": known})
                if self._interrupt:
                    break
        return tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor, output_type: str = "pil"):
        """Pictures of tokens (B, n), rounded down to bytes as published; one at a time, so that a
        picture does not depend on those beside it.
        """
        if output_type == "latent":
            return tokens
        device, decode = self._execution_device, self.model.model.vqmodel.decode
        codes = self.model.config.vq_config.num_embeddings
        if tokens.ndim != 2 or not 0 <= int(tokens.min()) <= int(tokens.max()) < codes:
            raise ValueError(f"tokens must be (B, n), from 0 to {codes - 1}")
        made = [decode(row[None].to(device)).float() for row in tokens]
        finite.check_rows({"pixels": torch.cat(made)}, "after the VQ model's decoder")
        pixels = nn.functional.pixel_shuffle(torch.cat(made), self.fold)
        if output_type != "pil":
            return self.image_processor.postprocess(pixels, output_type=output_type)
        pixels = ((pixels + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
        arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return [_picture(array) for array in arrays]

    @torch.no_grad()
    def encode(self, images) -> Tensor:
        """Tokens (B, n) of pictures (PIL, arrays or tensors in [0, 1]): of each patch the code that
        points most nearly its way.
        """
        side = self.default_size
        pixels = self.image_processor.preprocess(images, height=side, width=side)
        folded = vq.fold(pixels.to(self._execution_device, self.model.dtype), self.fold)
        return vq.tokens(self.model.model.vqmodel, folded)

    def answer(self, inputs, **kwargs) -> Tensor:
        """Ids (B, L) that transformers' `generate` adds to the processor's `inputs`.

        Its Janus drops logits processors on the way to the same `GenerationMixin`.
        """
        options = {"guidance_scale": None} | finite.watched(kwargs)  # the default is for pictures
        ids = GenerationMixin.generate(self.model, **inputs, **options)
        return ids[:, inputs["input_ids"].shape[1] :]

    chat = JanusFlowPipeline.chat
    _stream, streamed = JanusFlowPipeline._stream, JanusFlowPipeline.streamed

    def conversation(self, images: Sequence = ()) -> Conversation:
        """Questions that follow each other about no, one or several pictures."""
        return Reread(self, images)


def _picture(array):
    from PIL import Image

    return Image.fromarray(array)


def _guidance(scale: float | Rule) -> tuple[sampling.Combine, bool]:
    """How logits are combined, and whether there is a second row at all."""
    if isinstance(scale, int | float) and not isinstance(scale, bool):
        if not math.isfinite(scale):
            raise ValueError(f"guidance_scale is {scale}; expected a finite number, 1 for none")
        return (lambda cond, uncond, _: uncond + scale * (cond - uncond)), scale != 1
    if not callable(scale):
        raise TypeError(f"guidance_scale is {scale!r}; expected a number or a rule")
    return (lambda cond, uncond, t: scale(cond, uncond, torch.tensor(t))), True
