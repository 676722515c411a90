"""Builds a trainer: accelerate, losses, optimizer and moving averages."""

import copy
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from torch import Tensor, nn

from janusflow.models.janusflow.packed_attention import use_packed_attention
from janusflow.training.alignment import repa
from janusflow.training.config import Settings
from janusflow.training.ema import State, trained
from janusflow.training.loss_module import LossModule
from janusflow.training.optimizers import OPTIMIZERS
from janusflow.training.trainer import BatchSource, Trainer

LOOKED_AT = 256  # steps whose numbers of samples are looked at


def accelerator_of(settings: Settings, out: Path | None = None) -> Accelerator:
    """Returns an Accelerator from the environment (`accelerate launch`) and the settings.

    Raises ModuleNotFoundError for a tracker that is not installed, which accelerate would ignore.
    """
    run = settings.run
    if missing := set(run.trackers) - set(map(str, get_available_trackers())):
        name = min(missing)
        raise ModuleNotFoundError(
            f"run.trackers names {name}, which is not installed; run pip install {name}", name=name
        )
    cuda = torch.cuda.is_available()
    precision = {"auto": "bf16" if cuda else "no"}.get(run.mixed_precision, run.mixed_precision)
    made = Accelerator(
        gradient_accumulation_steps=run.accumulation,
        mixed_precision=precision,
        cpu=not cuda,
        log_with=list(run.trackers) or None,
        project_dir=out,
    )
    _shard_on_cpu(made)
    return made


def _shard_on_cpu(accelerator: Accelerator) -> None:
    """Passes FSDP's settings to accelerate, which on a CPU ignores them; torch shards over gloo."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()


def build(
    settings: Settings,
    model: nn.Module,
    data: BatchSource,
    accelerator: Accelerator | None = None,
    vae: nn.Module | None = None,
) -> Trainer:
    """Returns a trainer at step 0 for a model; its trainable parts must require gradients.

    `vae` is needed by objectives that look at images.
    """
    accelerator = accelerator or accelerator_of(settings)
    stage, run = settings.training, settings.run
    if run.packed:
        use_packed_attention(model)
    if run.gradient_checkpointing:
        # newer versions of transformers renamed it
        new = getattr(model, "activation_checkpointing_enable", None)
        (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
    _check_compared(settings, accelerator.num_processes)
    needs_average = settings.alignment is not None and settings.alignment.teacher == "ema"
    averaged = copy.deepcopy(model).requires_grad_(False).eval() if needs_average else None
    torch.manual_seed(stage.seed)  # whatever was drawn before
    aligner = None
    if settings.alignment is not None and settings.alignment.weight:
        aligner = repa.build(settings.alignment, model, averaged)
    module = LossModule(model.train(), aligner, stage, run.packed, settings.objective, vae)
    module.touched = accelerator.num_processes > 1
    named = list(trained(module))
    numbers = stage.lr, stage.betas, stage.weight_decay
    optimizer = OPTIMIZERS[stage.optimizer](named, *numbers, stage.rate_of)
    names = _in_order(optimizer, named)
    module, prepared = accelerator.prepare(module, optimizer)
    ema = {name: p.detach().clone() for name, p in trained(module)}
    state = State(module=module, optimizer=prepared.optimizer, names=names, ema=ema)
    if averaged is not None:
        _share_averages(averaged.to(accelerator.device), ema)
    if run.watch_every and any(hasattr(value, "to_local") for value in ema.values()):
        raise ValueError(
            "run.watch_every inspects single gradients, which sharded weights do not allow; train "
            "with DDP, or set it to 0"
        )
    made = Trainer(settings, accelerator, module, state, prepared, data)
    made._follow()
    return made


def _check_compared(settings: Settings, processes: int) -> None:
    """Raises ValueError for a loss that compares samples, if a process has none in some step."""
    align, stage = settings.alignment, settings.training
    if processes == 1 or align is None or align.kind == "teacher" or not align.weight:
        return
    counts = (
        stage.counts(step).get("generation", 0) for step in range(min(stage.steps, LOOKED_AT))
    )
    if (least := min((count for count in counts if count), default=processes)) < processes:
        raise ValueError(
            f"the alignment {align.kind!r} compares images of all processes, and a step has "
            f"{least} for {processes} processes; give at least one to each by training.batch"
        )


def _in_order(optimizer: torch.optim.Optimizer, named: list) -> list[str]:
    names = {id(parameter): name for name, parameter in named}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _share_averages(averaged: nn.Module, ema: dict[str, Tensor]) -> None:
    """Lets a complete model read the averaged weights in place."""
    if any(hasattr(value, "to_local") for value in ema.values()):
        raise ValueError(
            "the teacher 'ema' cannot read sharded weights; train it with DDP, not with FSDP"
        )
    for name, parameter in averaged.named_parameters():
        if (value := ema.get(f"model.{name}")) is not None:
            parameter.data = value
