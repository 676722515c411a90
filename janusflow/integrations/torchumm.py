"""JanusFlow and Janus-Pro as a backbone of TorchUMM (AIFrontierLab, package `umm`).

This registers the backbone "janusflow" and passes the rest of the command line to TorchUMM:

    python -m janusflow.integrations.torchumm infer --config my.yaml

The configuration says `backbone: janusflow`. An unknown setting is refused by name.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janusflow.pipelines import image_io
from janusflow.pipelines.answering import ask, message
from janusflow.utils import images as reading

NAME = "janusflow"
LOADING = {"model_path", "vae_path", "torch_dtype", "device", "seed"}
DEFAULTS = ("generation_cfg", "understanding_cfg", "editing_cfg")
WORDS = {"cfg_weight": "guidance_scale", "parallel_size": "num_images_per_prompt"}  # theirs: ours
TAKEN = {"guidance_scale", "num_images_per_prompt", "num_inference_steps", "sampler", "seed"}
PRO = {"guidance_scale", "num_images_per_prompt", "temperature", "top_k", "top_p", "seed"}
ANSWERS = {"max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams", "use_cache"}
LONGEST = 512  # tokens of an answer, unless told
DESCRIBE = "Describe the image."  # where a request has no text


class JanusFlowBackbone:
    """`load`, `generation`, `understanding` and `editing`, as TorchUMM's pipeline calls them."""

    name = NAME

    def __init__(self) -> None:
        self.pipe: Any = None
        self.seed = 42  # TorchUMM's
        self.settings: dict[str, dict] = {name: {} for name in DEFAULTS}

    def load(self, cfg: Mapping[str, Any]) -> None:
        """Loads `model_path` (a packaged model, a folder or a hub id), with `vae_path`,
        `torch_dtype` and `device`.

        `generation_cfg` and similar settings are defaults of later requests.
        """
        _only(cfg, LOADING | set(DEFAULTS), "backbone_cfg")
        place = str(cfg.get("device", "auto"))
        dtype = str(cfg.get("torch_dtype", "auto"))
        self.pipe = image_io.load(
            str(cfg.get("model_path", "janusflow/scenes")), cfg.get("vae_path"), place, dtype
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.seed = int(cfg.get("seed", self.seed))
        self.settings = {name: dict(cfg.get(name) or {}) for name in DEFAULTS}

    def generation(
        self, prompt: str, output_path: str | None = None, generation_cfg: Mapping | None = None
    ) -> dict[str, Any]:
        """Returns the images of a prompt as `image`, `images` and `saved_paths`."""
        given = self._given("generation_cfg", generation_cfg)
        _only(given, TAKEN if self._is_flow else PRO, "params")
        seed = int(given.pop("seed", self.seed))
        count = int(given.pop("num_images_per_prompt", 1))
        noise = [torch.Generator().manual_seed(seed + i) for i in range(count)]
        made = self._ready([prompt] * count, generator=noise, **given).images
        return {"image": made[0], "images": made, "saved_paths": save(made, output_path)}

    def understanding(
        self,
        prompt: str | None = None,
        images: Sequence[str] = (),
        videos: Sequence[str] = (),
        understanding_cfg: Mapping | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to a text about images as `text`."""
        if videos:
            raise ValueError(f"{len(videos)} videos came; {NAME} answers about images alone")
        given = self._given("understanding_cfg", understanding_cfg)
        _only(given, ANSWERS, "params")
        shown = [reading.read(Path(path)) for path in images]
        if not prompt and not shown:
            raise ValueError("a request of understanding is empty; give a prompt or images")
        talk = message(prompt or DESCRIBE, shown)
        return {"text": ask(self._ready, [talk], **{"max_new_tokens": LONGEST} | given)[0]}

    def editing(
        self,
        prompt: str,
        images: Sequence[str] = (),
        output_path: str | None = None,
        editing_cfg: Mapping | None = None,
    ) -> dict[str, Any]:
        """Returns the first image edited to follow the prompt, in the form of `generation`."""
        if not self._is_flow:
            raise ValueError("Janus-Pro has no flow to edit with; take a JanusFlow")
        given = self._given("editing_cfg", editing_cfg)
        _only(given, TAKEN | {"strength"}, "params")
        given.pop("num_images_per_prompt", None)
        generator = torch.Generator().manual_seed(int(given.pop("seed", self.seed)))
        image = reading.read(Path(images[0]))
        made = self._ready.edit(image, prompt, generator=generator, **given).images
        return {"image": made[0], "images": made, "saved_paths": save(made, output_path)}

    @property
    def _ready(self):
        if self.pipe is None:
            self.load({})
        return self.pipe

    @property
    def _is_flow(self) -> bool:
        return hasattr(self._ready, "vae")

    def _given(self, name: str, cfg: Mapping | None) -> dict:
        """Returns the defaults with a request's settings, under this package's names."""
        both = self.settings[name] | dict(cfg or {})
        return {WORDS.get(key, key): value for key, value in both.items()}


def _only(given: Mapping, known: set[str], where: str) -> None:
    if strange := sorted(set(given) - known):
        raise ValueError(
            f"{where} has {strange[0]!r}, which {NAME} does not take; it takes "
            f"{', '.join(sorted(known))}"
        )


def save(images: Sequence[Image.Image], output_path: str | None) -> list[str]:
    """Saves images under the file name, further ones numbered; without suffix it is a folder."""
    if not output_path:
        return []
    path, found = Path(output_path), []
    if not path.suffix:
        path = path / "image.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        place = path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        found.append(str(image_io.save(image, {"index": number}, place)))
    return found


def register() -> None:
    """Registers "janusflow" as a backbone of TorchUMM. Raises ImportError without TorchUMM."""
    try:
        from umm.core import registry
    except ImportError as error:
        raise ImportError(
            "TorchUMM is not installed; clone AIFrontierLab/TorchUMM and pip install -e it"
        ) from error
    registry.register("backbone", NAME, JanusFlowBackbone)


def main(words: Sequence[str] | None = None) -> int:
    """Runs TorchUMM's command line with this backbone registered."""
    register()
    from umm.cli.main import main as theirs

    return theirs(list(sys.argv[1:] if words is None else words))


if __name__ == "__main__":
    sys.exit(main())
