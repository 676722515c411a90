"""A whole run in a folder: made, gone on with, kept from being run twice, exported."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from janusflow.models import lora
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import checkpoints, init_checkpoint
from janusflow.training.config import Settings, dump
from janusflow.training.ema import State, freeze_all_but, load_weights
from janusflow.training.encoding import weights_of
from janusflow.training.metrics import Monitor
from janusflow.training.preview import Preview, check
from janusflow.training.recipes import Recipe
from janusflow.training.trainer import BatchSource, Trainer, asked_to_stop, build
from janusflow.utils import locked_dir
from janusflow.utils.flops import Meter
from janusflow.utils.hub import FLOW_MAP, SUMS
from janusflow.utils.renamed import old_names

SETTINGS = "settings.yaml"
CHANGES = "changes.jsonl"  # of settings, where a run was resumed with others


@dataclass(frozen=True)
class Stopped:
    """How a run ended: at its last step, or at the step where it was asked to."""

    state: State
    finished: bool


def run(
    trainer: Trainer,
    out: Path,
    meta: dict[str, str] | None = None,
    start: Path | None = None,
    preview: Preview | None = None,
) -> Stopped:
    """Trains to the end, going on from the last whole checkpoint in `out`.

    A new run begins with the weights, not the optimizer, of the run in `start` if one is given.
    The first process draws `preview` every `run.sample_every` steps and at the end.
    """
    meta = (meta or {}) | ({"base": trainer.base} if trainer.base else {})
    if not trainer.restore(out, meta) and start:
        load_weights(trainer.state, checkpoints.latest(start)[1])
    settings = trainer.settings
    if trainer.rank == 0:
        locked_dir.write(out / SETTINGS, dump(settings))
        _record(trainer, out)
    if settings.run.trackers:
        named = {"name": out.resolve().name}
        kwargs = {"wandb": {"dir": str(out), **named}, "trackio": named}
        trainer.accelerator.init_trackers("janusflow", init_kwargs=kwargs)
    monitor, steps = Monitor(trainer, out), settings.steps
    if preview is not None:
        check(trainer.state)
    preview = preview if trainer.rank == 0 else None
    with asked_to_stop() as asked, together(out):
        while trainer.state.step < steps:
            found = _step(trainer, monitor, asked())
            monitor.add(found)
            step = trainer.state.step
            if preview and (step % settings.run.sample_every == 0 or step == steps):
                preview(trainer, out)
            if step % settings.run.save_every == 0 or step == steps or found["stop"]:
                trainer.save(out, meta)
            if found["stop"]:
                break
    monitor.close()
    if trainer.rank == 0 and trainer.state.step < steps:
        where = f"stopped at step {trainer.state.step} of {steps}"
        print(f"janusflow: {where}; {locked_dir.stays(out)}", file=sys.stderr)
    return Stopped(trainer.state, trainer.state.step == steps)


def _record(trainer: Trainer, out: Path) -> None:
    """Says what of the settings changes at this step, and keeps it in the folder."""
    if not trainer.changes:
        return
    step = trainer.state.step
    named = {name: {"from": old, "to": new} for name, (old, new) in trainer.changes.items()}
    with open(out / CHANGES, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "changed": named}) + "\n")
    told = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in trainer.changes.items())
    print(f"janusflow: from step {step} on: {told}", file=sys.stderr)


def _step(trainer: Trainer, monitor: Monitor, stop: bool) -> dict:
    """A step; the operations of the first one are counted."""
    if monitor.meter is None:
        monitor.meter, found = Meter.of(trainer, stop)
        return found
    return trainer.step(stop=stop)


@contextmanager
def together(out: Path):
    """OSError with what to do where another process of the run is gone."""
    try:
        yield
    except RuntimeError as error:  # gloo has no exception of its own
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
        if not torch.distributed.is_initialized() or not lost:
            raise
        raise OSError(
            f"another process of this run ended or cannot be reached; {locked_dir.stays(out)}"
        ) from error


def trainer_of(
    settings: Settings, folder: Path, data: BatchSource, accelerator=None, vae=None
) -> Trainer:
    """A trainer for the model in `folder`, in float32, with what the stage trains unfrozen, or
    adapters there instead; `vae` is for objectives that look at images.
    """
    model = JanusFlowModel.from_pretrained(folder, dtype=torch.float32)
    base = weights_of(model)
    freeze_all_but(model, settings.training.trainable)
    if settings.adapter is not None:
        lora.add(model, settings.adapter, settings.training.seed)
    made = build(settings, model, data, accelerator, vae)
    made.base = base
    return made


def export(run: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes the averaged weights of a run's newest checkpoint in the published layout, or, where
    an adapter was trained, that alone in peft's.
    """
    _, found, meta = checkpoints.latest(run)
    base = Path(meta.get("model", run / "base"))
    if adapter := checkpoints.settings_of(meta).get("adapter"):
        return _export_adapter(folder, lora.Adapter(**adapter), found, base)
    if "recipe" in meta:
        init_checkpoint.first_model(Recipe.from_json(meta["recipe"]), base)
    model = JanusFlowModel.from_pretrained(base, dtype=torch.float32)
    own = model.state_dict()
    for name in own:
        for key in (f"ema.model.{name}", f"ema.{name}"):  # the second as once written
            if key in found:
                own[name].copy_(found[key])
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*base.glob("*.json"), *run.glob(FLOW_MAP)):
        shutil.copy(file, folder)
    model.to(dtype).save_pretrained(folder)
    (folder / SUMS).unlink(missing_ok=True)  # of what was there before
    if (base / "vae").exists():
        shutil.copytree(base / "vae", folder / "vae", dirs_exist_ok=True)


def _export_adapter(folder: Path, adapter: lora.Adapter, found: dict, base: Path) -> None:
    start = "ema.model."
    own = {k.removeprefix(start): value for k, value in found.items() if k.startswith(start)}
    lora.save(folder, adapter, own, str(base))


__getattr__ = old_names(__name__, {"engine_of": "trainer_of"})
