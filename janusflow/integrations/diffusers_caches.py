"""Applies diffusers' caches to the language model's blocks.

    with cached(pipe, FirstBlockCacheConfig(threshold=0.1)): ...

diffusers can skip blocks that its TransformerBlockRegistry describes, and stores its state under
the name of a context; here a context is an evaluation of the velocity with a given number of rows.
Prompts and answers run through the same blocks, so the caches are emptied before and after them and
skip nothing of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diffusers.hooks import (
    FirstBlockCacheConfig,
    HookRegistry,
    MagCacheConfig,
    apply_first_block_cache,
    apply_mag_cache,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, _set_cache_context

from janusflow.models.janusflow.modeling import JanusFlowModel

APPLY: dict[type, Callable] = {
    FirstBlockCacheConfig: apply_first_block_cache,
    MagCacheConfig: apply_mag_cache,
}


def register(model: JanusFlowModel) -> None:
    """Registers the model's blocks with diffusers as mapping hidden states to hidden states."""
    metadata = TransformerBlockMetadata(return_hidden_states_index=0)
    TransformerBlockRegistry.register(type(model.language_model.model.layers[0]), metadata)


@contextmanager
def cached(pipe, config) -> Iterator[None]:
    """A context in which the pipeline's velocity skips blocks as diffusers' cache decides.

    All rows of a guided evaluation are decided together. Raises ValueError for an unsupported
    cache, and if the pipeline's own first-block cache is in use.
    """
    if type(config) not in APPLY:
        known = " or ".join(kind.__name__ for kind in APPLY)
        raise ValueError(f"{type(config).__name__} is not a cache of blocks; give a {known}")
    model = pipe.model
    decoder = model.language_model.model
    register(model)
    before = _hooks(decoder)
    APPLY[type(config)](decoder, config)
    HookRegistry.check_if_exists_or_initialize(decoder).invalidate_child_registries_cache()
    try:
        with _contexts(model, decoder):
            yield
    finally:
        for block, names in before.items():
            registry = HookRegistry.check_if_exists_or_initialize(block)
            for name in [n for n in registry._hook_order if n not in names]:
                registry.remove_hook(name, recurse=False)
        HookRegistry.check_if_exists_or_initialize(decoder).invalidate_child_registries_cache()


def _hooks(decoder) -> dict:
    return {
        block: list(HookRegistry.check_if_exists_or_initialize(block)._hook_order)
        for block in decoder.layers
    }


@contextmanager
def _contexts(model: JanusFlowModel, decoder) -> Iterator[None]:
    """Names each evaluation by its number of rows; other forward passes start a new image."""
    evaluation: list[str] = []
    velocity, forward = model.unchecked_velocity, decoder.forward

    def named_velocity(latents, *args, **kwargs):
        evaluation.append(f"velocity of {len(latents)} rows")
        try:
            return velocity(latents, *args, **kwargs)
        finally:
            evaluation.pop()

    def named_forward(*args, **kwargs):
        if not evaluation:
            forget(decoder)
        _set_cache_context(decoder, CacheContext(evaluation[-1] if evaluation else "other"))
        try:
            return forward(*args, **kwargs)
        finally:
            _set_cache_context(decoder, None)
            if not evaluation:
                forget(decoder)

    model.unchecked_velocity, decoder.forward = named_velocity, named_forward
    model._at_once = len
    try:
        yield
    finally:
        del model.unchecked_velocity, model._at_once, decoder.forward


def forget(decoder) -> None:
    """Empties the caches' state from earlier evaluations."""
    HookRegistry.check_if_exists_or_initialize(decoder).reset_stateful_hooks(recurse=True)
