"""Janus-Pro with the interface of `JanusFlowPipeline`: images token by token, and answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationMixin, JanusForConditionalGeneration

from janusflow.models.family import PRO, check_family
from janusflow.models.janus_pro import token_sampling, vq
from janusflow.models.janus_pro.loading import GUIDANCE, is_original, load_model, read_config
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janus_pro.token_choice import TokenChoice
from janusflow.pipelines import memory
from janusflow.pipelines.base import BasePipeline, check_loading, check_saving, clean, read_dtype
from janusflow.pipelines.call_options import Texts, avoided, check_output_type, takes, texts
from janusflow.pipelines.call_state import Call, StepCallback
from janusflow.pipelines.conversation import Reread
from janusflow.pipelines.generators import generators, warn_unused
from janusflow.pipelines.guided_velocity import read_guidance
from janusflow.pipelines.outputs import Shown
from janusflow.pipelines.token_draws import drawing
from janusflow.utils import finite, images
from janusflow.utils.atomic_io import readable
from janusflow.utils.checkpoint_files import one_layout
from janusflow.utils.hub import locate
from janusflow.utils.limits import whole
from janusflow.utils.typed import is_number
from samplers.guidance import Rule

GREEDY = "temperature 0 takes the likeliest token at every place; leave it out"
FILES = ["*.json", "*.jinja", "*.safetensors", "*.bin"]  # .bin is read as tensors only


@dataclass
class JanusProOutput(Shown, BaseOutput):
    """The images of `pipe(prompt)` and their `tokens` (B, n).

    `calls` is the network evaluations (NFE) per image; `captions` is one text per image, for
    notebooks.
    """

    images: list[Image.Image]
    tokens: Tensor
    calls: int
    captions: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """Options of Janus-Pro's `pipe(prompt)`."""

    negative_prompt: Texts | None = None  # what to move away from; None and "" for the empty prompt
    guidance_scale: float | str | Rule | None = None  # w in uncond + w (cond - uncond), 1 for none;
    # None: that of the model's generation_config.json, or the published 5
    temperature: float = 1.0  # 0 takes the likeliest token at every place
    top_k: int | None = None  # of the likeliest tokens, None for all
    top_p: float | None = None  # share of the probability that is kept, None for all
    num_images_per_prompt: int = 1
    generator: object = None  # a torch.Generator or its seed, or a list with one an image
    seed: object = None  # of the first image, the next has seed + 1; or a list with one an image
    output_type: str = "pil"  # pil, np, pt or latent (the tokens)
    callback_on_step_end: Callable | None = None  # (pipe, step, t, tensors) -> None
    callback_on_step_end_tensor_inputs: Sequence[str] | None = ("tokens",)
    adapters: object = None  # {name: weight} or names; None: those that are active
    return_dict: bool = True  # False: a tuple (images, calls)

    def __post_init__(self):
        count = whole(self.num_images_per_prompt, "num_images_per_prompt")
        object.__setattr__(self, "num_images_per_prompt", count)
        if self.guidance_scale is not None:
            object.__setattr__(self, "guidance_scale", read_guidance(self.guidance_scale))
        object.__setattr__(self, "top_k", whole(self.top_k, "top_k", optional=True))
        check_output_type(self.output_type)


