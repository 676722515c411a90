"""JanusFlow's configuration: the hub's `config.json` unchanged, with defaults for what it omits."""

from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig

from janusflow.models.janusflow.language import (
    NUMBERS,
    check_rope,
    language_class,
    other_language_config,
)
from janusflow.models.janusflow.vision_towers import TOWERS
from janusflow.utils.checkpoint_files import check_settings
from janusflow.utils.config_guard import read_config
from janusflow.utils.hub import PACKAGED, PUSHING
from janusflow.utils.keywords import choice, refuse_unknown
from janusflow.utils.limits import whole
from janusflow.utils.safe_io import lacks
from janusflow.utils.text import explained
from janusflow.utils.typed import is_number

OF_OTHERS = ("subfolder", "trust_remote_code", "code_revision", "use_auth_token")  # transformers'

# The published language model's numbers, which `config.json` partly omits.
LANGUAGE_DEFAULTS = dict(
    vocab_size=102_400,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    max_position_embeddings=16_384,
    rms_norm_eps=1e-6,
    # The ids belong to the tokenizer; LlamaConfig's own defaults (1 and 2) are other tokens.
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
    tie_word_embeddings=False,
)

ACTIVATIONS = ("silu", "gelu", "relu", "gelu_new", "gelu_pytorch_tanh", "swish", "quick_gelu")


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """Sizes of the SigLIP vision tower, from its name and overrides."""

    image_size: int  # pixels, square
    patch_size: int
    width: int
    layers: int  # blocks kept after `select_layer`
    heads: int
    mlp_ratio: float
    library: str | None = None  # "timm" or "transformers" for a tower that is not the published one
    name: str = ""  # timm's name of it
    settings: dict | None = None  # transformers' configuration of it

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class GenerationSizes:
    """Sizes of the ConvNeXt encoder and decoder around the language model."""

    latent_channels: int
    patch: int  # latents per token and side
    channels: int  # of the encoder; the decoder's blocks see twice as many (long skip)
    encoder_layers: int
    decoder_layers: int
    norm_eps: float
    pixels_per_latent: int | None = None  # and side, where the configuration says it


def _number(value: Any, name: str, low: float, high: float) -> float:
    if not is_number(value) or not low < value <= high:
        raise ValueError(
            f"{name} is {value!r:.60}; expected a number above {low:g} and at most {high:g}"
        )
    return float(value)


def _select_layers(layers: int, select_layer: Any) -> int:
    """-1 keeps all blocks, -2 drops the last one, and a positive number keeps that many."""
    if type(select_layer) is not int:
        raise ValueError(f"select_layer is {select_layer!r}; expected a whole number such as -1")
    kept = select_layer if select_layer > 0 else layers + 1 + select_layer
    if select_layer == 0 or not 0 < kept <= layers:
        raise ValueError(
            f"select_layer {select_layer} leaves no vision blocks; expected 1 to {layers} or "
            f"-{layers} to -1"
        )
    return kept


