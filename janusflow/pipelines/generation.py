"""Image generation: the request, the guided field, its integration, and the best of several
images.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import samplers
from janusflow.models.janusflow.compiled_velocity import Compiled
from janusflow.models.janusflow.first_block_cache import Reuse
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines import few_step, memory
from janusflow.pipelines.call_options import GenerateOptions, Texts, avoided, spread, takes, texts
from janusflow.pipelines.call_state import Call, StepCallback
from janusflow.pipelines.flow_maps import PromptFlowMap, weights_of
from janusflow.pipelines.generators import Generators, generators, seeded, warn_beside_latents
from janusflow.pipelines.guided_velocity import GuidedVelocity
from janusflow.pipelines.outputs import JanusFlowOutput
from janusflow.pipelines.presets import FLOW_MAP, Quality, resolve
from janusflow.pipelines.trajectory import Trajectory, expected
from janusflow.pipelines.trajectory import chosen as chosen_frames
from janusflow.pipelines.verifiers import best, scorer
from janusflow.utils.limits import whole
from samplers.guidance import Guided

EDITED = "a prompt with its images"
NOT_PREPARED = (
    *("output_type", "best_of", "verifier", "return_dict", "memory_limit", "adapters"),
    "callback_on_step_end",
)
CLEAN = 0.99  # time from which an image shows no noise to speak of
NO_EDITOR = (
    "image is for models trained to edit, which this model's config.json does not say it was "
    "(image_editing); load janusflow/scenes-edit or an editor of your own, or change an image by "
    "pipe.edit(image, prompt)"
)


@dataclass(frozen=True)
class GenerationCall:
    """One call of `pipe(prompt)` with its resolved options."""

    prompts: list[str]
    options: GenerateOptions
    solver: samplers.Solver
    ts: Tensor
    rule: object
    generator: Generators
    cache: Reuse | None
    callback: StepCallback | None
    few: few_step.FewStep | None = None

    @property
    def state(self) -> dict:
        """Returns the attributes that the pipeline exposes while the call runs."""
        told = self.options.negative_prompt
        scale = self.options.guidance_scale
        return dict(
            num_timesteps=len(self.ts) - 1,
            guidance_scale=scale,
            prompts=(self.prompts, told),
            adapters=self.options.adapters,
        )

    @property
    def captions(self) -> list[str]:
        """Returns one caption per image, for notebooks."""
        return [text for text in self.prompts for _ in range(self.options.num_images_per_prompt)]

    def noise(self, pipe) -> Tensor:
        """Returns the noise from which the next integration starts."""
        options = self.options
        sides = options.height, options.width
        drawn = self.generator if options.latents is None else None
        return pipe.prepare_latents(len(self.captions), *sides, drawn, options.latents)


class Generation:
    """A mixin of pipelines with a flow: `pipe(prompt)` and `pipe.trajectory(prompt)`."""

    _compiled: Compiled | None = None

    @torch.no_grad()
    @takes(GenerateOptions)
    def __call__(self, prompt: Texts, options: GenerateOptions) -> JanusFlowOutput:
        """Generates images from prompts; images of one prompt are adjacent.

        `quality` is "exact" (Euler, 30 steps), "high", "fast" or "draft" (presets.py). It uses the
        model's own pilot grid if `pipe.grids` has one, or the flow map that `pipe.few_step` names
        for it. Explicit options replace the preset's: `sampler` is a name in `samplers.SOLVERS`,
        which takes `num_inference_steps` steps on `grid` (a name in `samplers.GRIDS`, a rule, or
        times from 0 to 1). `guidance_scale` is a number or a rule of `samplers.guidance`, also as
        text; `negative_prompt` replaces the empty prompt.

        `image` is for models trained to edit: the prompts then say what to change in it, and the
        vision encoder reads it.

        `latents` (images, channels, height / 8, width / 8) is the initial noise. Otherwise it comes
        from `seed`, which increases by one for each image, or from `generator`, one for all or one
        per image. `first_block_cache` is a tolerance: later blocks are skipped where the first one
        changes less. `memory_limit` is the bytes that decoding may use.

        `callback_on_step_end(pipe, step, t, {"latents": x})` may change the latents, in place or by
        returning new ones. In it, `pipe._interrupt = True` ends this call and `pipe.guidance_scale
        = w` changes its guidance. `output_type` is "pil", "np", "pt" or "latent". Raises ValueError
        for options that do not fit together.
        """
        run = self._prepared(texts(prompt), options)
        with self._call(**run.state) as call:
            call.velocity = self._field(run)
            v = samplers.count(call.velocity)
            x, scores = self._drawn(call, run, v)
            decoded = self.decode(x, options.output_type, options.memory_limit)
        if not options.return_dict:
            return (decoded, v.calls)
        skipped = run.cache.skipped(len(x)) if run.cache else None
        by = run.few and run.few.model
        return JanusFlowOutput(decoded, v.calls, skipped, run.captions, scores, by)

    def _drawn(self, call: Call, run: GenerationCall, v) -> tuple[Tensor, list[float] | None]:
        """Returns the result of one integration, or the best of several with its scores."""

        def draw() -> Tensor:
            if isinstance(call.velocity, Guided):  # whose rule a callback may have changed
                call.guide(run.rule)
            return self._solve(call, v, run.noise(self), run.ts, run.solver, run.callback)

        options = run.options
        if options.best_of == 1:
            return draw(), None
        score = scorer(self, options.verifier)
        draws = (draw() for i in range(options.best_of) if not (i and call.interrupt))
        return best(
            draws, lambda x: score(self.decode(x, "pil", options.memory_limit), run.captions)
        )

    @torch.no_grad()
    @takes(GenerateOptions)
    def trajectory(self, prompt: Texts, frames: int = 8, *, options: GenerateOptions) -> Trajectory:
        """Returns the images that the model expects during sampling, at most `frames` of them, as a
        strip or GIF.

        Options are those of `pipe(prompt)`; the ones without a meaning here raise an error. The
        solver's states are kept in memory, one per step.
        """
        options.refuse("a trajectory", "output_type", "best_of", "verifier", "return_dict")
        run = self._prepared(texts(prompt), options)
        with self._call(**run.state) as call:
            call.velocity = self._field(run)
            start = run.noise(self)
            walk = self._states(call, call.velocity, start, run.ts, run.solver, run.callback)
            states = [start, *walk]
            steps = list(pairwise(zip(run.ts, states, strict=False)))
            places = chosen_frames(len(steps), whole(frames, "frames"))
            found = (expected(call.velocity, *steps[i][0], *steps[i][1]) for i in places)
            shown = [self.decode(x, "pil", options.memory_limit) for x in found]
        return Trajectory(shown, [float(run.ts[i + 1]) for i in places], run.captions)

    @takes(GenerateOptions)
    def prepare(
        self, prompt: Texts, options: GenerateOptions
    ) -> tuple[GenerationCall, GuidedVelocity | PromptFlowMap]:
        """Returns what `pipe(prompt)` would do, for a loop of your own: the call, with its solver
        and times, and the velocity or flow map that it integrates.

        Options for what happens while it integrates or afterwards raise ValueError.
        """
        options.refuse("prepare", *NOT_PREPARED)
        run = self._prepared(texts(prompt), options)
        return run, self._field(run)

    def _prepared(self, prompts: list[str], options: GenerateOptions) -> GenerationCall:
        """Computes everything about a call that is known before the network runs."""
        few = self._few_step(options)
        chosen = few.quality if few else self._resolved(options)
        scorer(self, options.verifier)  # refuses an unknown name
        solver, ts = chosen.path(options.guidance_scale)
        if float(ts[-1]) < CLEAN and options.output_type != "latent":
            warnings.warn(
                f"the grid ends at {float(ts[-1]):.6g}, where the state is still partly noise, and "
                "that is what the images show; let it end at 1",
                stacklevel=4,
            )
        count = len(prompts) * options.num_images_per_prompt
        generator = generators(options.generator, options.seed, count)
        if options.best_of > 1 and options.latents is not None:
            raise ValueError(
                "latents hold one noise for each image, and best_of draws several; leave out "
                "latents or best_of"
            )
        warn_beside_latents(options, solver)
        return GenerationCall(
            prompts=prompts,
            options=options,
            solver=seeded(solver, generator),
            ts=ts,
            rule=chosen.rule(options.guidance_scale),
            generator=generator,
            cache=self._first_block_cache(options.first_block_cache),
            callback=self._callback(options),
            few=few,
        )

    def _resolved(self, options: GenerateOptions) -> Quality:
        """Returns how this model's own weights generate a call."""
        given = dict(sampler=options.sampler, steps=options.num_inference_steps, grid=options.grid)
        return resolve(options.quality, self.grids, **given)

    def _few_step(self, options: GenerateOptions) -> few_step.FewStep | None:
        """Returns the flow map that generates this call, or None if the model's own weights do."""
        if not (found := self.few_step):
            return None
        how = options.quality, options, options.guidance_scale, self.default_size
        return few_step.choose(found, *how)

    def _prompt_embeds(self, call: Call) -> Tensor:
        """Returns a call's token embeddings (2 B, L, D), unconditional rows first as in diffusers.

        The empty prompt's are zero after the first token.
        """
        prompts, negative = call.prompts
        away = avoided(negative, len(prompts))
        inputs = self._prompt_inputs(
            [*(a or p for a, p in zip(away, prompts, strict=True)), *prompts]
        )
        embeds = self.model.get_input_embeddings()(inputs["input_ids"])
        first = inputs["attention_mask"].argmax(1)
        for row, text in enumerate(away):
            if text is None:
                embeds[row, first[row] + 1 :] = 0
        return embeds

    def _drop_rows(self, call: Call, new: Tensor, old: Tensor) -> None:
        """Accepts prompt_embeds without the unconditional rows, as diffusers' callbacks return them
        when guidance ends.

        Raises ValueError for other embeddings, because prompts have been read already.
        """
        if not torch.equal(new, old[-len(new) :]) or call.guidance_scale not in (1, None):
            raise ValueError(
                "the callback changed prompt_embeds, which are used only before the first step; "
                "change the prompt instead, or the guidance by pipe.guidance_scale"
            )

    def _first_block_cache(self, tolerance: float | None) -> Reuse | None:
        if tolerance is not None and self._compiled:
            raise ValueError(
                "first_block_cache chooses at every step which blocks run, which a compiled model "
                "cannot; leave out first_block_cache or compile()"
            )
        return None if tolerance is None else Reuse(self.model, tolerance)

    def field(
        self,
        prompts: Texts,
        guidance: samplers.guidance.Rule | float | str = 1.0,
        negative_prompt: Texts | None = None,
        num_images_per_prompt: int = 1,
        reuse: Reuse | None = None,
        ts: Tensor | None = None,
        image: object = None,
    ) -> GuidedVelocity:
        """Returns the guided velocity v(x, t) of these prompts, ready for anything in `samplers`.

        The prompts' keys and values are computed here, once. `reuse` is a first-block cache. `ts`
        (S,) are times at which it will be evaluated; their embeddings and modulations are computed
        here at once.
        """
        prompts = texts(prompts)
        cond, uncond = self.encode_prompts(prompts, negative_prompt, image)
        self._check_room(cond, len(prompts) * num_images_per_prompt)
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

    def _check_room(self, prompt: PromptCache, count: int) -> None:
        """Raises ValueError for more images at once than fit into the device's memory.

        It counts keys and values (with the unconditional rows, and once more side by side) and
        pixels.
        """
        pixels = 3 * self.default_size**2 * torch.float32.itemsize
        memory.check_room(count, 4 * prompt.row_bytes + 2 * pixels, self._execution_device)

    def _field(self, run: GenerationCall) -> GuidedVelocity | PromptFlowMap:
        """Returns the field for the call's solver: a velocity, or a flow map."""
        options, count = run.options, run.options.num_images_per_prompt
        if not run.solver.maps:
            how = (options.negative_prompt, count, run.cache, run.ts, options.image)
            return self.field(run.prompts, run.rule, *how)
        if run.few:
            model = run.few.weights.beside(self.model, self._execution_device)
            return self._flow_map(model, run.prompts, count, run.ts)
        own = self.grids[FLOW_MAP].guidance if FLOW_MAP in self.grids else 1.0
        asked = weights_of(options.guidance_scale)
        if asked - {own, GenerateOptions.guidance_scale, 1.0}:
            raise ValueError(
                f"guidance_scale is {max(asked):g}, and a flow map has its guidance {own:g} in its "
                "weights; leave it out"
            )
        refused = ("negative_prompt", "first_block_cache", "image")
        if given := [name for name in refused if getattr(options, name) not in (None, "")]:
            raise ValueError(f"a flow map does not use {given[0]}; leave it out")
        return self.flow_map(run.prompts, count, run.ts)

    def flow_map(
        self, prompts: Texts, num_images_per_prompt: int = 1, ts: Tensor | None = None
    ) -> PromptFlowMap:
        """Returns u(x, t, s) of these prompts, the mean velocity from t to s, for the sampler
        "jump".

        It needs a model that `janusflow distill` made, with its teacher's guidance in the weights.
        Raises ValueError for another; `samplers.integrated(pipe.field(prompts))` gives that model's
        map by integration. `ts` (S,) are times at which it will be evaluated.
        """
        if FLOW_MAP not in self.grids:
            raise ValueError(
                "this model is not a flow map; distil it by janusflow distill, or integrate: "
                "samplers.integrated(pipe.field(prompts))"
            )
        return self._flow_map(self.model, texts(prompts), num_images_per_prompt, ts)

    def _flow_map(self, model, prompts: list[str], count: int, ts: Tensor | None) -> PromptFlowMap:
        """Returns u(x, t, s) of these prompts for any model that shares the tokenizer."""
        cond = self._encode(prompts, model)
        self._check_room(cond, len(cond) * count)
        rows = torch.arange(len(cond)).repeat_interleave(count).tolist()
        known = None if ts is None else ts.to(self._execution_device, torch.float32)
        return PromptFlowMap(model, cond[rows], known, self._compiled)

    def encode_prompts(
        self, prompts: Texts, negative_prompt: Texts | None = None, image: object = None
    ) -> tuple[PromptCache, PromptCache]:
        """Returns the caches of the prompts to follow and to avoid, one row per prompt.

        An empty negative prompt is the unconditional one. `image` is an image in the prompts, one
        for all or one each.
        """
        prompts = texts(prompts)
        negative = avoided(negative_prompt, len(prompts))
        followed = self._encode(prompts) if image is None else self._encode_edits(prompts, image)
        given = [text for text in negative if text]
        if not given:
            return followed, followed.first()
        away = self._encode(given)
        if len(given) == len(negative):
            return followed, away
        each = PromptCache.cat([followed.first(), away])
        behind = iter(range(len(prompts), len(prompts) + len(given)))
        return followed, each[[next(behind) if text else i for i, text in enumerate(negative)]]

    def _encode(self, prompts: list[str], model=None) -> PromptCache:
        """Encodes one row per text, by this model or another; equal texts are computed once."""
        distinct = list(dict.fromkeys(prompts))
        prompt = (model or self.model).encode_prompt(**self._prompt_inputs(distinct))
        if distinct == prompts:
            return prompt
        return prompt[[distinct.index(text) for text in prompts]]

    def _encode_edits(self, prompts: list[str], image) -> PromptCache:
        """Encodes one row per text together with its image, and warns if nothing says that the
        model was trained on that.
        """
        if not self.model.config.image_editing and not any(self._adapted()):
            warnings.warn(NO_EDITOR, stacklevel=2)
        images = list(image) if isinstance(image, list | tuple) else [image]
        images = spread(images, len(prompts), "images", "prompts")
        inputs = self.processor.prompt(prompts, [[one] for one in images])
        self._check_ids(inputs["input_ids"])
        self._limit_positions(inputs["input_ids"].shape[1] + self._image_places, EDITED)
        return self.model.encode_prompt(**inputs.to(self._execution_device))

    @property
    def _image_places(self) -> int:
        """The places of a generated image in the sequence, with the one of its time."""
        return (self.default_size // (16 if self.vae is None else self._unit)) ** 2 + 1

    def _prompt_inputs(self, prompts: list[str]) -> dict[str, Tensor]:
        inputs = self.processor.prompt(prompts)
        self._check_ids(inputs["input_ids"])
        inputs = inputs.to(self._execution_device)
        self._limit_positions(
            inputs["input_ids"].shape[1] + self._image_places, "a prompt with its image"
        )
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}
