"""Language models of other families inside: attention as they compute it, float64 where it is."""

import pytest
import torch
from transformers import MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from janusflow.models.attention_capture import attending
from janusflow.models.norms import keep_float64

SIZES = dict(
    vocab_size=32,
    hidden_size=24,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    attn_implementation="eager",
)
FAMILIES = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "mistral": (MistralForCausalLM, MistralConfig),
}


def network(family):
    kind, config = FAMILIES[family]
    sizes = SIZES | ({} if family != "qwen2" else {"num_attention_heads": 3})
    sizes |= {"num_key_value_heads": 1} if family == "qwen2" else {}
    torch.manual_seed(0)
    made = kind(config(**sizes)).eval()
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 2)  # norms that change something
        else:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("family", list(FAMILIES))
def test_captured_heads_give_the_attention_that_the_blocks_use(family):
    made, ids = network(family), torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad(), attending(made, [1, 2]) as looked:
        out = made(ids, output_attentions=True)
    heads = looked.at(torch.arange(6)[None])
    for own, theirs in zip(heads, out.attentions, strict=True):
        hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
        ours = own.logits().masked_fill(hidden, float("-inf")).softmax(-1)
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_norms_keep_float64_and_change_nothing_in_float32(family):
    made, ids = network(family), torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        before = made(ids).logits
        keep_float64(made)
        assert torch.equal(made(ids).logits, before)
        made.double()
        for norm in (m for m in made.modules() if "RMSNorm" in type(m).__name__):
            x = torch.randn(2, norm.weight.numel(), dtype=torch.float64)
            mean = x.square().mean(-1, keepdim=True)
            exact = x / (mean + norm.variance_epsilon).sqrt() * norm.weight
            assert (norm(x) - exact).abs().max() < 1e-12
