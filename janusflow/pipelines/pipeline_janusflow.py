"""From prompts to pictures and from pictures to answers, as a diffusers pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

import samplers
from janusflow.models.autoencoder_loading import load_vae, vae_dtype
from janusflow.models.janusflow.compiled import Compiled
from janusflow.models.janusflow.first_block_cache import Reuse
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.prompt_cache import Prompt
from janusflow.pipelines import editing, memory, prefix_cache
from janusflow.pipelines.conversation import Conversation
from janusflow.pipelines.lora_mixin import Adapted
from janusflow.pipelines.outputs import JanusFlowOutput, KnownTimes, Seeds, check, seeded
from janusflow.pipelines.presets import grid_file, read_grids, resolve
from janusflow.utils import finite
from janusflow.utils.atomic_io import readable
from janusflow.utils.hub import locate


class JanusFlowPipeline(DiffusionPipeline, Adapted):
    """JanusFlow with its processor and autoencoder.

    `pipe(prompts)` makes pictures, `pipe.chat(text, images)` answers. `save_pretrained` writes the
    published layout with the autoencoder in `vae/`, and `from_pretrained` reads it.
    """

    model_cpu_offload_seq = "model->vae"
    _compiled: Compiled | None = None
    _limit: int | None = None  # bytes that decoding may take
    echoes = False  # whether the model's `generate` gives the prompt back before the answer

    def __init__(self, model: JanusFlowModel, processor: JanusFlowProcessor, vae):
        super().__init__()
        self.register_modules(model=model, processor=processor, vae=vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self.grids: dict[str, samplers.PilotGrid] = {}  # the model's own, by quality

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        vae: str | Path | torch.nn.Module | None = None,
        dtype: torch.dtype = torch.float32,
        quantization_config=None,
        **hub,
    ) -> JanusFlowPipeline:
        """A folder or hub id in the published layout; the autoencoder is in its `vae/` or is named.

        float16 is for the network alone: the autoencoder then runs in float32, because the SDXL
        autoencoder overflows in float16. `quantization_config` (transformers' `TorchAoConfig`, or
        `loading.eight_bit()`) is for the network too. Raises ValueError where files are missing or
        do not fit.
        """
        dtype = hub.pop("torch_dtype", dtype)
        folder = locate(name, **hub)
        coded = dict(quantization_config=quantization_config) if quantization_config else {}
        model = JanusFlowModel.from_pretrained(folder, dtype=dtype, **coded).eval()
        processor = JanusFlowProcessor.from_pretrained(folder)
        processor.check_fits(model.config.language_config.vocab_size)
        if not isinstance(vae, torch.nn.Module):
            vae = load_vae(folder, vae, vae_dtype(dtype), **hub)
        elif vae.dtype != vae_dtype(dtype):
            vae = vae.to(vae_dtype(dtype))
        pipe = cls(model, processor, vae.eval())
        pipe.grids = read_grids(folder)
        return pipe

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """The published layout, with `vae/`; `kwargs` such as `max_shard_size` go to the model.

        ValueError while adapters are loaded.
        """
        self._check_saved()
        self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder)
        self.vae.save_pretrained(Path(folder) / "vae")
        readable(Path(folder))
        for name, grid in self.grids.items():
            grid.save(grid_file(folder, name))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent and side."""
        return memory.factor(self.vae)

    @property
    def default_size(self) -> int:
        """The side in pixels that the model was trained for."""
        return self.model.config.vision.image_size

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        quality: str = "exact",
        num_inference_steps: int | None = None,
        guidance_scale: float | Callable = 2.0,
        sampler: str | samplers.Solver | None = None,
        grid: str | Tensor | Callable[[int], Tensor] | None = None,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        generator: Seeds = None,
        latents: Tensor | None = None,
        reuse: float | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        return_dict: bool = True,
    ) -> JanusFlowOutput | tuple:
        """Pictures of the prompts, those of one prompt beside each other.

        `quality` is "exact" (Euler, 30 steps), "high", "fast" or "draft" (presets.py), on
        the model's own pilot grid where `pipe.grids` has one; what is given beside it takes the
        place of the preset's.
        `sampler` names one of `samplers.SOLVERS`, which takes `num_inference_steps` steps on
        `grid` (a name of `samplers.GRIDS`, a rule, or times from 0 to 1). `guidance_scale` is a
        number or any rule of `samplers.guidance`; `negative_prompt` takes the empty prompt's place.
        `latents` (pictures, channels, height / 8, width / 8) is the noise to start from; otherwise
        it comes from `generator`, one for all or one a picture. `reuse` is the tolerance of
        models/janusflow/first_block_cache.py, which leaves blocks out where little changes.
        `callback_on_step_end(pipe, step, t, {"latents": x})` may return other latents to go on
        from; `pipe._interrupt = True` stops.
        `output_type` is "pil", "np", "pt" or "latent". Raises ValueError for what does not fit.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        chosen = resolve(quality, self.grids, sampler=sampler, steps=num_inference_steps, grid=grid)
        check(prompts, chosen.steps, num_images_per_prompt, output_type)
        solver, ts = chosen.path()
        solver = seeded(solver, generator)
        noise = self.prepare_latents(
            len(prompts) * num_images_per_prompt, height, width, generator, latents
        )
        rule = chosen.rule(guidance_scale)
        kept = self._kept(reuse)
        field = self.field(prompts, rule, negative_prompt, num_images_per_prompt, kept, ts)
        field = samplers.count(field)
        try:
            x = self._integrate(field, noise, ts, solver, callback_on_step_end)
        except FloatingPointError as error:
            raise _named(error, field.v, noise, ts, solver) from None
        images = self.decode(x, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images, field.calls)
        skipped = kept.skipped(len(noise)) if kept else None
        return JanusFlowOutput(images=images, calls=field.calls, skipped=skipped)

    def _kept(self, tolerance: float | None) -> Reuse | None:
        if tolerance is not None and self._compiled:
            raise ValueError(
                "reuse chooses blocks at every step, which a compiled graph cannot; leave one of "
                "reuse and compile() out"
            )
        return None if tolerance is None else Reuse(self.model, tolerance)

    def compile(self, **options) -> JanusFlowPipeline:
        """From now on velocities come from graphs of torch.compile, which `options` go to: one for
        each number of rows, size, and bucket of prompt lengths. Each costs its compiling once, in
        the run that first needs it. Returns the pipeline.
        """
        self._compiled = Compiled(self.model, **options)
        return self

    def forecast(self, pictures: int = 1, **setting) -> memory.Forecast:
        """Bytes that so many pictures at once take; see `memory.forecast` for the setting."""
        device = self._execution_device.type
        setting = dict(dtype=self.model.dtype, pictures=pictures, device=device) | setting
        return memory.forecast(self.model.config, self.vae, **setting)

    def limit_memory(self, size: int | None) -> JanusFlowPipeline:
        """From now on decoding takes at most so many bytes above the weights: as many pictures at
        once as fit, and where not one does in tiles, which changes it a little (warned of). None
        ends it. Returns the pipeline.
        """
        self._limit = size
        return self

    def field(
        self,
        prompts: Sequence[str],
        guidance: samplers.guidance.Rule | float = 1.0,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        reuse: Reuse | None = None,
        ts: Tensor | None = None,
    ) -> samplers.guidance.Guided:
        """The guided velocity v(x, t) of these prompts, ready for anything in `samplers`.

        Each prompt's keys and values are computed here, once; both rows of a guided evaluation go
        through the network in one batch. `ts` (S,) are times that it will be asked for, of which
        the network makes its embeddings and modulations here, in one product.
        """
        cond, uncond = self.encode_prompts(prompts, negative_prompt)
        rows = torch.arange(len(prompts)).repeat_interleave(num_images_per_prompt).tolist()
        cond, uncond = cond[rows], uncond[rows]
        both = Prompt.cat([cond, uncond])
        way = reuse or self._compiled
        ready = ts is not None and not self._compiled
        at = KnownTimes(self.model, ts.to(self._execution_device, torch.float32) if ready else None)

        def evaluate(prompt: Prompt) -> Callable[[Tensor, Tensor], Tensor]:
            velocity = way.of(prompt) if way else partial(self.model.velocity, prompt=prompt)
            return lambda x, t: velocity(x, at(t, x))

        pair = samplers.guidance.stacked(evaluate(both), evaluate(cond))
        return samplers.guide(pair, guidance)

    def encode_prompts(
        self, prompts: Sequence[str], negative_prompt: str | Sequence[str] | None = None
    ) -> tuple[Prompt, Prompt]:
        """What to follow and what to move away from, one row a prompt."""
        prompts = list(prompts)
        if negative_prompt is None:
            followed = self._encode(prompts)
            return followed, followed.first()
        negative = (
            [negative_prompt] * len(prompts)
            if isinstance(negative_prompt, str)
            else list(negative_prompt)
        )
        if len(negative) != len(prompts):
            raise ValueError(
                f"{len(negative)} negative prompts came for {len(prompts)} prompts; give one each"
            )
        return self._encode(prompts), self._encode(negative)

    def _encode(self, texts: list[str]) -> Prompt:
        """One row a text; equal texts are computed once."""
        distinct = list(dict.fromkeys(texts))
        prompt = self.model.encode_prompt(**self._prompt_inputs(distinct))
        return prompt if distinct == texts else prompt[[distinct.index(text) for text in texts]]

    def _prompt_inputs(self, texts: list[str]) -> dict[str, Tensor]:
        inputs = self.processor.prompt(texts).to(self._execution_device)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}

    def prepare_latents(
        self,
        count: int,
        height: int | None,
        width: int | None,
        generator: Seeds = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Noise (count, channels, height / 8, width / 8) in float32 on the pipeline's device."""
        channels, device = self.model.config.generation.latent_channels, self._execution_device
        if latents is not None:
            if latents.ndim != 4 or latents.shape[:2] != (count, channels):
                raise ValueError(
                    f"latents have shape {tuple(latents.shape)}; expected ({count}, {channels}, "
                    "height, width)"
                )
            wider = latents.dtype if latents.dtype == torch.float64 else torch.float32
            self._check_size(
                *(side * self.vae_scale_factor for side in latents.shape[2:]), given=(height, width)
            )
            return latents.to(device, wider)
        height, width = (self.default_size if x is None else x for x in (height, width))
        self._check_size(height, width)
        shape = (count, channels, height // self.vae_scale_factor, width // self.vae_scale_factor)
        if isinstance(generator, list) and len(generator) != count:
            raise ValueError(
                f"{len(generator)} generators came for {count} pictures; give one, or one a picture"
            )
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

    def check_sides(self, height: int, width: int) -> None:
        """ValueError for pixels that are no multiples of what a token stands for."""
        unit = self.vae_scale_factor * self.model.config.generation.patch
        memory.check_sides(height, width, unit)

    def _check_size(self, height: int, width: int, given=(None, None)) -> None:
        self.check_sides(height, width)
        for asked, side in zip(given, (height, width), strict=True):
            if asked is not None and asked != side:
                raise ValueError(f"latents are for {height} x {width}, not for {given}; leave one")
        if (height, width) != (self.default_size,) * 2:
            warnings.warn(
                f"the model was trained for {self.default_size} x {self.default_size} pixels; "
                f"{height} x {width} may look worse",
                stacklevel=4,
            )

    def _integrate(self, field, noise: Tensor, ts: Tensor, solver, callback) -> Tensor:
        """The state at the grid's end; the callback may replace it, then the solver starts anew."""
        x, start, self._interrupt = noise, 0, False
        with self.progress_bar(total=len(ts) - 1) as bar:
            while start < len(ts) - 1:
                path = samplers.trajectory(field, x, ts[start:], solver)
                next(path)
                for step, (t, x) in enumerate(path, start):
                    start = step + 1
                    bar.update()
                    if callback is None:
                        continue
                    result = callback(self, step, t, {"latents": x}) or {}
                    if self._interrupt:
                        return x
                    if result.get("latents", x) is not x:
                        x = result["latents"]
                        break
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor, output_type: str = "pil"):
        """Pictures of latents; ValueError if they hold NaN or infinity."""
        if not bool(latents.isfinite().all()):
            raise ValueError(
                "the latents hold NaN or infinity, so there is no picture; try float32 or a "
                "smaller guidance_scale"
            )
        if output_type == "latent":
            return latents
        if self.vae.dtype == torch.float16:  # the SDXL autoencoder overflows
            self.vae.to(torch.float32)
        z = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        z = z + (self.vae.config.get("shift_factor") or 0.0)
        pixels = memory.decode(self.vae, z, self._limit)
        finite.check_rows({"pixels": pixels}, "after the autoencoder")
        return self.image_processor.postprocess(pixels, output_type=output_type)

    @torch.no_grad()
    def encode(self, images) -> Tensor:
        """Latents (B, c, h, w) in float32 of pictures (PIL, arrays or tensors in [0, 1])."""
        pixels = self.image_processor.preprocess(images).to(self._execution_device, self.vae.dtype)
        z = self.vae.encode(pixels).latent_dist.mode().float()
        return (z - (self.vae.config.get("shift_factor") or 0.0)) * self.vae.config.scaling_factor

    edit = editing.edit
    invert = editing.invert

    def chat(
        self,
        prompt: str | list[dict],
        images: Sequence | None = None,
        *,
        stream: bool = False,
        max_new_tokens: int = 256,
        **kwargs,
    ) -> str | Iterator[str]:
        """The answer to a question, or to a list of turns, about no, one or several pictures.

        With `stream=True` an iterator over its pieces. Further arguments go to transformers'
        `generate`; greedy unless told otherwise.
        """
        inputs = self.processor(prompt, images=images).to(self._execution_device)
        tokenizer = self.processor.tokenizer
        kwargs = {
            "do_sample": False,
            "max_new_tokens": max_new_tokens,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        } | kwargs
        if stream:
            return self._stream(inputs, kwargs)
        ids = self.answer(inputs, **kwargs)
        self.maybe_free_model_hooks()
        return self.processor.decode(ids[0], skip_special_tokens=True).strip()

    def answer(self, inputs, **kwargs) -> Tensor:
        """Ids (B, L) that transformers' `generate` adds to the processor's `inputs`; rows that show
        the same pictures share their keys and values (`janusflow.pipelines.prefix_cache`).
        """
        watched = finite.watched(kwargs)
        shared = None
        if not kwargs.get("logits_processor"):
            shared = prefix_cache.generate(self.model, inputs, **watched)
        return self.model.generate(**inputs, **watched) if shared is None else shared

    def conversation(self, images: Sequence = ()) -> Conversation:
        """Questions that follow each other about no, one or several pictures, each read once:
        `talk = pipe.conversation([image])`, `talk.ask("how many shapes are there?")`.
        """
        return Conversation(self, images)

    def _stream(self, inputs, kwargs: dict) -> Iterator[str]:
        return self.streamed(
            lambda pieces: self.answer(inputs, **kwargs, streamer=pieces), self.echoes
        )

    def streamed(self, answer: Callable, skip_prompt: bool) -> Iterator[str]:
        """The pieces of text that `answer` gives to the streamer that it is called with."""
        from threading import Thread

        from transformers import TextIteratorStreamer

        pieces = TextIteratorStreamer(
            self.processor.tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True
        )
        failures = []

        def work() -> None:
            try:
                answer(pieces)
            except Exception as error:  # raised again below, where someone waits
                failures.append(error)
                pieces.end()

        thread = Thread(target=work, daemon=True)
        thread.start()
        answered = False
        for piece in pieces:
            piece = piece if answered else piece.lstrip()
            answered = answered or bool(piece)
            if piece:
                yield piece
        thread.join()
        if failures:
            raise failures[0]


def _named(error: FloatingPointError, field, noise: Tensor, ts: Tensor, solver):
    """The error with the prediction where it begins, found by going the way again with looks."""
    try:
        samplers.sample(field.checked(), noise, ts, solver)
    except FloatingPointError as found:
        if "starting state" not in str(error):
            return FloatingPointError(
                f"{found}; try float32 or a smaller guidance_scale, or look at the weights"
            )
    return error
