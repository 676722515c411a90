"""CKNNA: equal geometry, unrelated features, and what cannot be compared."""

import pytest
import torch

from janusflow.training.alignment.similarity import by_block, cknna


def test_cknna_is_one_for_the_same_geometry_and_about_zero_for_another():
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0].float()
    assert cknna(x, 3 * x @ turn) == pytest.approx(1, abs=1e-5)
    other = torch.randn(200, 9, generator=torch.Generator().manual_seed(1))
    assert abs(cknna(x, other)) < 0.05
    near = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    assert 0.1 < cknna(x, near) < 0.9


def test_cknna_with_all_neighbours_is_the_unbiased_cka():
    x, y = torch.randn(2, 12, 5, dtype=torch.float64)
    n = 12
    k, l = ((z / z.norm(dim=1, keepdim=True)) for z in (x, y))  # noqa: E741
    k, l = ((z @ z.T) * (1 - torch.eye(n)) for z in (k, l))  # noqa: E741
    one = torch.ones(n, dtype=torch.float64)

    def hsic(a, b):
        return (
            (a @ b).trace()
            + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * one @ a @ b @ one
        )

    expected = hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
    assert cknna(x, y, n - 1) == pytest.approx(expected.item(), abs=1e-9)


def test_cknna_refuses_what_it_cannot_compare():
    x = torch.randn(8, 3)
    with pytest.raises(ValueError, match="same N >= 4"):
        cknna(x, x[:7])
    with pytest.raises(ValueError, match="expected 2 to 7"):
        cknna(x, x, 8)


def test_by_block_is_one_at_the_block_whose_tokens_the_features_are(model, view):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    x = view.noise.lerp(view.data, 0.5)
    blocks = len(model.language_model.model.layers)
    for k in range(1, blocks + 1):
        features = view.hidden_of(model, x, view.t, k)
        found = by_block(model, x, view.t, prompt, 3 * features, tokens=12)
        assert len(found) == blocks and found[k - 1] == pytest.approx(1, abs=1e-5)
        assert all(abs(value - 1) > 1e-3 for i, value in enumerate(found) if i != k - 1), found


def test_by_block_refuses_features_of_other_tokens(model, view):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    for features in (torch.randn(3, 35, 7), torch.randn(2, 36, 7), torch.randn(3, 7)):
        with pytest.raises(ValueError, match="as many tokens"):
            by_block(model, view.noise, view.t, prompt, features)
