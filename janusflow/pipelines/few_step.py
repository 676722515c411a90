"""A quality that a distilled sibling generates, whose weights are loaded when they are first asked.

`few-step.json` beside a model's weights names it: {"draft": {"model": "janusflow/scenes-few",
"evaluations": 4}}. Any option that a flow map has no answer to leaves the call to the model's own
weights, and so does any change of these: the sibling was distilled from what they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path
from threading import Lock

import torch
from torch import nn

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.pipelines.flow_maps import FlowMapGrid
from janusflow.pipelines.memory.forecasts import held
from janusflow.pipelines.presets import FLOW_MAP, QUALITIES, Quality, grid_file, jumps
from janusflow.utils import hub
from janusflow.utils.atomic_io import write_text
from janusflow.utils.safe_io import parse_object, read_text

OWN = ("sampler", "num_inference_steps", "grid", "first_block_cache", "image", "compile", "lora")
_LOADING = Lock()  # one thread loads, the others find it loaded


class FewStep:
    """A flow map by name, and in how many evaluations it generates."""

    def __init__(self, model: str, evaluations: int):
        self.model, self.evaluations = model, evaluations
        self._loaded: JanusFlowModel | None = None

    @cached_property
    def folder(self) -> Path:
        """Where it lies; ValueError if it is nowhere."""
        return hub.locate(self.model)

    @cached_property
    def grid(self) -> FlowMapGrid:
        """The times that it was trained between; ValueError for a model that is no flow map."""
        path = grid_file(self.folder, FLOW_MAP)
        if not path.is_file():
            raise ValueError(
                f"{hub.FEW_STEP} names {self.model!r}, which is no flow map ({path.name} is "
                "missing); name one that janusflow distill made"
            )
        return FlowMapGrid.load(path)

    @property
    def quality(self) -> Quality:
        """Its solver, evaluations and times."""
        return jumps(self.grid, self.evaluations)

    def beside(self, model: JanusFlowModel, device: torch.device) -> JanusFlowModel:
        """The flow map in a model's dtype on a device; loaded by the first call.

        ValueError where it takes other tokens or latents than that model.
        """
        with _LOADING:
            if self._loaded is None:
                found = JanusFlowModel.from_pretrained(self.folder, dtype=model.dtype).eval()
                _check_alike(model.config, found.config, self.model)
                self._loaded = found
            return self._loaded.to(device, model.dtype)

    @property
    def bytes(self) -> int:
        """What its weights take by now: nothing before the first call."""
        return 0 if self._loaded is None else held(self._loaded)


def _check_alike(own, other, name: str) -> None:
    for what, of in (
        ("vocabulary", lambda c: c.language_config.vocab_size),
        ("latent channels", lambda c: c.generation.latent_channels),
        ("image side", lambda c: c.vision.image_size),
    ):
        if of(own) != of(other):
            raise ValueError(
                f"{name!r} has another {what} ({of(other)}) than the model it stands in for "
                f"({of(own)}); remove {hub.FEW_STEP}, or distil from this model"
            )


def read(folder: Path) -> dict[str, FewStep]:
    """The flow maps that a folder names, by quality; ValueError for a file of another kind."""
    path = Path(folder) / hub.FEW_STEP
    if not path.is_file():
        return {}
    told = parse_object(read_text(path, "config_bytes"), path)
    return {name: _entry(path, name, entry) for name, entry in told.items()}


def _entry(path: Path, quality: str, entry) -> FewStep:
    match entry:
        case {"model": str(name), "evaluations": int(count)} if quality in QUALITIES and count > 0:
            return FewStep(name, count)
    raise ValueError(
        f"{path} says {quality!r:.40}: {entry!r:.120}; expected a quality ({', '.join(QUALITIES)}) "
        'with {"model": name, "evaluations": number}'
    )


def save(found: Mapping[str, FewStep], folder: Path) -> None:
    """Writes the file into a model's folder, or removes it where there are none."""
    path = Path(folder) / hub.FEW_STEP
    if not found:
        return path.unlink(missing_ok=True)
    told = {q: dict(model=f.model, evaluations=f.evaluations) for q, f in found.items()}
    write_text(path, json.dumps(told))


def choose(
    found: Mapping[str, FewStep], quality: str, options, guidance: object, side: int
) -> FewStep | None:
    """The sibling that generates this call, or None where the model's own weights do: for another
    quality, another guidance than it was distilled with, and any option of `OWN`, a negative
    prompt, or a size that is not the model's own.
    """
    few = found.get(quality)
    if few is None or any(_given(getattr(options, name, None)) for name in OWN):
        return None
    sides = {getattr(options, name, None) for name in ("height", "width")}
    if getattr(options, "negative_prompt", None) or sides - {None, side}:
        return None
    weighed = isinstance(guidance, Real) and not isinstance(guidance, bool)
    return few if weighed and guidance == few.grid.guidance else None


def _given(value) -> bool:
    return value is not None and value is not False


def state(model: nn.Module) -> list[tuple[int, int]]:
    """Which tensors a model's parameters are and how often each was written to, so that training,
    merging or replacing any of them shows.
    """
    return [(id(p), 0 if p.is_inference() else p._version) for p in model.parameters()]
