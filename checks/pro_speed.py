"""Times Janus-Pro's image tokens here and in transformers, at the 1B sizes with fewer blocks.

    python -m checks.pro_speed --layers 2 --tokens 64 --rounds 5

Random weights: hidden size 2,048, MLP 5,632, 16 heads, 16,384 codes, float32. The vocabulary of
texts is the small model's, because drawing reads only the prompt's rows of it; the decoder is left
out.
"""

import math

import torch
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from janusflow.bench.janus_pro import summary, table, turns
from janusflow.models.janus_pro.loading import generation
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline
from samplers import command_line

WIDTH, MLP, HEADS, CODES = 2048, 5632, 16, 16384


def pipeline(layers: int, tokens: int) -> JanusProPipeline:
    """Returns a pipeline of random weights at the published sizes; `tokens` is a square."""
    processor = JanusProProcessor.from_pretrained("janusflow/scenes-pro")
    side = math.isqrt(tokens) * 16
    torch.manual_seed(0)
    config = JanusConfig(
        text_config=LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=MLP,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            vocab_size=len(processor.tokenizer),
            max_position_embeddings=16384,
            bos_token_id=None,
            eos_token_id=None,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=side,
            patch_size=16,
            num_image_tokens=tokens,
            projection_dim=WIDTH,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=CODES,
            latent_channels=16,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            projection_dim=WIDTH,
            image_token_embed_dim=WIDTH,
        ),
        image_token_id=processor.image_id,
        tie_word_embeddings=False,
    )
    model = JanusForConditionalGeneration(config).eval()
    model.generation_config = generation(processor)
    pipe = JanusProPipeline(model, processor)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--layers", type=int, default=2, help="Sets the number of blocks.")
    parser.add_argument(
        "--tokens", type=int, default=64, help="Generates this many image tokens, a square number."
    )
    parser.add_argument("--rounds", type=int, default=5, help="Measures each way this many times.")
    asked = parser.parse_args()
    if math.isqrt(asked.tokens) ** 2 != asked.tokens or asked.tokens < 4:
        parser.error(f"--tokens is {asked.tokens}; expected a square such as 64 or 576")
    pipe = pipeline(asked.layers, asked.tokens)
    print(f"{asked.layers} blocks of {WIDTH}, {asked.tokens} tokens", flush=True)
    pairs = []
    for ours, theirs in turns(pipe, ["a red circle left of a blue square"], asked.rounds):
        pairs.append((ours, theirs))
        print(f"round {len(pairs)}: {ours[0]:.2f} and {theirs[0]:.2f} s", flush=True)
    print(table(summary(pairs), 1))


if __name__ == "__main__":
    main()
