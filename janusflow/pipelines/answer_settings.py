"""The settings of an answer: the caller's, then those in the files, then our defaults."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from functools import cache

from transformers import GenerationConfig, GenerationMixin

from janusflow.models.janusflow.generation_defaults import check_beams, said
from janusflow.pipelines.answer_checks import check_settings
from janusflow.utils.limits import whole

LONGEST = 512  # tokens of an answer, as published
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
# settings of `generate` that want ids before the answer, give something else than answers, or run
# code from the hub
NOT_TAKEN = {
    "assistant_model",
    "constraints",
    "custom_generate",
    "diversity_penalty",
    "dola_layers",
    "force_words_ids",
    "guidance_scale",
    "negative_prompt_attention_mask",
    "negative_prompt_ids",
    "num_beam_groups",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "penalty_alpha",
    "return_dict_in_generate",
    "synced_gpus",
    "token_healing",
    "trust_remote_code",
}


def told(settings: Mapping, files: GenerationConfig | None) -> dict:
    """Returns all that is said: in the model's own configuration, in the caller's, by name."""
    found = {}
    for source in (files, settings.get("generation_config")):
        found |= {k: v for k, v in (vars(source) if source else {}).items() if v is not None}
    return found | settings


def within(settings: Mapping, told: Mapping, prompt: int, positions: int) -> dict:
    """Returns the settings of an answer after `prompt` tokens, limited to the model's positions.

    `told` is all that is said about it. Raises ValueError if the minimum length does not fit, or if
    there is no room for an answer.
    """
    name = "min_length" if told.get("min_new_tokens") is None else "min_new_tokens"
    least, longest = told.get(name) or 0, told.get("max_length")
    if least > positions - (prompt if name == "min_new_tokens" else 0):
        raise ValueError(
            f"{name} is {least} after a prompt of {prompt} tokens, and the language model has "
            f"{positions} positions; choose a smaller number"
        )
    if longest is not None and told.get("max_new_tokens") is None and longest <= prompt:
        raise ValueError(
            f"max_length is {longest} and the prompt has {prompt} tokens; raise it, or give "
            "max_new_tokens"
        )
    if (told.get("max_new_tokens") or 0) > positions - prompt:
        return _replaced(settings, max_new_tokens=max(positions - prompt, 1))
    if told.get("max_new_tokens") is None and (longest or 0) > positions:
        return _replaced(settings, max_length=positions)
    return dict(settings)


def _replaced(settings: Mapping, **new) -> dict:
    """Returns a copy of the settings with some replaced, wherever they were given."""
    config = settings.get("generation_config")
    if config is None or settings.keys() & new.keys():
        return {**settings, **new}
    return filled(settings, new)


def filled(given: Mapping, missing: Mapping) -> dict:
    """Returns the caller's settings with defaults added.

    If a generation configuration was given, they are put into a copy of it, because transformers
    accepts either form but not both.
    """
    config = given.get("generation_config")
    if config is None:
        return {**missing, **given}
    config = copy.deepcopy(config)
    for name, value in missing.items():
        setattr(config, name, value)
    return {**given, "generation_config": config}


def read(given: Mapping, tokenizer) -> dict:
    """Returns the caller's settings in the types that `generate` takes, with the tokenizer for
    `stop_strings`.

    Raises TypeError or ValueError for a setting of another type or out of range.
    """
    config = given.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise TypeError(
            f"generation_config is of type {type(config).__name__}; expected a "
            "transformers.GenerationConfig"
        )
    if "generator" in given:
        raise TypeError(
            "answers draw their tokens from seed=, a whole number, not from a generator"
        )
    found = dict(given)
    for name in ("max_new_tokens", "max_length", "num_beams", "num_return_sequences"):
        if found.get(name) is not None:
            found[name] = whole(found[name], name, "number")
            if name.startswith("num"):
                check_beams(found[name], f"{name} is")
    check_settings(found, len(tokenizer))
    if found.get("stop_strings") or getattr(config, "stop_strings", None):
        found.setdefault("tokenizer", tokenizer)
    return found


def check_sampling(given: Mapping, sources: Sequence) -> None:
    """Raises ValueError for a sampling setting while answers are greedy only by our default."""
    if "do_sample" in given or any(getattr(s, "do_sample", None) is not None for s in sources):
        return
    for name in SAMPLING:
        value = given.get(name)
        if value is not None and not (name == "temperature" and value in (0, 1)):
            raise ValueError(
                f"{name} is {value!r:.40}, but answers are greedy by default; give do_sample=True "
                f"with it, or leave {name} out"
            )


def check_taken(sources: Sequence[GenerationConfig], for_images: Sequence[str]) -> None:
    """Raises ValueError for a configuration with a setting that answers do not take."""
    for source in sources:
        for name in sorted(NOT_TAKEN & said(source) - {*for_images}):
            value = getattr(source, name)
            if value and (value is True or value != 1):  # which change nothing
                raise ValueError(
                    f"{name} is {value!r:.40} in the generation configuration, and answers do not "
                    "take it; leave it out"
                )


def sampled(given: Mapping, sources: Sequence) -> bool:
    """Returns whether answers are drawn: as the caller says, or else the first configuration."""
    told = [given.get("do_sample"), *(getattr(source, "do_sample", None) for source in sources)]
    return bool(next((value for value in told if value is not None), False))


@cache
def generate_keywords() -> tuple[str, ...]:
    """Returns the names of all arguments of transformers' `generate` besides its inputs."""
    own = inspect.signature(GenerationMixin.generate).parameters
    names = [n for n in own if n not in ("self", "inputs", "kwargs")]
    settings = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
    first = ("max_new_tokens", "do_sample", "temperature", "top_p", "num_beams")
    every = (*first, *names, *settings, "use_cache", "tokenizer")
    return tuple(name for name in dict.fromkeys(every) if name not in NOT_TAKEN)
