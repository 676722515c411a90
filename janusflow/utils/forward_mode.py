"""Forward-mode derivatives: kernels without a rule for them are left out while one is taken.

torch.func.jvp and torch.autograd.forward_ad give a tensor its tangent. A kernel that knows no
tangents either refuses (attention's fused ones) or drops them without a word (oneDNN's products),
so the callers of such kernels ask here and take torch's composite ones instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel


def forward_mode() -> bool:
    """Whether a forward-mode derivative is being taken, by torch.func.jvp or a dual level."""
    return forward_ad._current_level >= 0


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Inside, or in a function that this decorates, attention has forward-mode derivatives."""
    if not forward_mode():
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
