"""Forward-mode derivatives: selects kernels that support them.

torch.func.jvp and torch.autograd.forward_ad attach a tangent to a tensor. A kernel without a rule
for tangents either raises an error (fused attention) or drops the tangent silently (oneDNN's
products). Callers of such kernels ask here and use torch's composite kernels instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel


def forward_mode() -> bool:
    """Returns whether a forward-mode derivative is being taken (torch.func.jvp, a dual level)."""
    return forward_ad._current_level >= 0


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """A context manager or decorator in which attention supports forward-mode derivatives."""
    if not forward_mode():
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
