"""Derivatives of the velocity: forward mode, and torch.func's other transforms."""

import pytest
import torch
from golden import golden_model, read_golden

from janusflow.utils.cpu import onednn_linear, tall_linear

CONFIG = read_golden()[1]["config"]


def problem(dtype: torch.dtype):
    """velocity(x, t), where, and in which direction."""
    model = golden_model(CONFIG).to(dtype)
    seed = torch.Generator().manual_seed(3)
    x, d = torch.randn(2, 2, 4, 12, 12, generator=seed, dtype=torch.float64).to(dtype)
    t = torch.tensor([0.3, 0.7], dtype=dtype)
    with torch.no_grad():
        prompt = model.encode_prompt(torch.randint(3, 150, (2, 9), generator=seed))
    return (lambda x, t: model.velocity(x, t, prompt)), (x, t), (d, torch.ones_like(t))


def jvp(dtype: torch.dtype):
    return torch.func.jvp(*problem(dtype))[1]


@pytest.mark.parametrize("grads", [False, True])
def test_jvp_equals_finite_differences_in_float64(grads):
    f, at, along = problem(torch.float64)
    with torch.set_grad_enabled(grads):
        value, found = torch.func.jvp(f, at, along)
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (
            f(*(p + s * d for p, d in zip(at, along, strict=True))) for s in (step, -step)
        )
        assert torch.allclose(value, f(*at), rtol=1e-12, atol=1e-12)  # other kernels of attention
    expected = (ahead - behind) / (2 * step)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert found.requires_grad == grads


def test_jvp_leaves_out_products_that_know_no_tangents(monkeypatch):
    expected = jvp(torch.float64)
    if torch.backends.mkldnn.is_available():
        monkeypatch.setattr(onednn_linear, "onednn_is_faster", lambda: True)
        monkeypatch.setattr(onednn_linear, "AGAIN", 0)
    found = jvp(torch.float32)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_two_rows_have_their_tangents(monkeypatch):
    monkeypatch.setattr(tall_linear, "LARGE", 0)
    layer = torch.nn.Linear(7, 5).requires_grad_(False)
    x, d = torch.randn(2, 2, 7)
    with tall_linear.TwoRows():
        found = torch.func.jvp(torch.nn.Linear.forward.__get__(layer), (x,), (d,))[1]
    assert torch.allclose(found, d @ layer.weight.T, atol=1e-6)


def test_reverse_transforms_go_through_onednns_products(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(onednn_linear, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(onednn_linear, "_least", lambda: 0)
    layer = onednn_linear.use_onednn(torch.nn.Linear(7, 5))
    x = torch.randn(3, 7)
    found = torch.func.vmap(torch.func.grad(lambda row: layer(row[None]).sum()))(x)
    assert torch.allclose(found, layer.weight.sum(0).expand(3, 7), atol=1e-6)
