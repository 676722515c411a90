"""LoRA adapters in a pipeline, with diffusers' method names."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock

from torch import nn

from janusflow.models import lora
from janusflow.pipelines.call_state import between_calls
from janusflow.utils import hub
from janusflow.utils.hub import locate
from janusflow.utils.keywords import refuse_unknown

_CHANGING = RLock()  # held while adapters come, so that no call begins with half of one
LORA_KEYWORDS = ("adapter_name", "weight_name", *hub.KEYWORDS)


class Adapted:
    """A mixin of pipelines with a `model`: adapters are loaded, weighted, fused and removed.

    Methods that change the weights wait until no call of any thread is running.
    """

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
        """Loads an adapter in addition to others, and makes it the active one.

        `name` is a folder, a hub id or a weight file in such a folder; `weight_name` is the file if
        it is not adapter_model.safetensors, `subfolder` a folder inside. The hub's keywords
        (`revision`, `token`, ...) are accepted. Raises ValueError for an adapter that was made for
        another model, is not plain LoRA, or is a pickle, and TypeError for an unknown keyword.
        """
        refuse_unknown(f"{type(self).__name__}.load_lora_weights", given, LORA_KEYWORDS)
        if not isinstance(name, str | Path):
            raise TypeError(
                f"the adapter is a {type(name).__name__}; expected the name of a folder that "
                "peft's save_pretrained wrote"
            )
        if weight_name is None:
            name, weight_name = adapter_file(name)
        weight_name = lora.check_weight_name(weight_name or lora.WEIGHTS)
        folder = locate(name, files=[lora.CONFIG, weight_name], **given)
        found, taken = lora.read(folder, weight_name), self.get_list_adapters()
        own = adapter_name or f"default_{len(taken)}"
        if not isinstance(own, str) or not own.isidentifier():
            raise ValueError(f"adapter_name is {own!r:.60}; expected letters, digits and _")
        if own in taken:
            raise ValueError(
                f"an adapter named {own!r:.60} is loaded already; choose another adapter_name, or "
                f"call delete_adapters({own!r:.60}) first"
            )
        self._unmerged("load_lora_weights")
        with _CHANGING:
            lora.attach(self.model, found, own)
            self.set_adapters(own)

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Sequence[float] | None = 1.0,
    ) -> None:
        """Makes these adapters active, with these weights; 1 or None means as trained."""
        names = self._known_adapters(adapter_names)
        several = isinstance(adapter_weights, list | tuple)
        weights = list(adapter_weights) if several else [adapter_weights] * len(names)
        if not names:
            raise ValueError("no adapter is named; disable_lora() switches all of them off")
        if len(weights) != len(names):
            raise ValueError(
                f"{len(weights)} weights came for {len(names)} adapters; give one weight for each"
            )
        weights = [_weight(weight, name) for name, weight in zip(names, weights, strict=True)]
        self._unmerged("set_adapters")
        for layer in self._adapted():
            layer.set_adapter(names, inference_mode=True)
            for name, weight in zip(names, weights, strict=True):
                layer.set_scale(name, weight)

    def get_list_adapters(self) -> list[str]:
        """Returns the names of all loaded adapters."""
        return list(dict.fromkeys(name for layer in self._adapted() for name in layer.lora_A))

    def get_active_adapters(self) -> list[str]:
        """Returns the names of the active adapters."""
        return _active(self._adapted())

    @between_calls
    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Removes these adapters. Raises ValueError for unknown or fused ones."""
        names, active = self._known_adapters(adapter_names), self.get_active_adapters()
        self._unmerged("delete_adapters")
        if set(names) == set(self.get_list_adapters()):
            self.unload_lora_weights()
            return
        rest = [name for name in active if name not in names]
        weights = {name: self._weight(name) for name in rest}
        for layer in self._adapted():
            for name in names:
                layer.delete_adapter(name)
        for name in names:
            getattr(self.model, "peft_config", {}).pop(name, None)
        if rest:
            self.set_adapters(rest, [weights[name] for name in rest])

    def _known_adapters(self, names: str | Sequence[str]) -> list[str]:
        """Returns the names of adapters as a list. Raises ValueError for one that is not loaded."""
        found = [names] if isinstance(names, str) else names
        if not isinstance(found, list | tuple | dict):
            raise ValueError(f"adapters are {names!r:.60}; expected a name, or a list of names")
        known = self.get_list_adapters()
        if unknown := [name for name in found if name not in known]:
            raise ValueError(
                f"no adapter named {unknown[0]!r:.60} is loaded; there are "
                f"{', '.join(known) or 'none'}"
            )
        return list(found)

    def disable_lora(self) -> None:
        """Ignores the adapters until `enable_lora`."""
        self._unmerged("disable_lora")
        for layer in self._adapted():
            layer.enable_adapters(False)

    def enable_lora(self) -> None:
        """Uses the active adapters again."""
        for layer in self._adapted():
            layer.enable_adapters(True)

    @between_calls
    def fuse_lora(
        self, lora_scale: float = 1.0, *, adapter_names: str | Sequence[str] | None = None
    ) -> None:
        """Adds the active adapters, times `lora_scale`, to the weights, so that they cost no time.

        `adapter_names` become the active ones first, with the weights that they have.
        `unload_lora_weights` afterwards leaves the fused model, which `save_pretrained` writes.
        Raises ValueError if no adapter is loaded, if they are fused already, or if weights would
        not be finite.
        """
        layers = list(self._adapted())
        if not layers:
            raise ValueError("no adapter is loaded; call load_lora_weights first")
        self._unmerged("fuse_lora")
        lora_scale = _weight(lora_scale, "lora_scale")
        if lora_scale == 0:
            raise ValueError("lora_scale is 0; expected a finite number other than 0")
        if adapter_names is not None:
            names = self._known_adapters(adapter_names)
            self.set_adapters(names, [self._weight(name) for name in names])
        self._lora_scale = lora_scale
        try:
            for layer in layers:
                layer.scale_layer(lora_scale)
                layer.merge(safe_merge=True)
        except ValueError:  # of one that would not be finite
            layer.unscale_layer(lora_scale)
            self.unfuse_lora()
            raise

    @between_calls
    def unfuse_lora(self) -> None:
        """Subtracts fused adapters from the weights, up to rounding.

        Warns if none is fused, as after `unload_lora_weights`, which keeps what was fused.
        """
        if not any(layer.merged for layer in self._adapted()):
            warnings.warn(
                "unfuse_lora changes nothing: no loaded adapter is fused, and those that "
                "unload_lora_weights removed stay in the weights; load the model again",
                stacklevel=3,
            )
        for layer in self._adapted():
            if layer.merged:
                layer.unmerge()
                layer.unscale_layer(self._lora_scale)

    @between_calls
    def unload_lora_weights(self) -> None:
        """Removes all adapters; weights that they were fused into stay fused."""
        for name, layer in list(self.model.named_modules()):
            if hasattr(layer, "lora_A"):
                parent, _, own = name.rpartition(".")
                setattr(self.model.get_submodule(parent), own, layer.get_base_layer())
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config

    def _adapter_weights(self, chosen=None) -> dict[str, float] | None:
        """Returns {name: weight} of the adapters that a call uses: the chosen ones, or those active
        now.

        It is None while adapters are fused.
        """
        with _CHANGING:
            return self._weights_now(chosen)

    def _weights_now(self, chosen) -> dict[str, float] | None:
        if chosen is not None:
            names = self._known_adapters(chosen)
            told = chosen if isinstance(chosen, Mapping) else dict.fromkeys(names)
            self._unmerged("adapters of a call")
            return {name: _weight(told[name], name) for name in names}
        layers = list(self._adapted())
        if any(layer.merged for layer in layers):
            return None
        return {name: self._weight(name) for name in _active(layers)}

    def _weight(self, name: str) -> float:
        layer = next(layer for layer in self._adapted() if name in layer.lora_A)
        return layer.scaling[name] / lora.trained_scale(layer, name)

    def _adapted(self) -> Iterator[nn.Module]:
        return (layer for layer in self.model.modules() if hasattr(layer, "lora_A"))

    def _unmerged(self, wanted: str) -> None:
        if any(layer.merged for layer in self._adapted()):
            raise ValueError(f"adapters are merged; call unfuse_lora() before {wanted}")

    def _check_saved(self) -> None:
        """Raises ValueError if the weights cannot be saved as a model."""
        if any(True for _ in self._adapted()):
            raise ValueError(
                "adapters are loaded; call unload_lora_weights() before saving, and fuse_lora() "
                "before that to keep what they do"
            )


def _active(layers: Iterable[nn.Module]) -> list[str]:
    """Returns the names of the adapters that are active in these layers."""
    on = (layer for layer in layers if not layer.disable_adapters)
    return list(dict.fromkeys(name for layer in on for name in layer.active_adapters))


def _weight(value, name: str) -> float:
    """Returns an adapter's weight, 1 for None. Raises ValueError unless it is a finite number."""
    if value is None:
        return 1.0
    try:
        number = float("nan") if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ValueError(f"the weight of {name!r} is {value!r:.60}; expected a finite number")
    return number


def adapter_file(name: str | Path) -> tuple[str | Path, str | None]:
    """Returns the folder and the file's name of a weight file, or (name, None) for others."""
    return (str(Path(name).parent), Path(name).name) if hub.is_file(name) else (name, None)
