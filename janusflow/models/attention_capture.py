"""Records queries and keys of attention blocks during a forward pass, of the model or of a teacher.

Nothing is computed inside the pass, so gradient checkpointing and sharding are unaffected.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class QueriesKeys:
    """An attention block's queries and keys for the tokens of each image, both (B, heads, n, d)."""

    queries: Tensor
    keys: Tensor

    def logits(self) -> Tensor:
        """Attention logits q k / sqrt(d) in float32, (B, heads, n, n)."""
        q, k = self.queries.float(), self.keys.float()
        return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5


# The student


class Attending:
    """Records the query and key projections of some blocks, and their rotary embedding."""

    def __init__(self, language_model: nn.Module, blocks: Sequence[int]):
        self.layers = {block: language_model.model.layers[block - 1] for block in blocks}
        self.seen: dict[tuple[int, str], Tensor] = {}
        self.turn: tuple[Tensor, Tensor] | None = None

    def hooks(self) -> Iterator:
        for block, layer in self.layers.items():
            own = layer.self_attn
            for name in ("q_proj", "k_proj"):
                yield getattr(own, name).register_forward_hook(self._keep(block, name))
            yield own.register_forward_pre_hook(self._turned, with_kwargs=True)

    def _keep(self, block: int, name: str) -> Callable:
        def keep(_layer, _inputs, out: Tensor) -> None:
            self.seen[block, name] = out

        return keep

    def _turned(self, _layer, _inputs, named: dict) -> None:
        self.turn = named["position_embeddings"]

    def at(self, places: Tensor) -> list[QueriesKeys]:
        """Returns the heads of the tokens at flat places (B, n) of the batch, block by block."""
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

        found = []
        for block, layer in self.layers.items():
            own = layer.self_attn
            queries, keys = (self.seen[block, name] for name in ("q_proj", "k_proj"))
            shape = queries.shape[:2]
            turn = (_chosen(x.expand(*shape, -1), places) for x in self.turn)
            queries, keys = (
                norm(_chosen(x, places).unflatten(-1, (-1, own.head_dim))).transpose(1, 2)
                for x, norm in ((queries, _norm(own, "q_norm")), (keys, _norm(own, "k_norm")))
            )
            queries, keys = apply_rotary_pos_emb(queries, keys, *turn)
            found.append(QueriesKeys(queries, repeat_kv(keys, own.num_key_value_groups)))
        return found


def _norm(attention: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """Returns the norm of each head before the rotary embedding, as in Qwen3, or the identity."""
    return getattr(attention, name, lambda x: x)


def _chosen(x: Tensor, places: Tensor) -> Tensor:
    """(rows, width, D) -> (B, n, D)."""
    return x.flatten(0, 1)[places]


@contextmanager
def attending(language_model: nn.Module, blocks: Sequence[int]) -> Iterator[Attending]:
    """Records queries and keys of a Llama's or Qwen3's blocks (from 1) in the last forward pass."""
    found = Attending(language_model, blocks)
    hooks = list(found.hooks())
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


# The teacher


@contextmanager
def of_encoder(network: nn.Module, count: int) -> Iterator[Callable[[], list[QueriesKeys]]]:
    """Records queries and keys of the last `count` blocks of a timm vision transformer inside
    `network`.

    Yields a function that returns them for patch tokens alone, one `QueriesKeys` per block. Raises
    ValueError for a network without such blocks.
    """
    tower, layers = _blocks(network, count)
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Callable:
        return lambda _layer, _inputs, out: seen.update({number: out})

    hooks = [layer.qkv.register_forward_hook(keep(i)) for i, layer in enumerate(layers)]

    def heads() -> list[QueriesKeys]:
        return [_split(layer, seen[i], tower.num_prefix_tokens) for i, layer in enumerate(layers)]

    try:
        yield heads
    finally:
        for hook in hooks:
            hook.remove()


def _blocks(network: nn.Module, count: int) -> tuple[nn.Module, list[nn.Module]]:
    from timm.models.vision_transformer import Attention, VisionTransformer

    known = (VisionTransformer.forward, VisionTransformer.forward_features)
    towers = [  # whose blocks run as timm's do; others may attend in ways of their own
        module
        for module in network.modules()
        if isinstance(module, VisionTransformer)
        and type(module).forward in known
        and type(module).forward_features is VisionTransformer.forward_features
    ]
    own = [block.attn for block in towers[0].blocks] if towers else []
    plain = [layer for layer in own if type(layer) is Attention]
    if len(plain) < max(1, count) or len(plain) < len(own):
        raise ValueError(
            f"this teacher has no {count} blocks of plain attention to align with; choose a vision "
            "transformer of timm, or set alignment.attention to 0"
        )
    return towers[0], plain[len(plain) - count :]


def _split(layer: nn.Module, out: Tensor, prefix: int) -> QueriesKeys:
    """Splits (B, tokens, 3 heads d) as the layer does, without the class token."""
    q, k, _ = out.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)[..., prefix:, :]
    return QueriesKeys(layer.q_norm(q), layer.k_norm(k))


@contextmanager
def last_block(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list that receives the output of a language model's last block, before the final
    norm.

    transformers' `hidden_states` holds it after that norm only.
    """
    seen: list[Tensor] = []
    hook = decoder.norm.register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