class JanusFlowConfig(PreTrainedConfig):
    """The published configuration: it completes missing keys by defaults and saves unknown ones.

    `language_config` becomes a `LlamaConfig`. The three `vision_*_config` blocks remain
    dictionaries as on the hub, including misspelt and unknown keys; `vision` and `generation` give
    their sizes. Raises ValueError for sizes that are not positive whole numbers and for networks
    that this package cannot build.
    """

    model_type = "multi_modality"
    sub_configs_defaults = {"language_config": LlamaConfig}  # noqa: RUF012 (transformers' protocol)
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012 (Trainer adds a list)
    sub_configs = {"language_config": LlamaConfig}  # noqa: RUF012 (the same, before transformers 5.20)

    language_config: dict | PreTrainedConfig | None = None
    vision_und_enc_config: dict | None = None
    vision_gen_enc_config: dict | None = None
    vision_gen_dec_config: dict | None = None
    image_editing: bool | None = (
        None  # true: trained on prompts that say what to change in an image
    )
    verifier: str | None = None  # the one that scores its images best, see pipelines/verifiers.py
    image_grid: int | None = None  # tokens a side whose positions other grids keep; None: in a row

    def __post_init__(self, **kwargs):
        if not isinstance(self.language_config, PreTrainedConfig):
            self.language_config = _language(self.language_config)
        self.vision_und_enc_config = deepcopy(self.vision_und_enc_config) or _tower_block()
        self.vision_gen_enc_config = deepcopy(self.vision_gen_enc_config) or _encoder_block()
        self.vision_gen_dec_config = deepcopy(self.vision_gen_dec_config) or _decoder_block()
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        text, vision, generation = self.language_config, self.vision, self.generation
        if self.image_grid is not None:
            whole(self.image_grid, "image_grid", "image_size")
        if vision.width % vision.heads or vision.image_size % vision.patch_size:
            raise ValueError(
                f"the vision tower's width {vision.width} and image_size {vision.image_size} must "
                f"be multiples of heads {vision.heads} and patch_size {vision.patch_size}; check "
                "vision_und_enc_config"
            )
        hidden = {
            whole(block["params"].get("hidden_size", text.hidden_size), "hidden_size", "width")
            for block in (self.vision_gen_enc_config, self.vision_gen_dec_config)
        }
        if hidden != {text.hidden_size}:
            raise ValueError(
                f"the hidden sizes of generation encoder and decoder are {sorted(hidden)}, and the "
                f"language model's is {text.hidden_size}; make them equal in config.json"
            )
        decoder = _params(self.vision_gen_dec_config, "vision_gen_dec_config")
        if decoder.get("in_channels", generation.channels) != generation.channels:
            raise ValueError(
                f"the decoder's in_channels are {decoder['in_channels']} and the encoder's "
                f"{generation.channels}; make them equal in config.json, because the long skip "
                "connection joins them"
            )

    @classmethod
    def from_pretrained(cls, name, **kwargs) -> "JanusFlowConfig":
        """Loads the configuration as transformers does; keywords replace the file's settings.
        Raises TypeError for a keyword that is neither a setting nor the hub's.
        """
        wanted = kwargs.pop("return_unused_kwargs", False)
        config, rest = super().from_pretrained(
            PACKAGED.get(str(name), name), return_unused_kwargs=True, **kwargs
        )
        if not wanted:
            unknown = [key for key in rest if not key.startswith("_") and key not in OF_OTHERS]
            own = [f.name for f in fields(cls)]
            refuse_unknown(f"{cls.__name__}.from_pretrained", unknown, own)
        return (config, rest) if wanted else config

    @classmethod
    def get_config_dict(cls, name, **kwargs) -> tuple[dict, dict]:
        """Returns what transformers reads from config.json, after the checks of `check_config`.
        Raises ValueError for a setting that loads code or files or shadows a method, and for
        invalid JSON.
        """
        name = PACKAGED.get(str(name), name)
        kwargs["subfolder"] = kwargs.get("subfolder") or ""
        folder = Path(name) / kwargs["subfolder"]
        if (folder / "config.json").is_file():
            read_config(folder / "config.json")
        elif Path(name).is_dir():
            raise ValueError(lacks(folder / "config.json"))
        content, rest = super().get_config_dict(name, **kwargs)
        if "gen_vision_config" in content:
            raise ValueError(
                f"{str(name)!r} holds a Janus or Janus-Pro in the published layout, and has no "
                "flow; use janusflow.load, and save_pretrained writes the layout that transformers "
                "reads"
            )
        kind = content.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(
                f"{str(name)!r:.200} holds a model of type {kind!r:.60}, not a JanusFlow, and has "
                "no flow; choose a JanusFlow, or load a Janus-Pro by janusflow.load"
            )
        check_settings(content, cls, known_settings(cls), "config.json")
        language = content.get("language_config")
        if isinstance(language, dict):
            kind = language_class(language.get("model_type", "llama"))
            check_settings(language, kind, known_settings(kind), "language_config")
        return content, rest

    def save_pretrained(self, folder, push_to_hub: bool = False, **given) -> None:
        """Writes config.json. Raises TypeError for an unknown keyword."""
        refuse_unknown(f"{type(self).__name__}.save_pretrained", given, PUSHING)
        super().save_pretrained(folder, push_to_hub, **given)

    @property
    def parameters(self) -> int | None:
        """The number of parameters in the large matrices, within a few per cent of the total.
        None for a network with a vision or language model for which there is no formula here.
        """
        text, vision, generation = self.language_config, self.vision, self.generation
        if text.model_type != "llama" or vision.library is not None:
            return None
        hidden, wide, channels = text.hidden_size, vision.width, generation.channels
        heads = 2 * (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
        block = hidden * (heads + 3 * text.intermediate_size)
        language = text.num_hidden_layers * block + 2 * text.vocab_size * hidden
        tower = (vision.layers + 1) * int(wide * wide * (4 + 2 * vision.mlp_ratio))
        tower += wide * (3 * vision.patch_size**2 + vision.tokens + hidden)
        sides = generation.encoder_layers * channels * (8 * channels + 2 * hidden)
        sides += generation.decoder_layers * 2 * channels * (16 * channels + 2 * hidden)
        sides += hidden * (hidden + 3 * channels)
        pixels = generation.latent_channels * generation.patch**2
        return language + tower + sides + 3 * channels * pixels

    def get_text_config(self, decoder=None, encoder=None) -> PreTrainedConfig:  # noqa: ARG002
        return self.language_config

    @property
    def vision(self) -> VisionSizes:
        return vision_sizes(self.vision_und_enc_config, "vision_und_enc_config")

    @property
    def generation(self) -> GenerationSizes:
        encoder = _params(self.vision_gen_enc_config, "vision_gen_enc_config")
        decoder = _params(self.vision_gen_dec_config, "vision_gen_dec_config")
        patch = whole(encoder.get("stride", 2), "vision_gen_enc_config.stride", "width")
        _only(encoder, "kernel_size", patch)
        _only(encoder, "padding", 0)
        _only(decoder, "upsamples", patch.bit_length() - 1 if patch & (patch - 1) == 0 else None)
        for params in (encoder, decoder):
            _only(params, "use_bias", True)
            _only(params, "use_mid_block", True)
        channels = encoder.get("block_out_channels", [768])
        both = (channels, decoder.get("block_out_channels", channels))
        channels, others = (list(v) if isinstance(v, list | tuple) else [v] for v in both)
        if len(channels) != 1 or others != channels:
            raise ValueError(
                f"block_out_channels is {channels}; expected one number, equal in encoder and "
                f"decoder"
            )
        latents = encoder.get("input_channels", 4)
        _only(decoder, "out_channels", latents)
        eps = _number(encoder.get("norm_eps", 1e-6), "norm_eps", 0, 1)
        _only(decoder, "norm_eps", eps)
        return GenerationSizes(
            latent_channels=whole(latents, "input_channels", "width"),
            patch=patch,
            channels=whole(channels[0], "block_out_channels", "width"),
            encoder_layers=whole(encoder.get("layers_in_middle", 2), "layers_in_middle", "layers"),
            decoder_layers=whole(decoder.get("layers_in_middle", 2), "layers_in_middle", "layers"),
            norm_eps=eps,
            pixels_per_latent=encoder.get("pixels_per_latent")
            and whole(encoder["pixels_per_latent"], "pixels_per_latent", "width"),
        )


def vision_sizes(block: Any, where: str) -> VisionSizes:
    """Returns the sizes of config.json's tower. Raises ValueError for an unsupported one."""
    params = _params(block, where)
    if params.get("library") is not None:
        return _foreign_sizes(params, where)
    name = params.get("model_name", "siglip_large_patch16_384")
    choice("no vision tower named", name, TOWERS)
    _only(params, "select_feature", "same")
    sizes = {key: params.get(key, default) for key, default in TOWERS[name].items()}
    sizes |= _tower_sizes(sizes, where)
    _number(sizes["mlp_ratio"], f"{where}.mlp_ratio", 0, 64)
    sizes["layers"] = _select_layers(sizes["layers"], params.get("select_layer", -1))
    return VisionSizes(**sizes)


def _foreign_sizes(params: dict, where: str) -> VisionSizes:
    """Returns the sizes of a timm or transformers vision tower, as `janusflow assemble` stores."""
    library, settings = params["library"], params.get("config")
    choice(f"{where}.library is", library, ("timm", "transformers"))
    if library == "transformers":
        if not isinstance(settings, dict):
            raise ValueError(f"{where}.config is {settings!r:.60}; expected a block of settings")
        check_settings(settings, PreTrainedConfig, settings.keys(), where)
        for key, limit in dict(intermediate_size="mlp_width", num_channels="width").items():
            if settings.get(key) is not None:
                whole(settings[key], f"{where}.{key}", limit)
        told = (settings.get("hidden_size"), settings.get("num_hidden_layers"))
        if told != (params.get("width"), params.get("layers")):
            raise ValueError(
                f"{where} gives two different values of width or layers: {told}; remove one of them"
            )
    name, sizes = str(params.get("model_name", "")), _tower_sizes(params, where)
    return VisionSizes(**sizes, mlp_ratio=4, library=library, name=name, settings=settings)


def _tower_sizes(params: dict, where: str) -> dict[str, int]:
    limits = dict(image_size="image_size", patch_size="width", width="width", layers="layers")
    limits["heads"] = "width"
    return {k: whole(params.get(k), f"{where}.{k}", limit) for k, limit in limits.items()}


def _language(given: Any) -> PreTrainedConfig:
    """Returns the Llama that `language_config` describes. Raises ValueError for invalid numbers."""
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"language_config is {given!r:.60}; expected a block of settings")
    if (given or {}).get("model_type", "llama") != "llama":
        return other_language_config(given)
    settings = {**LANGUAGE_DEFAULTS, **(deepcopy(given) or {})}
    settings.pop("model_type", None)
    for key, limit in NUMBERS.items():
        if settings.get(key) is not None or key in LANGUAGE_DEFAULTS:
            whole(settings[key], f"language_config.{key}", limit)
    _number(settings["rms_norm_eps"], "language_config.rms_norm_eps", 0, 1)
    choice("language_config.hidden_act is", settings.get("hidden_act", "silu"), ACTIVATIONS)
    if settings["hidden_size"] % settings["num_attention_heads"]:
        raise ValueError(
            f"language_config.hidden_size {settings['hidden_size']} is not a multiple of "
            f"num_attention_heads {settings['num_attention_heads']}; check config.json"
        )
    heads = settings["num_attention_heads"]
    if heads % (settings.get("num_key_value_heads") or heads):
        raise ValueError(
            f"language_config.num_key_value_heads {settings['num_key_value_heads']} does not "
            f"divide num_attention_heads {heads}; check config.json"
        )
    with explained("language_config is not a valid Llama", "check config.json"):
        config = LlamaConfig(**settings)
    return check_rope(config)


