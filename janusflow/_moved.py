"""Import paths of release 0.1, which work for one more release.

An old path gives the same module as the new one, with a warning that names the new path. A copy
would have separate registries and limits.
"""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

MOVED = {  # below janusflow: the whole new path
    "configuration_janusflow": "janusflow.models.janusflow.configuration",
    "modeling_janusflow": "janusflow.models.janusflow.modeling",
    "convnext": "janusflow.models.janusflow.generation_adapters",
    "vision": "janusflow.models.janusflow.vision",
    "prompts": "janusflow.models.prompt_cache",
    "processing_janusflow": "janusflow.models.janusflow.processing",
    "pixels": "janusflow.models.janusflow.image_processing",
    "chat": "janusflow.models.janusflow.chat_format",
    "tokenizer": "janusflow.models.janusflow.tokenizer",
    "processor_files": "janusflow.models.processor_files",
    "autoencoder": "janusflow.models.autoencoder",
    "autoencoder_files": "janusflow.models.autoencoder_loading",
    "adapters": "janusflow.models.lora",
    "attention_maps": "janusflow.models.attention_capture",
    "compiled": "janusflow.models.janusflow.compiled_velocity",
    "reuse": "janusflow.models.janusflow.first_block_cache",
    "pro.model": "janusflow.models.janus_pro.loading",
    "pro.original": "janusflow.models.janus_pro.convert",
    "pro.tensors": "janusflow.models.janus_pro.tensors",
    "pro.processing": "janusflow.models.janus_pro.processing",
    "pro.cache": "janusflow.models.janus_pro.kv_cache",
    "pro.sampling": "janusflow.models.janus_pro.token_sampling",
    "pro.choosing": "janusflow.models.janus_pro.token_choice",
    "pro.vq": "janusflow.models.janus_pro.vq",
    "pro.tall": "janusflow.utils.cpu.tall_linear",
    "loading": "janusflow.pipelines.auto_pipeline",
    "families": "janusflow.cli.model_families",
    "pipeline_janusflow": "janusflow.pipelines.pipeline_janusflow",
    "pro.pipeline": "janusflow.pipelines.pipeline_janus_pro",
    "adapted": "janusflow.pipelines.lora_mixin",
    "conversation": "janusflow.pipelines.conversation",
    "sharing": "janusflow.pipelines.prefix_cache",
    "asking": "janusflow.pipelines.answering",
    "editing": "janusflow.pipelines.editing",
    "runs": "janusflow.pipelines.outputs",
    "quality": "janusflow.pipelines.presets",
    "memory": "janusflow.pipelines.memory",
    "pictures": "janusflow.pipelines.image_io",
    "batch": "janusflow.cli.batch",
    "data.images": "janusflow.utils.images",
    "data.ahead": "janusflow.data.prefetch",
    "data.cache": "janusflow.data.feature_cache",
    "data.order": "janusflow.data.permutation",
    "data.packing": "janusflow.models.janusflow.packing",
    "data.tars": "janusflow.data.tar_index",
    "losses": "janusflow.training.losses",
    "alignment": "janusflow.training.alignment.repa",
    "teachers": "janusflow.training.alignment.teachers",
    "similarity": "janusflow.training.alignment.similarity",
    "times": "janusflow.training.timestep_sampling",
    "optimizers": "janusflow.training.optimizers",
    "recipes": "janusflow.training.recipes",
    "vision_training": "janusflow.training.vision_pretraining",
    "training.engine": "janusflow.training.trainer",
    "training.settings": "janusflow.training.config",
    "training.stages": "janusflow.training.config_stages",
    "training.launch": "janusflow.training.job",
    "training.runner": "janusflow.training.loop",
    "training.state": "janusflow.training.ema",
    "training.monitor": "janusflow.training.metrics",
    "training.caching": "janusflow.training.cached_features",
    "training.worlds": "janusflow.training.init_checkpoint",
    "training.speed": "janusflow.utils.flops",
    "training.throughput": "checks.throughput",
    "shapes": "janusflow.scenes.shapes",
    "captions": "janusflow.scenes.captions",
    "questions": "janusflow.scenes.questions",
    "scorer": "janusflow.scenes.scorer",
    "scene_patches": "janusflow.scenes.patches",
    "scene_batches": "janusflow.scenes.batches",
    "evaluation.answers": "janusflow.evaluation.tasks.vqa",
    "evaluation.judging": "janusflow.evaluation.tasks.judge",
    "evaluation.round_trip": "janusflow.evaluation.tasks.round_trip",
    "evaluation.scenes": "janusflow.evaluation.tasks.scenes",
    "evaluation.official": "janusflow.evaluation.tasks.official",
    "evaluation.results": "janusflow.evaluation.tasks.official_results",
    "evaluation.distances": "janusflow.evaluation.tasks.distances",
    "evaluation.items": "janusflow.evaluation.task",
    "evaluation.filling": "janusflow.evaluation.resume",
    "evaluation.engine": "janusflow.evaluation.runner",
    "evaluation.drawing": "janusflow.evaluation.figures",
    "evaluation.command": "janusflow.cli.commands.evaluate_actions",
    "statistics": "janusflow.evaluation.intervals",
    "plots": "janusflow.evaluation.plots",
    "piloting": "janusflow.cli.commands.pilot_grid",
    "inspection": "janusflow.cli.commands.info_janusflow",
    "pro.inspection": "janusflow.cli.commands.info_janus_pro",
    "demo.wishes": "janusflow.demo.requests",
    "demo.work": "janusflow.demo.actions",
    "integrations.report": "janusflow.integrations.benchmark_report",
    "speed": "janusflow.bench.speed",
    "published": "janusflow.bench.reference_sampler",
    "pro.bench": "janusflow.bench.janus_pro",
    "sources": "janusflow.utils.hub",
    "reading": "janusflow.utils.safe_io",
    "model_files": "janusflow.utils.checkpoint_files",
    "stored": "janusflow.utils.atomic_io",
    "folders": "janusflow.utils.locked_dir",
    "limits": "janusflow.utils.limits",
    "finite": "janusflow.utils.finite",
    "devices": "janusflow.utils.devices",
    "linear": "janusflow.utils.cpu.onednn_linear",
    "heap": "janusflow.utils.cpu.malloc",
    "ablate": "studies.alignment.run",
    "ablate_lab": "studies.alignment.models",
    "pro.train": "studies.janus_pro_scenes.train",
    "pro.versus": "studies.janus_pro_scenes.versus",
    "data.options": "janusflow.data.read_options",
    "data.attention": "janusflow.models.janusflow.packed_attention",
    "training.objective": "janusflow.training.loss_module",
    "demo.server": "janusflow.demo.launch",
    "evaluation.comparison": "janusflow.evaluation.report_comparison",
}
PRO = "janusflow.pro"  # a package that is gone; its names and files are looked up one by one
PRO_NAMES = ("JanusProOutput", "JanusProPipeline", "JanusProProcessor")