class JanusProPipeline(BasePipeline):
    """Janus or Janus-Pro: transformers' model and the processor of its folder.

    `pipe(prompts)` generates images and `pipe.chat(text, images)` answers. `from_pretrained` reads
    the published layout and transformers'; `save_pretrained` writes transformers'.
    """

    model_cpu_offload_seq = "model"
    echoes = True
    for_images = ("guidance_scale",)
    conversation_class = Reread
    _callback_tensor_inputs = ("tokens",)

    def __init__(self, model: JanusForConditionalGeneration, processor: JanusProProcessor):
        super().__init__(model=model, processor=processor)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        dtype: torch.dtype | str | None = None,
        *,
        model: JanusForConditionalGeneration | None = None,
        processor: JanusProProcessor | None = None,
        **given,
    ) -> JanusProPipeline:
        """Loads a folder or hub id in either layout; keywords are those of
        `JanusFlowPipeline.from_pretrained`.

        Components that are given are used as they are. Raises ValueError if files are missing or do
        not fit, and TypeError for an unknown keyword.
        """
        where = f"{cls.__name__}.from_pretrained"
        hub = check_loading(where, given, ("model", "processor"))
        if given.get("variant") is not None:
            raise ValueError(
                "variant is given, and Janus-Pro is published without variants; leave it out and "
                "choose a dtype"
            )
        dtype = read_dtype(dtype, given.get("torch_dtype"))
        folder = locate(name, files=FILES, **hub)
        if model is None:
            check_family(folder, PRO)
        is_original(read_config(folder))
        processor = processor or JanusProProcessor.from_pretrained(folder)
        model = model if model is not None else load_model(folder, processor, dtype)
        return cls(model, processor)._placed(given.get("device_map"))

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """Writes transformers' layout; `kwargs` such as `max_shard_size` go to the model.

        Raises ValueError while adapters are loaded.
        """
        kwargs = check_saving(self, kwargs)
        folder = clean(folder)
        with one_layout(folder, "model", kwargs.get("variant")):
            self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder)
        readable(folder)

    @property
    def positions(self) -> int:
        """The number of positions of the language model."""
        return self.model.config.text_config.max_position_embeddings

    @property
    def own_guidance(self) -> float:
        """The default guidance weight: generation_config.json's, or the published one."""
        told = self.model.generation_config.guidance_scale
        return GUIDANCE if told is None else float(told)

    @property
    def fold(self) -> int:
        """Pixels per value of the VQ model along each side; 1 unless it works on folded patches."""
        return math.isqrt(self.model.config.vq_config.out_channels // 3)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per token along each side."""
        return self.fold * 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)

    @property
    def default_size(self) -> int:
        """The side of every generated image in pixels."""
        return self.model.config.vq_config.num_patches * self.vae_scale_factor

    @takes(TokenOptions)
    def __call__(self, prompt: Texts, options: TokenOptions) -> JanusProOutput:
        """Generates images from prompts; images of one prompt are adjacent.

        `guidance_scale` is w in uncond + w (cond - uncond) of the logits, where 1 means none, or a
        rule of `samplers.guidance`, for which t is the completed fraction of the image; the default
        is `own_guidance`. `temperature` 0 takes the most likely token. `seed` gives each image a
        generator of its own, and `generator` is one for all or one per image; with its own
        generator an image does not depend on its batch.

        `callback_on_step_end(pipe, step, t, {"tokens": (B, step + 1)})` is called after each token
        and cannot change it. In it, `pipe._interrupt = True` ends this call, with the missing
        tokens set to 0, and `pipe.guidance_scale = w` changes its guidance. `output_type` is "pil",
        "np", "pt" or "latent" (the tokens). Raises ValueError for options that do not fit together.
        """
        prompts, total = texts(prompt), self.model.config.vq_config.num_patches**2
        choice = TokenChoice(
            temperature=options.temperature, top_k=options.top_k, top_p=options.top_p
        )
        count = len(prompts) * options.num_images_per_prompt
        choose = choice.function(generators(options.generator, options.seed, count))
        if options.temperature == 0:
            warn_unused(None, options.seed, GREEDY)
        scale = self.own_guidance if options.guidance_scale is None else options.guidance_scale
        _check_guidance(scale)
        guided = scale != 1
        follow = self.processor.prompt_ids(prompts)
        self._limit_positions(max(map(len, follow)) + total, "a prompt with its image")
        against = self._against(follow, options.negative_prompt) if guided else None
        memory.check_room(count, self._row_bytes(total), self._execution_device)
        places = [i for i in range(len(prompts)) for _ in range(options.num_images_per_prompt)]
        rows = [[ids[i] for i in places] for ids in (follow, against) if ids is not None]
        callback = self._callback(options)
        state = dict(num_timesteps=total, guidance_scale=scale)
        with self._call(options.adapters, **state) as call:
            tokens = self._draw(call, rows[0], rows[1] if guided else None, choose, callback)
            images = self.decode(tokens, options.output_type)
        calls = tokens.shape[1] * len(rows)
        if not options.return_dict:
            return (images, calls)
        captions = [prompts[i] for i in places]
        return JanusProOutput(images=images, tokens=tokens, calls=calls, captions=captions)

    def _row_bytes(self, tokens: int) -> int:
        """Returns the bytes of keys and values of an image's tokens, with the unconditional row."""
        text = self.model.config.text_config
        width = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
        return 4 * text.num_hidden_layers * width * tokens * self.model.dtype.itemsize

    def _against(
        self, prompts: Sequence[token_sampling.Ids], negative: Texts | None
    ) -> list[token_sampling.Ids]:
        """Returns the rows to guide away from: the published unconditional, or negative prompts."""
        told, pad = avoided(negative, len(prompts)), self.processor.pad_id
        return [
            self.processor.prompt_ids([text])[0] if text else token_sampling.unconditional(ids, pad)
            for text, ids in zip(told, prompts, strict=True)
        ]

    def _draw(self, call: Call, prompts, against, choose, callback: StepCallback | None) -> Tensor:
        """Returns tokens (B, n); those after an interrupt are 0."""
        total = call.num_timesteps
        tokens = torch.zeros(len(prompts), total, dtype=torch.long, device=self._execution_device)

        def combine(cond: Tensor, uncond: Tensor, t: float) -> Tensor:
            return _combined(call.guidance_scale, cond, uncond, t)

        path = token_sampling.draw(self.model, prompts, against, combine, choose)
        with self.progress_bar(total=total) as bar:
            for step, new in enumerate(path):
                tokens[:, step] = new
                bar.update()
                if callback is not None:
                    known = {"tokens": tokens[:, : step + 1]}
                    if callback.changed(self, step, (step + 1) / total, known):
                        raise ValueError(
                            "the callback returned other tokens, and tokens of an image stay as "
                            "drawn; let the callback return None"
                        )
                if call.interrupt:
                    break
        return tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor, output_type: str = "pil"):
        """Decodes tokens (B, n) to images, rounded down to bytes as published.

        It decodes one at a time, so that an image does not depend on others in the batch.
        """
        if output_type == "latent":
            return tokens
        device, decode = self._execution_device, self.model.model.vqmodel.decode
        codes = self.model.config.vq_config.num_embeddings
        if tokens.ndim != 2 or not 0 <= int(tokens.min()) <= int(tokens.max()) < codes:
            raise ValueError(
                "tokens have another shape or range than expected; give shape (B, n) with numbers "
                f"from 0 to {codes - 1}"
            )
        made = [decode(row[None].to(device)).float() for row in tokens]
        finite.check_rows({"pixels": torch.cat(made)}, "after the VQ model's decoder")
        pixels = nn.functional.pixel_shuffle(torch.cat(made), self.fold)
        if output_type != "pil":
            return self.image_processor.postprocess(pixels, output_type=output_type)
        pixels = ((pixels + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
        arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(array) for array in arrays]

    @torch.no_grad()
    def encode(self, images_given) -> Tensor:
        """Encodes one image or several to tokens (B, n), after resizing them to the model's side.

        Each patch gets the code with the largest cosine similarity.
        """
        side = self.default_size
        given = images.listed(images_given)
        pixels = torch.cat([images.to_tensor(images.fitted(one, side, side)) for one in given])
        folded = vq.fold((2 * pixels - 1).to(self._execution_device, self.model.dtype), self.fold)
        return vq.tokens(self.model.model.vqmodel, folded)

    def answer(self, inputs, *, seed: int | None = None, **kwargs) -> Tensor:
        """Returns the ids (B, L) that transformers' `generate` adds to the processor's `inputs`.

        Its Janus class drops logits processors on the way to `GenerationMixin`, so this calls the
        latter. Row i draws sampled tokens from `seed` + i.
        """
        options = {"guidance_scale": None} | finite.watched(kwargs)  # the default is for images
        with drawing(seed):
            ids = GenerationMixin.generate(self.model, **inputs, **options)
        return ids[:, inputs["input_ids"].shape[1] :]


def _check_guidance(scale: float | Rule) -> None:
    """Raises ValueError or TypeError for guidance that is neither a weight nor a rule."""
    number = is_number(scale)
    if number and not math.isfinite(scale):
        raise ValueError(f"guidance_scale is {scale}; expected a finite number, 1 for none")
    if not number and not callable(scale):
        raise TypeError(f"guidance_scale is {scale!r}; expected a number or a rule")


def _combined(scale: float | Rule, cond: Tensor, uncond: Tensor, t: float) -> Tensor:
    """Combines the logits of both rows by a weight or a rule."""
    if callable(scale):
        return scale(cond, uncond, torch.tensor(t))
    return uncond + scale * (cond - uncond)
