"""Runs a training in a folder: starts or resumes it, locks the folder, and exports the result."""

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from janusflow.models import lora
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import checkpoints
from janusflow.training import held_out as evaluations
from janusflow.training.build import build
from janusflow.training.config import Settings, dump
from janusflow.training.ema import State, averages, freeze_all_but, load_weights
from janusflow.training.encoding import weights_of
from janusflow.training.export import export
from janusflow.training.held_out import HeldOut, evaluate
from janusflow.training.metrics import Monitor, cut
from janusflow.training.preview import Preview, check
from janusflow.training.stopping import asked_to_stop
from janusflow.training.trainer import BatchSource, Trainer
from janusflow.utils import locked_dir
from janusflow.utils.flops import Meter
from janusflow.utils.keywords import old_names

__all__ = ["RunEnd", "export", "run", "trainer_of"]

SETTINGS = "settings.yaml"
ADVICE = (
    "The state is saved. Resume from it with a lower training.lr or max_grad_norm, or skip "
    "such steps by --set run.max_bad_steps={number} ({skipped} were skipped so far). If the "
    "weights have grown too large already, remove this checkpoint and resume from the one "
    "before"
)
CHANGES = "changes.jsonl"  # of settings, where a run was resumed with others


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: at its last step, or at the step where a signal asked it to stop.

    The signal is 0 if another process of the run received it.
    """

    state: State
    finished: bool
    signal: int = 0


def run(
    trainer: Trainer,
    out: Path,
    meta: dict[str, str] | None = None,
    start: Path | None = None,
    preview: Preview | None = None,
    held_out: HeldOut | None = None,
) -> RunEnd:
    """Trains to the end, resuming from the newest complete checkpoint in `out`.

    A new run starts from the averaged weights of the run in `start`, if given. `held_out` is
    evaluated every `run.evaluate_every` steps and at the end. The first process draws `preview`
    every `run.sample_every` steps and at the end.
    """
    meta = (meta or {}) | ({"base": trainer.base} if trainer.base else {})
    if not trainer.restore(out, meta) and start:
        load_weights(trainer.state, averages(checkpoints.latest(start)[1]))
    settings = trainer.settings
    _check_length(trainer, out)
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
    if trainer.rank == 0:
        cut(out / evaluations.FILE, trainer.state.step)
    with asked_to_stop() as asked, together(out):
        while trainer.state.step < steps:
            with kept_on_failure(trainer, out, meta):
                found = _step(trainer, monitor, bool(asked()))
            stop = found is not None and found["stop"]
            if found is not None:  # else the step was skipped
                monitor.add(found)
            step = trainer.state.step
            if preview and (step % settings.run.sample_every == 0 or step == steps):
                preview(trainer, out)
            if held_out and (step % settings.run.evaluate_every == 0 or step == steps):
                evaluate(held_out, trainer, out, meta)
            if step % settings.run.save_every == 0 or step == steps or stop:
                trainer.save(out, meta)
            if stop:
                break
    monitor.close()
    if trainer.rank == 0 and trainer.state.step < steps:
        where = f"stopped at step {trainer.state.step} of {steps}"
        print(f"janusflow: {where}; {locked_dir.stays(out)}", file=sys.stderr)
    return RunEnd(trainer.state, trainer.state.step == steps, asked())


def _check_length(trainer: Trainer, out: Path) -> None:
    """Raises ValueError for a run that is longer than requested; warns about a complete one."""
    step, steps = trainer.state.step, trainer.settings.steps
    if step > steps:
        raise ValueError(
            f"{out} holds a run of {step} steps already, training.steps={steps} asks for fewer; "
            "give more steps, or choose another --out"
        )
    if step == steps and trainer.rank == 0:
        told = f"{out} has all its {steps} steps; give more by training.steps to go on"
        print(f"janusflow: {told}", file=sys.stderr)


def _record(trainer: Trainer, out: Path) -> None:
    """Prints the settings that change at this step, and records them in the folder."""
    if not trainer.changes:
        return
    step = trainer.state.step
    named = {name: {"from": old, "to": new} for name, (old, new) in trainer.changes.items()}
    with open(out / CHANGES, "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "changed": named}) + "\n")
    told = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in trainer.changes.items())
    print(f"janusflow: from step {step} on: {told}", file=sys.stderr)


def _step(trainer: Trainer, monitor: Monitor, stop: bool) -> dict | None:
    """Performs a step and counts the operations of the first one.

    It returns None if a loss or gradient was not finite and the step may be skipped.
    """
    try:
        if monitor.meter is None:
            monitor.meter, found = Meter.of(trainer, stop)
            return found
        return trainer.step(stop=stop)
    except FloatingPointError as error:
        most = trainer.settings.run.max_bad_steps
        if len(trainer.skipped) >= most:
            raise FloatingPointError(
                f"{error} {ADVICE.format(number=most + 1, skipped=len(trainer.skipped))}"
            ) from error
        trainer.skip()
        monitor.skip()
        if trainer.rank == 0:
            print(f"janusflow: {error}; the step is skipped", file=sys.stderr)
        return None


@contextmanager
def kept_on_failure(trainer: Trainer, out: Path, meta: dict[str, str]):
    """A context that saves the state if a step fails before any weight was updated.

    When a GPU runs out of memory the error says what to do.
    """
    try:
        yield
    except Exception as error:
        together = trainer.world == 1 or isinstance(error, FloatingPointError)
        if trainer.settled and together:
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.save(out, meta)
        if isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(_less_memory(trainer)) from error
        raise


def _less_memory(trainer: Trainer) -> str:
    stage, run = trainer.settings.at(trainer.state.step).training, trainer.settings.run
    align = trainer.settings.alignment
    ways = []
    if align is None or align.kind == "teacher":
        ways.append(f"run.accumulation={2 * run.accumulation} (smaller parts, the same training)")
    if not run.gradient_checkpointing:
        ways.append("run.gradient_checkpointing=true (slower, the same training)")
    if trainer.settings.adapter is None:
        ways.append("adapter.rank=8 in a new run (trains far fewer numbers)")
    return (
        f"the GPU's memory ran out at step {trainer.state.step} (batch {stage.batch}, "
        f"{run.accumulation} micro-batches a process, packs of {stage.capacity} places); set "
        f"{', or '.join(ways)}, or lower training.batch"
    )


@contextmanager
def together(out: Path):
    """A context that raises OSError with advice if another process of the run is gone."""
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
    """Returns a trainer for the model in `folder`, in float32.

    The stage's parts are trainable, or adapters on them instead; `vae` is needed by objectives that
    look at images.
    """
    model = JanusFlowModel.from_pretrained(folder, dtype=torch.float32)
    base = weights_of(model)
    model.config.image_grid = settings.training.image_grid or model.config.image_grid
    freeze_all_but(model, settings.training.trainable)
    if settings.adapter is not None:
        lora.add(model, settings.adapter, settings.training.seed)
    made = build(settings, model, data, accelerator, vae)
    made.base = base
    made.objective.main.begin(Path(folder))
    return made


__getattr__ = old_names(__name__, {"engine_of": "trainer_of", "Stopped": "RunEnd"})
