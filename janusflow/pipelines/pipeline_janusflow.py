"""From prompts to images and from images to answers, as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import samplers
from janusflow.models.autoencoder_loading import check_vae, load_vae, vae_dtype
from janusflow.models.janusflow.compiled import Compiled
from janusflow.models.janusflow.first_block_cache import Reuse
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines import prefix_cache
from janusflow.pipelines.base import BasePipeline, check_loading, clean, read_dtype
from janusflow.pipelines.calls import Call, StepCallback
from janusflow.pipelines.coding import Coding
from janusflow.pipelines.editing import Editing
from janusflow.pipelines.flow_maps import PromptFlowMap, weights_of
from janusflow.pipelines.generators import generators, seeded
from janusflow.pipelines.guided_velocity import GuidedVelocity
from janusflow.pipelines.integration import Integration
from janusflow.pipelines.options import GenerateOptions, Texts, takes, texts
from janusflow.pipelines.outputs import JanusFlowOutput
from janusflow.pipelines.presets import FLOW_MAP, grid_file, read_grids, resolve
from janusflow.utils import finite
from janusflow.utils.atomic_io import readable
from janusflow.utils.hub import files_of, locate

PARTS = ("model", "processor", "vae")
MODEL_KEYWORDS = ("quantization_config", "attn_implementation")


class JanusFlowPipeline(Editing, Coding, Integration, BasePipeline):
    """JanusFlow with its processor and autoencoder.

    `pipe(prompts)` makes images, `pipe.chat(text, images)` answers, `pipe.edit(image, prompt)`
    changes. `save_pretrained` writes the published layout with the autoencoder in `vae/`, and
    `from_pretrained` reads it.
    """

    model_cpu_offload_seq = "model->vae"
    _optional_components = ("vae",)
    _callback_tensor_inputs = ("latents", "prompt_embeds")
    _compiled: Compiled | None = None

    def __init__(
        self, model: JanusFlowModel, processor: JanusFlowProcessor, vae: nn.Module | None = None
    ):
        if vae is not None:
            check_vae(vae, model.config)
        super().__init__(model=model, processor=processor, vae=vae)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        vae: str | Path | nn.Module | None = None,
        dtype: torch.dtype | str | None = None,
        *,
        model: JanusFlowModel | None = None,
        processor: JanusFlowProcessor | None = None,
        **given,
    ) -> JanusFlowPipeline:
        """A folder or hub id in the published layout; the autoencoder is in its `vae/` or is named.

        Parts that are given (`model`, `processor`, `vae`) are used as they are. `dtype` (diffusers'
        `torch_dtype`) is torch's or a name, float32 unless told; float16 is for the network alone:
        the autoencoder then runs in float32, because the SDXL one overflows in float16.
        `variant="fp16"` reads files such as model.fp16.safetensors, `subfolder` a folder inside,
        `device_map` places the pipeline on a device. `quantization_config` (transformers'
        `TorchAoConfig`, or `auto.eight_bit()`) and `attn_implementation` are for the network, the
        hub's keywords (`revision`, `token`, ...) for the repository; `vae="id@revision"` pins the
        autoencoder's. ValueError where files are missing or do not fit, TypeError for a keyword
        that nothing takes.
        """
        hub = check_loading(f"{cls.__name__}.from_pretrained", given, (*MODEL_KEYWORDS, *PARTS))
        dtype = read_dtype(dtype, given.get("torch_dtype"))
        variant = given.get("variant")
        folder = locate(name, files_of(variant), **hub)
        own = model is None
        if own:
            options = {k: given[k] for k in MODEL_KEYWORDS if given.get(k) is not None}
            options |= {"variant": variant} if variant else {}
            model = JanusFlowModel.from_pretrained(folder, dtype=dtype, **options).eval()
        processor = processor or JanusFlowProcessor.from_pretrained(folder)
        processor.check_fits(model.config.language_config.vocab_size)
        processor.check_images(model.config.vision)
        if not isinstance(vae, nn.Module):
            wide = vae_dtype(model.dtype if dtype == "auto" else dtype)
            vae = load_vae(folder, vae, wide, variant=variant, required=False)
            vae = vae if vae is None else vae.eval()
        pipe = cls(model, processor, vae)
        if own:
            pipe.grids = read_grids(folder)
        return pipe._placed(given.get("device_map"))

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """The published layout, with `vae/`; `kwargs` such as `max_shard_size` and `variant` go to
        the networks.

        ValueError while adapters are loaded.
        """
        self._check_saved()
        folder = clean(Path(folder))
        self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder)
        if self.vae is not None:
            self.vae.save_pretrained(folder / "vae", **kwargs)
        readable(folder)
        for name, grid in self.grids.items():
            grid.save(grid_file(folder, name))

    @property
    def grids(self) -> dict[str, samplers.PilotGrid]:
        """The model's own pilot grids by quality; they go where the model goes."""
        return self.model.__dict__.setdefault("pilot_grids", {})

    @grids.setter
    def grids(self, grids: dict[str, samplers.PilotGrid]) -> None:
        self.model.__dict__["pilot_grids"] = grids

    @property
    def positions(self) -> int:
        """Tokens that the language model has positions for."""
        return self.model.config.language_config.max_position_embeddings

    # Generation

    @torch.no_grad()
    @takes(GenerateOptions)
    def __call__(self, prompt: Texts, options: GenerateOptions) -> JanusFlowOutput | tuple:
        """Images of the prompts, those of one prompt beside each other.

        `quality` is "exact" (Euler, 30 steps), "high", "fast" or "draft" (presets.py), on the
        model's own pilot grid where `pipe.grids` has one; what is given beside it takes the place
        of the preset's. `sampler` names one of `samplers.SOLVERS`, which takes
        `num_inference_steps` steps on `grid` (a name of `samplers.GRIDS`, a rule, or times from 0
        to 1). `guidance_scale` is a number or any rule of `samplers.guidance`, also as text;
        `negative_prompt` takes the empty prompt's place.

        `latents` (images, channels, height / 8, width / 8) is the noise to start from; otherwise it
        comes from `seed`, one more for each image, or from `generator`, one for all or one an
        image. `first_block_cache` is a tolerance: where the first block changes less, the others
        are left out. `memory_limit` are bytes that decoding may take.

        `callback_on_step_end(pipe, step, t, {"latents": x})` may change the latents, in place or by
        returning others, and the solver goes on from there; in it `pipe._interrupt = True` ends
        this call and `pipe.guidance_scale = w` changes its guidance. `output_type` is "pil", "np",
        "pt" or "latent". Raises ValueError for what does not fit.
        """
        prompts = texts(prompt)
        chosen = resolve(
            options.quality,
            self.grids,
            sampler=options.sampler,
            steps=options.num_inference_steps,
            grid=options.grid,
        )
        solver, ts = chosen.path()
        count = len(prompts) * options.num_images_per_prompt
        generator = generators(options.generator, options.seed, count)
        solver = seeded(solver, generator)
        noise = self.prepare_latents(
            count, options.height, options.width, generator, options.latents
        )
        rule = chosen.rule(options.guidance_scale)
        cache = self._first_block_cache(options.first_block_cache)
        state = dict(num_timesteps=len(ts) - 1, guidance_scale=options.guidance_scale)
        with self._call(**state, prompts=(prompts, options.negative_prompt)) as call:
            call.velocity = self._field(prompts, rule, options, solver, cache, ts)
            v = samplers.count(call.velocity)
            x = self._solve(call, v, noise, ts, solver, self._callback(options))
            decoded = self.decode(x, options.output_type, options.memory_limit)
        if not options.return_dict:
            return (decoded, v.calls)
        captions = [text for text in prompts for _ in range(options.num_images_per_prompt)]
        skipped = cache.skipped(count) if cache else None
        return JanusFlowOutput(images=decoded, calls=v.calls, skipped=skipped, captions=captions)

    def _field(self, prompts, rule, options: GenerateOptions, solver, cache, ts: Tensor):
        """The field that the solver takes: a velocity, or a flow map."""
        count = options.num_images_per_prompt
        if not solver.maps:
            return self.field(prompts, rule, options.negative_prompt, count, cache, ts)
        own = self.grids[FLOW_MAP].guidance if FLOW_MAP in self.grids else 1.0
        asked = weights_of(options.guidance_scale)
        if asked - {own, GenerateOptions.guidance_scale, 1.0}:
            raise ValueError(
                f"guidance_scale is {max(asked):g}, and a flow map has its guidance {own:g} in its "
                "weights; leave it out"
            )
        if options.negative_prompt or cache is not None:
            given = "negative_prompt" if options.negative_prompt else "first_block_cache"
            raise ValueError(f"a flow map takes no {given}; leave it out")
        return self.flow_map(prompts, count, ts)

    def flow_map(
        self, prompts: Texts, num_images_per_prompt: int = 1, ts: Tensor | None = None
    ) -> PromptFlowMap:
        """u(x, t, s) of these prompts, the mean velocity from t to s, for `samplers` ("jump").

        The model is one that `janusflow distill` made, with its teacher's guidance in the weights;
        ValueError for another, whose maps `samplers.integrated(pipe.field(prompts))` gives by
        integration. `ts` (S,) are times that it will be asked for, embedded in one product.
        """
        if FLOW_MAP not in self.grids:
            raise ValueError(
                "this model is no flow map; distil it by janusflow distill, or integrate: "
                "samplers.integrated(pipe.field(prompts))"
            )
        cond = self._encode(texts(prompts))
        rows = torch.arange(len(cond)).repeat_interleave(num_images_per_prompt).tolist()
        known = None if ts is None else ts.to(self._execution_device, torch.float32)
        return PromptFlowMap(self.model, cond[rows], known)

    def answer(self, inputs, **kwargs) -> Tensor:
        """Ids (B, L) that transformers' `generate` adds to the processor's `inputs`; rows that show
        the same images share their keys and values (`janusflow.pipelines.prefix_cache`).
        """
        watched = finite.watched(kwargs)
        shared = None
        if not kwargs.get("logits_processor"):
            shared = prefix_cache.generate(self.model, inputs, **watched)
        return self.model.generate(**inputs, **watched) if shared is None else shared

    def _callback(self, options) -> StepCallback | None:
        return StepCallback.of(
            options.callback_on_step_end,
            options.callback_on_step_end_tensor_inputs,
            self._callback_tensor_inputs,
        )

    def _prompt_embeds(self, call: Call) -> Tensor:
        """Token embeddings (2 B, L, D) of a call, what to move away from first, as diffusers has
        it; the empty prompt's are zero behind the first token.
        """
        prompts, negative = call.prompts
        one = negative is None or isinstance(negative, str)
        avoided = [negative] * len(prompts) if one else list(negative)
        inputs = self._prompt_inputs(
            [*(a or p for a, p in zip(avoided, prompts, strict=True)), *prompts]
        )
        embeds = self.model.get_input_embeddings()(inputs["input_ids"])
        first = inputs["attention_mask"].argmax(1)
        for row, text in enumerate(avoided):
            if not text:
                embeds[row, first[row] + 1 :] = 0
        return embeds

    def _drop_rows(self, call: Call, new: Tensor, old: Tensor) -> None:
        """Takes prompt_embeds without the rows to move away from, as diffusers' callbacks return
        them when guidance ends; ValueError for other embeddings, since prompts were read already.
        """
        if not torch.equal(new, old[-len(new) :]) or call.guidance_scale not in (1, None):
            raise ValueError(
                "the callback changed prompt_embeds, which were read before the first step; change "
                "the prompt, or the guidance by pipe.guidance_scale"
            )

    def _first_block_cache(self, tolerance: float | None) -> Reuse | None:
        if tolerance is not None and self._compiled:
            raise ValueError(
                "first_block_cache chooses blocks at every step, which a compiled graph cannot; "
                "leave one of it and compile() out"
            )
        return None if tolerance is None else Reuse(self.model, tolerance)

    def compile(self, **options) -> JanusFlowPipeline:
        """From now on velocities come from graphs of torch.compile, which `options` go to: one for
        each number of rows, size, and bucket of prompt lengths. Each costs its compiling once, in
        the run that first needs it. Returns the pipeline.
        """
        self._compiled = Compiled(self.model, **options)
        return self

    def field(
        self,
        prompts: Sequence[str],
        guidance: samplers.guidance.Rule | float | str = 1.0,
        negative_prompt: Texts | None = None,
        num_images_per_prompt: int = 1,
        reuse: Reuse | None = None,
        ts: Tensor | None = None,
    ) -> GuidedVelocity:
        """The guided velocity v(x, t) of these prompts, ready for anything in `samplers`.

        Each prompt's keys and values are computed here, once. `reuse` is a first-block cache. `ts`
        (S,) are times that it will be asked for, of which the network makes its embeddings and
        modulations here, in one product.
        """
        cond, uncond = self.encode_prompts(prompts, negative_prompt)
        rows = torch.arange(len(prompts)).repeat_interleave(num_images_per_prompt).tolist()
        ready = ts is not None and not self._compiled
        return GuidedVelocity(
            self.model,
            cond[rows],
            uncond[rows],
            guidance,
            ts=ts.to(self._execution_device, torch.float32) if ready else None,
            network=reuse or self._compiled,
        )

    def encode_prompts(
        self, prompts: Sequence[str], negative_prompt: Texts | None = None
    ) -> tuple[PromptCache, PromptCache]:
        """What to follow and what to move away from, one row a prompt; an empty negative prompt is
        none.
        """
        prompts = list(prompts)
        followed = self._encode(prompts)
        one = negative_prompt is None or isinstance(negative_prompt, str)
        negative = [negative_prompt] * len(prompts) if one else list(negative_prompt)
        if len(negative) != len(prompts):
            raise ValueError(
                f"{len(negative)} negative prompts came for {len(prompts)} prompts; give one each"
            )
        given = [text for text in negative if text]
        if not given:
            return followed, followed.first()
        avoided = self._encode(given)
        if len(given) == len(negative):
            return followed, avoided
        each = PromptCache.cat([followed.first(), avoided])
        behind = iter(range(len(prompts), len(prompts) + len(given)))
        return followed, each[[next(behind) if text else i for i, text in enumerate(negative)]]

    def _encode(self, prompts: list[str]) -> PromptCache:
        """One row a text; equal texts are computed once."""
        distinct = list(dict.fromkeys(prompts))
        prompt = self.model.encode_prompt(**self._prompt_inputs(distinct))
        if distinct == prompts:
            return prompt
        return prompt[[distinct.index(text) for text in prompts]]

    def _prompt_inputs(self, prompts: list[str]) -> dict[str, Tensor]:
        inputs = self.processor.prompt(prompts).to(self._execution_device)
        image = (self.default_size // (16 if self.vae is None else self._unit)) ** 2 + 1
        self._limit_positions(inputs["input_ids"].shape[1] + image, "a prompt with its image")
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}