class Moved:
    """Finds `janusflow.old` by importing its new path, also in `python -m janusflow.old`."""

    def find_spec(self, fullname: str, path=None, target=None):  # noqa: ARG002
        if fullname == PRO:
            return ModuleSpec(fullname, self, is_package=True)
        known = fullname.startswith("janusflow.") and fullname.removeprefix("janusflow.") in MOVED
        return ModuleSpec(fullname, self, origin=file_of(new_path(fullname))) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        if spec.name == PRO:
            return None
        new = new_path(spec.name)
        warnings.warn(
            f"{spec.name} is now {new}; the old path ends with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        module = import_module(new)
        spec.loader_state = module.__spec__  # importing under the old name replaces it
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == PRO:
            module.__getattr__ = _of_pro
        else:
            module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str):
        """Returns the code that `python -m` runs: the module under its new path."""
        return import_module(new := new_path(fullname)).__spec__.loader.get_code(new)


def file_of(name: str) -> str | None:
    """Returns the file of a module, or None if the module cannot be found."""
    try:
        return find_spec(name).origin
    except ModuleNotFoundError:  # studies and checks, outside the repository
        return None


def new_path(old: str) -> str:
    return MOVED[old.removeprefix("janusflow.")]


def _of_pro(name: str):
    if name in PRO_NAMES:
        return getattr(import_module("janusflow.pipelines.pipeline_janus_pro"), name)
    raise AttributeError(f"module {PRO!r} has no attribute {name!r}")


def install() -> None:
    """Makes the old paths importable. Calling it again does nothing."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
