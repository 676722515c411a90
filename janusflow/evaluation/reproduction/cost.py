"""The cost of a sweep on this machine: network evaluations times measured seconds."""

import time

import torch
from torch.nn.functional import linear

PROMPT = "a photo of a bench left of a bear"
TIMED = 2  # steps that are timed after the first
PROMPT_TOKENS = 24


def seconds_per_evaluation(pipe, batch: int) -> float:
    """Measures the seconds of one row of a guided batch, without encoding the prompt."""

    def timed(steps: int) -> float:
        noise = [torch.Generator().manual_seed(i) for i in range(batch)]
        started = time.perf_counter()
        pipe([PROMPT] * batch, num_inference_steps=steps, guidance_scale=2.0, generator=noise)
        return time.perf_counter() - started

    timed(1)  # allocations and kernels
    return max(timed(1 + TIMED) - timed(1), 1e-6) / (2 * batch * TIMED)


def operations(config) -> float:
    """Floating-point operations of one evaluation of a row.

    They are the language model's matrix products at the image tokens and the time token, and
    attention to prompt and image; the small encoder and decoder of latents are left out.
    """
    text, tokens = config.language_config, config.vision.tokens + 1
    width, wide = text.hidden_size, text.intermediate_size
    products = 2 * tokens * (4 * width**2 + 3 * width * wide)
    attention = 4 * width * tokens * (tokens / 2 + PROMPT_TOKENS)
    return text.num_hidden_layers * (products + attention)


def operations_per_second(width: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """Measures a linear layer of this width on 577 rows, like the network's, the best of three.

    In bfloat16 the plain product a @ b can be many times slower than this on a CPU.
    """
    a = torch.randn(577, width, device=device).to(dtype)
    b = torch.randn(width, width, device=device).to(dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        float(linear(a, b)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
        if best > 1:  # second: further rounds would change little
            break
    return 2 * 577 * width**2 / best
