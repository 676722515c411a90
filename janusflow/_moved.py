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

HOMES = {  # package: the files that moved there, as old or, with another name, old=new
    "checks": "training.throughput=throughput",
    "janusflow.bench": "speed published=reference_sampler pro.bench=janus_pro",
    "janusflow.cli": "families=model_families batch",
    "janusflow.cli.commands": (
        "evaluation.command=evaluate_actions piloting=pilot_grid inspection=info_janusflow "
        "pro.inspection=info_janus_pro"
    ),
    "janusflow.data": (
        "data.ahead=prefetch data.cache=feature_cache data.order=permutation data.tars=tar_index "
        "data.options=read_options"
    ),
    "janusflow.demo": "demo.wishes=requests demo.work=actions demo.server=launch",
    "janusflow.evaluation": (
        "evaluation.items=task evaluation.filling=resume evaluation.engine=runner "
        "evaluation.drawing=figures statistics=intervals plots "
        "evaluation.comparison=report_comparison"
    ),
    "janusflow.evaluation.tasks": (
        "evaluation.answers=vqa evaluation.judging=judge evaluation.round_trip=round_trip "
        "evaluation.scenes=scenes evaluation.official=official "
        "evaluation.results=official_results evaluation.distances=distances"
    ),
    "janusflow.integrations": "integrations.report=benchmark_report",
    "janusflow.models": (
        "prompts=prompt_cache processor_files autoencoder autoencoder_files=autoencoder_loading "
        "adapters=lora attention_maps=attention_capture"
    ),
    "janusflow.models.janus_pro": (
        "pro.model=loading pro.original=convert pro.tensors=tensors pro.processing=processing "
        "pro.cache=kv_cache pro.sampling=token_sampling pro.choosing=token_choice pro.vq=vq"
    ),
    "janusflow.models.janusflow": (
        "configuration_janusflow=configuration modeling_janusflow=modeling "
        "convnext=generation_adapters vision processing_janusflow=processing "
        "pixels=image_processing chat=chat_format tokenizer compiled=compiled_velocity "
        "reuse=first_block_cache data.packing=packing data.attention=packed_attention"
    ),
    "janusflow.pipelines": (
        "loading=auto_pipeline pipeline_janusflow pro.pipeline=pipeline_janus_pro "
        "adapted=lora_mixin conversation sharing=prefix_cache asking=answering editing "
        "runs=outputs quality=presets memory pictures=image_io"
    ),
    "janusflow.scenes": (
        "shapes captions questions scorer scene_patches=patches scene_batches=batches"
    ),
    "janusflow.training": (
        "losses times=timestep_sampling optimizers recipes vision_training=vision_pretraining "
        "training.engine=trainer training.settings=config training.stages=config_stages "
        "training.launch=job training.runner=loop training.state=ema training.monitor=metrics "
        "training.caching=cached_features training.worlds=init_checkpoint "
        "training.objective=loss_module"
    ),
    "janusflow.training.alignment": "alignment=repa teachers similarity",
    "janusflow.utils": (
        "data.images=images training.speed=flops sources=hub reading=safe_io "
        "model_files=checkpoint_files stored=atomic_io folders=locked_dir limits finite devices"
    ),
    "janusflow.utils.cpu": "pro.tall=tall_linear linear=onednn_linear heap=malloc",
    "studies.alignment": "ablate=run ablate_lab=models",
    "studies.janus_pro_scenes": "pro.train=train pro.versus=versus",
}
MOVED = {  # below janusflow: the whole new path
    word.partition("=")[0]: f"{home}.{word.rpartition('=')[2]}"
    for home, words in HOMES.items()
    for word in words.split()
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