def known_settings(kind: type) -> set[str]:
    """Returns the settings of transformers' class that a config.json may contain."""
    plain = {"model_type", "torch_dtype", "_name_or_path", "name_or_path", "rope_scaling"}
    return plain | {"output_attentions", "num_labels"} | {f.name for f in fields(kind)}


def _params(block: dict, name: str) -> dict:
    params = block.get("params") if isinstance(block, dict) else None
    if not isinstance(params, dict):
        raise ValueError(
            f"{name} has no block 'params'; check that this is the config.json of a Janus"
        )
    return params


def _only(params: dict, key: str, value: Any) -> None:
    if params.get(key, value) != value:
        raise ValueError(f"{key} is {params[key]!r}; this network is only built with {value!r}")


def _tower_block() -> dict:
    params = dict(
        image_size=384,
        model_name="siglip_large_patch16_384",
        select_feature="same",
        select_layer=-1,
    )
    return dict(model_type="vision_und_enc", cls="CLIPVisionTower", params=params)


def _encoder_block() -> dict:
    params = dict(input_channels=4, stride=2, kernel_size=2, padding=0, **_both_sides())
    return dict(model_type="vision_gen_enc", cls="ShallowUViTEncoder", params=params)


def _decoder_block() -> dict:
    params = dict(in_channels=768, out_channels=4, upsamples=1, **_both_sides())
    return dict(model_type="vision_gen_dec", cls="ShallowUViTDecoder", params=params)


def _both_sides() -> dict:
    return dict(
        block_out_channels=[768],
        layers_in_middle=2,
        hidden_size=2048,
        norm_eps=1e-6,
        use_bias=True,
        use_mid_block=True,
    )
