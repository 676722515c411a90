"""Adapters in a pipeline, by the names that users of diffusers know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import nn

from janusflow.models import lora
from janusflow.utils import hub
from janusflow.utils.hub import locate
from janusflow.utils.keywords import refuse_unknown

LORA_KEYWORDS = ("adapter_name", "weight_name", *hub.KEYWORDS)


class Adapted:
    """For a pipeline with a `model`: adapters that are loaded, weighed, merged and taken out."""

    model: nn.Module
    _lora_scale: float = 1.0  # of what is merged

    def load_lora_weights(
        self,
        name: str | Path,
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        **given,
    ) -> None:
        """Loads an adapter beside those there are, and makes it the active one.

        `name` is a folder, a hub id or a file of weights in such a folder; `weight_name` is the
        file where it is not adapter_model.safetensors, `subfolder` a folder inside, and the hub's
        keywords (`revision`, `token`, ...) are taken. ValueError for one that is for another model,
        is no plain LoRA, or is a pickle; TypeError for a keyword that nothing takes.
        """
        refuse_unknown(f"{type(self).__name__}.load_lora_weights", given, LORA_KEYWORDS)
        if weight_name is None and _is_file(name):
            name, weight_name = Path(name).parent, Path(name).name
        weight_name = weight_name or lora.WEIGHTS
        folder = locate(name, files=[lora.CONFIG, weight_name], **given)
        found, taken = lora.read(folder, weight_name), self.get_list_adapters()
        own = adapter_name or f"default_{len(taken)}"
        if not own.isidentifier() or own in taken:
            raise ValueError(
                f"adapter_name is {own!r}; expected letters, digits and _, and none of "
                f"{', '.join(taken) or 'those loaded'}"
            )
        self._unmerged("load_lora_weights")
        lora.attach(self.model, found, own)
        self.set_adapters(own)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] = 1.0
    ) -> None:
        """Makes these the active ones, their updates added with these weights; 1 as trained."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        one = isinstance(adapter_weights, int | float)
        weights = [adapter_weights] * len(names) if one else list(adapter_weights)
        known = self.get_list_adapters()
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"no adapter named {unknown[0]!r} is loaded; there are {', '.join(known) or 'none'}"
            )
        if len(weights) != len(names) or not names:
            raise ValueError(f"{len(weights)} weights came for {len(names)} adapters; one each")
        self._unmerged("set_adapters")
        for layer in self._adapted():
            layer.set_adapter(names, inference_mode=True)
            for name, weight in zip(names, weights, strict=True):
                layer.set_scale(name, weight)

    def get_list_adapters(self) -> list[str]:
        """Names of all that are loaded."""
        return list(dict.fromkeys(name for layer in self._adapted() for name in layer.lora_A))

    def get_active_adapters(self) -> list[str]:
        """Names of those that are added now."""
        on = (layer for layer in self._adapted() if not layer.disable_adapters)
        return list(dict.fromkeys(name for layer in on for name in layer.active_adapters))

    def disable_lora(self) -> None:
        """Computes what the model alone does, until `enable_lora`."""
        self._unmerged("disable_lora")
        for layer in self._adapted():
            layer.enable_adapters(False)

    def enable_lora(self) -> None:
        """Adds the active adapters again."""
        for layer in self._adapted():
            layer.enable_adapters(True)

    def fuse_lora(self, lora_scale: float = 1.0) -> None:
        """Adds the active adapters, times `lora_scale`, to the weights themselves, which then cost
        no more than the model's own. `unload_lora_weights` afterwards leaves the merged model,
        which `save_pretrained` writes.

        ValueError where none is loaded or they are merged already, or for weights that would not
        be finite.
        """
        layers = list(self._adapted())
        if not layers:
            raise ValueError("no adapter is loaded; call load_lora_weights first")
        self._unmerged("fuse_lora")
        if not 0 < abs(lora_scale) < float("inf"):
            raise ValueError(f"lora_scale is {lora_scale}; expected a finite number other than 0")
        self._lora_scale = lora_scale
        for layer in layers:
            layer.scale_layer(lora_scale)
            layer.merge(safe_merge=True)

    def unfuse_lora(self) -> None:
        """Takes merged adapters out of the weights again, up to rounding."""
        for layer in self._adapted():
            if layer.merged:
                layer.unmerge()
                layer.unscale_layer(self._lora_scale)

    def unload_lora_weights(self) -> None:
        """Removes all adapters; weights that they were merged into stay merged."""
        for name, layer in list(self.model.named_modules()):
            if hasattr(layer, "lora_A"):
                parent, _, own = name.rpartition(".")
                setattr(self.model.get_submodule(parent), own, layer.get_base_layer())
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config

    def _adapter_weights(self, chosen=None) -> dict[str, float] | None:
        """{name: weight} of those that a call computes with: chosen ones, or the active ones now;
        None where none is loaded.
        """
        known = self.get_list_adapters()
        if chosen is not None:
            chosen = [chosen] if isinstance(chosen, str) else chosen
            weights = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen, 1.0)
            if unknown := [name for name in weights if name not in known]:
                raise ValueError(
                    f"no adapter named {unknown[0]!r} is loaded; there are "
                    f"{', '.join(known) or 'none'}"
                )
            self._unmerged("adapters of a call")
            return weights
        if not known or any(layer.merged for layer in self._adapted()):
            return None
        return {name: self._weight(name) for name in self.get_active_adapters()}

    def _weight(self, name: str) -> float:
        layer = next(layer for layer in self._adapted() if name in layer.lora_A)
        return layer.scaling[name] / lora.trained_scale(layer, name)

    def _adapted(self) -> Iterator[nn.Module]:
        return (layer for layer in self.model.modules() if hasattr(layer, "lora_A"))

    def _unmerged(self, wanted: str) -> None:
        if any(layer.merged for layer in self._adapted()):
            raise ValueError(f"adapters are merged; call unfuse_lora() before {wanted}")

    def _check_saved(self) -> None:
        """ValueError where the weights cannot be written as a model's."""
        if any(True for _ in self._adapted()):
            raise ValueError(
                "adapters are loaded; call unload_lora_weights() before saving, and fuse_lora() "
                "before that to keep what they do"
            )


def _is_file(name: str | Path) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False
