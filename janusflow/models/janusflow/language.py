"""Language models of transformers: the published Llama, and others whose blocks accept a cache."""

from copy import deepcopy
from math import inf
from typing import Any

from torch import nn
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from janusflow.utils.limits import whole
from janusflow.utils.text import explained
from janusflow.utils.typed import is_number

# Whole numbers of a language model, and the limit (utils/limits.py) that holds for each.
NUMBERS = dict(
    vocab_size="vocabulary",
    hidden_size="width",
    intermediate_size="mlp_width",
    num_hidden_layers="layers",
    num_attention_heads="width",
    num_key_value_heads="width",
    head_dim="width",
    max_position_embeddings="positions",
)
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


def language_class(kind: Any) -> type[PreTrainedConfig]:
    """Returns a causal language model's configuration class. Raises ValueError for others."""
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"language_config.model_type is {kind!r:.60}, no causal language model of the "
            "installed transformers; check that this is a JanusFlow checkpoint"
        )
    return CONFIG_MAPPING[kind]


def other_language_config(given: dict) -> PreTrainedConfig:
    """Returns another language model's configuration than Llama's, or raises ValueError."""
    settings = deepcopy(given)
    kind = language_class(settings.pop("model_type"))
    for key, limit in NUMBERS.items():
        if settings.get(key) is not None:
            whole(settings[key], f"language_config.{key}", limit)
    with explained(f"language_config is not a valid {kind.__name__}", "check config.json"):
        config = kind(**settings)
    for key in NEEDED:
        whole(getattr(config, key, None), f"language_config.{key}", NUMBERS[key])
    if not hasattr(config, "rope_parameters"):
        raise ValueError(
            f"language_config is of a {config.model_type}, not a llama and without its rotary "
            "positions; take one such as Qwen3, Qwen2, Mistral or SmolLM2"
        )
    layers = DynamicCache(config=config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        raise ValueError(
            f"a {config.model_type} of these settings does not cache the keys and values of a "
            "complete prompt (sliding windows or states); take a language model with full "
            "attention in every block"
        )
    return check_rope(config)


def check_rope(config: PreTrainedConfig) -> PreTrainedConfig:
    """Returns the configuration. Raises ValueError for rotary positions without a base or factor
    above zero, with which nothing is finite.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    for name in ("rope_theta", "factor"):
        value = rope.get(name)
        if value is not None and not (is_number(value) and 0 < value < inf):
            raise ValueError(
                f"language_config.{name} is {value!r:.60}; expected a number above zero, check "
                "config.json"
            )
    return config


def build_language_model(config: PreTrainedConfig) -> nn.Module:
    """Builds the network of a configuration.

    Raises ValueError unless its structure is like Llama's.

    Its blocks are called one by one with rotary embeddings, so both must be where Llama has them.
    """
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    if config.model_type == "llama":
        return LlamaForCausalLM(config)
    network = AutoModelForCausalLM.from_config(config)
    inner = getattr(network, "model", None)
    lacks = [part for part in ("layers", "norm", "rotary_emb") if not hasattr(inner, part)]
    if lacks or not isinstance(getattr(network, "lm_head", None), nn.Linear):
        raise ValueError(
            f"a {config.model_type} has no {lacks[0] if lacks else 'lm_head'} where Llama has it; "
            "take one such as Qwen3, Qwen2, Mistral or SmolLM2"
        )
    return network
