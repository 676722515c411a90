"""The JanusFlow pipeline: images from prompts, answers about images, and editing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import samplers
from janusflow.models.autoencoder_loading import check_vae, load_vae, vae_dtype
from janusflow.models.family import FLOW, check_family
from janusflow.models.janusflow.compiled_velocity import Compiled
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.pipelines import few_step, prefix_cache
from janusflow.pipelines.base import (
    BasePipeline,
    check_attention,
    check_loading,
    check_saving,
    clean,
    read_dtype,
)
from janusflow.pipelines.editing import Editing
from janusflow.pipelines.few_step import FewStep
from janusflow.pipelines.generation import Generation
from janusflow.pipelines.integration import Integration
from janusflow.pipelines.latent_coding import Coding
from janusflow.pipelines.presets import grid_file, read_grids
from janusflow.pipelines.token_draws import drawing
from janusflow.utils import finite
from janusflow.utils.atomic_io import readable
from janusflow.utils.checkpoint_files import one_layout
from janusflow.utils.hub import files_of, locate

PARTS = ("model", "processor", "vae")
MODEL_KEYWORDS = ("quantization_config", "attn_implementation")


class JanusFlowPipeline(Generation, Editing, Coding, Integration, BasePipeline):
    """JanusFlow with its processor and autoencoder, as a diffusers pipeline.

    `pipe(prompts)` generates images, `pipe.chat(text, images)` answers, and `pipe.edit(image,
    prompt)` edits. `save_pretrained` writes the published layout with the autoencoder in `vae/`,
    and `from_pretrained` reads it.
    """

    model_cpu_offload_seq = "model->vae"
    _optional_components = ("vae",)
    _callback_tensor_inputs = ("latents", "prompt_embeds")

    def __init__(
        self, model: JanusFlowModel, processor: JanusFlowProcessor, vae: nn.Module | None = None
    ):
        super().__init__(model=model, processor=processor, vae=vae)

    def __setattr__(self, name: str, value) -> None:
        fits = not hasattr(value, "config") or not isinstance(self.__dict__.get("model"), nn.Module)
        if name == "vae" and not fits:
            check_vae(value, self.model.config)
        super().__setattr__(name, value)

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
        """Loads a folder or hub id in the published layout; the autoencoder is in its `vae/` or
        named by `vae`.

        - `model`, `processor`, `vae`: components that are used as they are; `vae="id@revision"`
          pins an autoencoder on the hub.
        - `dtype` (diffusers' `torch_dtype`): a torch.dtype or its name, by default float32. With
          float16 the autoencoder still runs in float32, because SDXL's overflows in float16.
        - `variant="fp16"` reads files such as model.fp16.safetensors, `subfolder` a folder inside,
          and `device_map` places the pipeline on a device.
        - `quantization_config` (transformers' `TorchAoConfig`, or `auto.eight_bit()`) and
          `attn_implementation` apply to the network.
        - The hub's keywords (`revision`, `token`, ...) apply to the repository.

        Raises ValueError if files are missing or do not fit, and TypeError for an unknown keyword.
        """
        hub = check_loading(f"{cls.__name__}.from_pretrained", given, (*MODEL_KEYWORDS, *PARTS))
        dtype = read_dtype(dtype, given.get("torch_dtype"))
        variant = given.get("variant")
        folder = locate(name, files_of(variant), **hub)
        own = model is None
        if own:
            check_family(folder, FLOW)
            check_attention(given.get("attn_implementation"))
        if own:
            options = {k: given[k] for k in MODEL_KEYWORDS if given.get(k) is not None}
            options |= {"variant": variant} if variant else {}
            model = JanusFlowModel.from_pretrained(folder, dtype=dtype, **options).eval()
        processor = processor or JanusFlowProcessor.from_pretrained(folder)
        cls(model, processor)  # parts of another kind are refused before they are asked
        processor.check_fits(model.config.language_config.vocab_size)
        vision = model.config.vision
        processor.check_images(vision.image_size, vision.tokens)
        if not isinstance(vae, nn.Module):
            wide = vae_dtype(model.dtype if dtype == "auto" else dtype)
            vae = load_vae(folder, vae, wide, variant=variant, required=False)
            vae = vae if vae is None else vae.eval()
        pipe = cls(model, processor, vae)
        if own:
            pipe.grids, pipe.few_step = read_grids(folder), few_step.read(folder)
        return pipe._placed(given.get("device_map"))

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """Writes the published layout with `vae/`; `kwargs` such as `max_shard_size` and `variant`
        go to the networks.

        Raises ValueError while adapters are loaded.
        """
        kwargs = check_saving(self, kwargs)
        folder = clean(folder)
        self.model.save_pretrained(folder, **kwargs)
        self.processor.save_pretrained(folder)
        if self.vae is not None:
            with one_layout(folder / "vae", "diffusion_pytorch_model", kwargs.get("variant")):
                self.vae.save_pretrained(folder / "vae", **kwargs)
        readable(folder)
        for name, grid in self.grids.items():
            grid.save(grid_file(folder, name))
        few_step.save(self.few_step, folder)

    @property
    def grids(self) -> dict[str, samplers.PilotGrid]:
        """The model's own pilot grids, by quality; they are used as long as the model stays in the
        pipeline. Those that are set take the place of flow maps of the same qualities.
        """
        return self.model.__dict__.setdefault("pilot_grids", {})

    @grids.setter
    def grids(self, grids: dict[str, samplers.PilotGrid]) -> None:
        self.model.__dict__["pilot_grids"] = grids

    @property
    def few_step(self) -> dict[str, FewStep]:
        """The flow maps that generate a quality in place of this model, by quality.

        It is empty once the model's weights differ from those that the flow maps were distilled
        from, and lacks qualities that have got a new grid.
        """
        found, then, placed = self.model.__dict__.get("few_step", ({}, None, {}))
        if not found or not then.holds(self.model):
            return {}
        new = {q for q, grid in self.grids.items() if q not in placed or placed[q] is not grid}
        return {q: few for q, few in found.items() if q not in new}

    @few_step.setter
    def few_step(self, found: dict[str, FewStep]) -> None:
        origin = few_step.Origin(self.model)
        self.model.__dict__["few_step"] = dict(found), origin, dict(self.grids)

    @property
    def positions(self) -> int:
        """The number of positions of the language model."""
        return self.model.config.language_config.max_position_embeddings

    def answer(self, inputs, *, seed: int | None = None, **kwargs) -> Tensor:
        """Returns the ids (B, L) that transformers' `generate` adds to the processor's `inputs`.

        Rows that show the same images share their keys and values
        (`janusflow.pipelines.prefix_cache`). Row i draws sampled tokens from `seed` + i.
        """
        watched = finite.watched(kwargs)
        shared = None
        with drawing(seed):
            if not kwargs.get("logits_processor"):
                shared = prefix_cache.generate(self.model, inputs, **watched)
            return self.model.generate(**inputs, **watched) if shared is None else shared

    def compile(self, **options) -> JanusFlowPipeline:
        """Computes velocities with torch.compile from now on; `options` are its arguments.

        Returns the pipeline.

        There is one graph for each number of rows, image size and bucket of prompt lengths; each is
        compiled once, in the run that first needs it.
        """
        self._compiled, self._compile_options = Compiled(self.model, **options), options
        return self

    def to(self, *args, **kwargs) -> JanusFlowPipeline:
        """As `BasePipeline.to`; graphs are compiled again for another device or dtype."""
        super().to(*args, **kwargs)
        return self.compile(**self._compile_options) if self._compiled else self
