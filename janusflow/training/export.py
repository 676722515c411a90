"""Exports a run as a model: its averaged weights over its initial model, in the published layout.

In float32 such a folder holds the averages exactly as in training, so another run can start from
it.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from janusflow.models import lora
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import checkpoints, init_checkpoint
from janusflow.training.ema import freeze_all_but
from janusflow.training.recipes import Recipe
from janusflow.utils.hub import FEW_STEP, FLOW_MAP, PACKAGED, REFLOW, SUMS, locate

BASE = "base"  # the folder, in a run's, of the model that it began with
BEST = "best"  # the folder, in a run's, of its best state


def export(
    run: Path,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    model: str | None = None,
    best: bool = False,
) -> None:
    """Writes the averaged weights of a run's newest checkpoint, or of its `best` by
    `run.keep_best`.

    The layout is the published one, or peft's if an adapter was trained. `model` is the initial
    model if it was moved. Raises ValueError for a run without a checkpoint, and for a folder that
    holds that model.
    """
    _, found, meta = checkpoints.latest(run / BEST if best else run, _is_average)
    base, settings = base_of(run, meta, model), checkpoints.settings_of(meta)
    check_target(folder, base)
    if adapter := settings.get("adapter"):
        lora.save(folder, lora.Adapter(**adapter), _averages(found), meta.get("model", str(base)))
        return
    write(_over(base, found, meta), base, folder, dtype)
    for file in (*run.glob(FLOW_MAP), *run.glob(REFLOW)):
        shutil.copy(file, folder)


def check_target(folder: Path, base: Path) -> None:
    """Raises ValueError for an export over a file, or over the model that the run goes back to."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the export {str(folder)!r} is a file; name a folder")
    if folder.exists() and base.exists() and folder.samefile(base):
        raise ValueError(
            f"the export {str(folder)!r} is the model that the run began with, which the run still "
            "needs; name another folder"
        )


def start_from(run: Path, out: Path, model: str | None = None) -> Path:
    """Returns the initial model of a new run in `out`, made from another run's averaged weights.

    They are put over that run's own initial model (or over `model`) in float32, with an adapter
    merged. The folder is written into `out`, so that `out` holds all that the run needs.
    """
    _, found, meta = checkpoints.latest(run, _is_average)
    under = base_of(run, meta, model)
    return _stored(_over(under, found, meta), under, out)


def store(folder: Path, out: Path) -> Path:
    """Returns the initial model of a new run in `out`, a float32 copy of the model in `folder`."""
    return _stored(JanusFlowModel.from_pretrained(folder, dtype=torch.float32), folder, out)


def _stored(model: nn.Module, under: Path, out: Path) -> Path:
    """Writes a model into `out` in float32, in place of one that no checkpoint was made from."""
    base = out / BASE
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".base-") as folder:
        part = Path(folder) / BASE
        write(model, under, part, torch.float32)
        if base.exists():
            shutil.rmtree(base)
        os.replace(part, base)
    return base


def is_model(folder: Path) -> bool:
    """Returns whether `folder` is a packaged model's name, or holds a model and not a run."""
    if str(folder) in PACKAGED:
        return True
    return (folder / "config.json").is_file() and not checkpoints.complete(folder)


def base_of(run: Path, meta: Mapping[str, str], model: str | None = None) -> Path:
    """Returns the folder of a run's initial model: `model`, or what the run's files say."""
    if model is not None:
        return locate(model)
    if run.name == BEST and checkpoints.complete(run.parent):
        run = run.parent
    if "recipe" in meta and "init_from" not in meta:  # else it cannot be made anew
        init_checkpoint.first_model(Recipe.from_json(meta["recipe"]), run / BASE)
        return run / BASE
    named = meta.get("model", BASE)
    if (run / named / "config.json").is_file():
        return run / named
    try:
        return locate(named)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the model that the run in {run} began with is not at {named!r} any more; name it by "
            "--model"
        ) from error


def named_from(model: str, out: Path) -> str:
    """Returns how a run in `out` refers to its initial model.

    A folder is referred to by its path relative to `out`, so that both may be moved together; a hub
    name stays as it is.
    """
    path = Path(model)
    if model in PACKAGED or not path.is_dir():
        return model
    return os.path.relpath(path.resolve(), out.resolve())


def write(model: nn.Module, base: Path, folder: Path, dtype: torch.dtype) -> None:
    """Writes a model with the other files of `base`."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in base.glob("*.json"):
        # not the index of weights in several files, nor what was distilled from other weights
        if not file.name.endswith(".index.json") and file.name != FEW_STEP:
            shutil.copy(file, folder)
    model.to(dtype).save_pretrained(folder)
    (folder / SUMS).unlink(missing_ok=True)  # of what was there before
    if (base / "vae").exists():
        shutil.copytree(base / "vae", folder / "vae", dirs_exist_ok=True)


def _is_average(name: str) -> bool:
    return name.startswith("ema.")


def _averages(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the averages under the model's own names."""
    start = "ema.model."
    own = {k.removeprefix(start): value for k, value in found.items() if k.startswith(start)}
    return own or {k.removeprefix("ema."): v for k, v in found.items() if k.startswith("ema.")}


@torch.no_grad()
def _over(base: Path, found: Mapping[str, Tensor], meta: Mapping[str, str]) -> nn.Module:
    """Returns the model in `base` with a checkpoint's averages, in float32; `meta` says how they
    were trained.
    """
    settings = checkpoints.settings_of(meta)
    model = JanusFlowModel.from_pretrained(base, dtype=torch.float32)
    grid = (settings.get("training") or {}).get("image_grid")
    model.config.image_grid = grid or model.config.image_grid
    model.config.image_editing = "edits" in meta or model.config.image_editing
    adapter = settings.get("adapter")
    if adapter:
        freeze_all_but(model, tuple(_trainable(settings)))
        lora.add(model, lora.Adapter(**adapter))
    own = model.state_dict()
    for name, value in _averages(found).items():
        if name in own:
            own[name].copy_(value)
    if adapter:
        lora.merge(model)
    return model


def _trainable(settings: Mapping) -> list[str]:
    stage = settings["training"]
    return stage["trainable"] if "trainable" in stage else stage["trains"]
