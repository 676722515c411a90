"""Pairs of a flow, the loss on them, and how straight it is."""

import pytest
import torch

import samplers
from samplers import rectify


def bent(x, t):
    """Constant speed 2 t: straight in space, uneven in time."""
    return 2 * t * torch.ones_like(x)


def test_pairs_are_the_ends_of_the_flow():
    noise, data = rectify.pairs(bent, torch.zeros(3, 2), 8, "rk4")
    assert not noise.any() and torch.allclose(data, torch.ones(3, 2))


def test_the_loss_vanishes_for_the_velocity_between_the_ends_of_pairs():
    noise, data = torch.randn(5, 3), torch.randn(5, 3)
    t = torch.rand(5)
    assert rectify.loss(lambda *_: data - noise, noise, data, t).max() < 1e-12
    off = rectify.loss(lambda _x, t: data - noise + t[:, None], noise, data, t)
    assert torch.allclose(off, t.square())


def test_a_second_round_is_straighter_and_as_right():
    """On a mixture in the plane, by a small network trained for 300 steps."""
    torch.manual_seed(0)
    problem = samplers.PROBLEMS["mixture"](dim=2)
    noise, data = rectify.pairs(problem.velocity, problem.noise(2048), 64)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(),
        torch.nn.Linear(64, 2),
    )  # fmt: skip

    def velocity(x, t):
        return net(torch.cat([x, t[:, None]], dim=1))

    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    noise, data = noise.float(), data.float()
    for _ in range(300):
        i = torch.randint(len(noise), (256,))
        optimizer.zero_grad()
        rectify.loss(velocity, noise[i], data[i], torch.rand(256)).mean().backward()
        optimizer.step()
    fresh = problem.noise(256, seed=3)
    before = rectify.straightness(problem.velocity, fresh)
    with torch.no_grad():
        after = rectify.straightness(samplers.batched(velocity), fresh.float())
    assert after < before / 2


@pytest.mark.parametrize(
    ("data", "t", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4), r"data are \(4, 3\)"),
        (torch.zeros(1, 2), torch.zeros(4), r"data are \(1, 2\)"),
        (torch.zeros(4, 2), torch.zeros(3), r"times are \(3,\)"),
        (torch.zeros(4, 2), 0.5, "times are 0.5"),
    ],
)
def test_a_loss_of_other_shapes_is_refused(data, t, message):
    with pytest.raises(ValueError, match=message):
        rectify.loss(lambda x, _t: -x, torch.zeros(4, 2), data, t)


def test_a_network_of_another_shape_is_no_velocity():
    with pytest.raises(ValueError, match=r"shape \(4, 1\) where x has \(4, 2\)"):
        rectify.loss(lambda x, _t: x[:, :1], torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4))
