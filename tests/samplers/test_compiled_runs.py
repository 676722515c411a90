"""A whole run under torch.compile, torch.export, make_fx and FakeTensorMode."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import samplers
from samplers.benchmark.problems import normal

X = normal(3, 4, seed=0).float()


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(5, 4)

    def forward(self, x, t):
        return torch.tanh(self.layer(torch.cat([x, t[:, None]], 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ts"), [("euler", 3), ("heun", 4), ("auto", 5), ("ab4", 6), ("abm3", [0, 0.3, 1])]
)
def test_a_run_is_one_graph(name, ts):
    v = samplers.batched(Network())
    whole = torch.compile(
        lambda x: samplers.sample(v, x, ts, name), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(whole(X), samplers.sample(v, X, ts, name), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_guided_run_is_one_graph_too():
    net = Network()
    field = samplers.guide((samplers.batched(net), lambda x, _: -x), 2.0)
    whole = torch.compile(
        lambda x: samplers.sample(field, x, 4), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(whole(X), samplers.sample(field, X, 4), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "told"), [("dopri5_per_sample", "fixed"), ("churn", "fixed")])
def test_what_is_no_fixed_graph_is_refused(name, told):
    whole = torch.compile(
        lambda x: samplers.sample(lambda x, _: -x, x, [0, 1], name), fullgraph=True, backend="eager"
    )
    with pytest.raises(Exception, match=told):
        whole(X)


class Run(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.net, self.name = Network(), name

    def forward(self, x):
        return samplers.sample(samplers.batched(self.net), x, 4, self.name)


@pytest.mark.parametrize("name", ["heun", "auto", "abm3"])
@pytest.mark.parametrize("trace", [make_fx, lambda run: torch.export.export(run, (X,)).module()])
def test_a_run_can_be_traced(name, trace):
    run = Run(name)
    traced = trace(run)(X) if trace is make_fx else trace(run)
    torch.testing.assert_close(traced(2 * X), run(2 * X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["heun", "auto"])
def test_a_run_of_fake_tensors_has_the_shape_of_a_real_one(name):
    with FakeTensorMode() as fake:
        end = samplers.sample(lambda x, t: -x * t, fake.from_tensor(X), 6, name)
    assert end.shape == X.shape
    assert samplers.sample(lambda x, t: -x * t, X, 6, name).isfinite().all()


def test_a_trajectory_of_fake_tensors_is_refused():
    with FakeTensorMode() as fake, pytest.raises(TypeError, match=r"call samplers\.sample"):
        samplers.trajectory(lambda x, _: -x, fake.from_tensor(X), 4)


def test_a_traced_inpainting_keeps_the_data():
    data = X.clone()

    def keeping(x):
        kept = samplers.inpaint(lambda x, _: torch.tanh(x), data, x, torch.zeros(1, 4))
        return samplers.sample(kept, x, 4, "auto")

    assert torch.equal(make_fx(keeping)(X)(2 * X), data)


def test_a_traced_state_may_have_several_parts_or_no_samples():
    def both(x):
        return samplers.sample(lambda s, _: {"a": -s["a"]}, {"a": x}, 4)["a"]

    torch.testing.assert_close(make_fx(both)(X)(2 * X), both(2 * X))
    assert torch.compile(both, backend="eager", fullgraph=True)(X[:0]).shape == (0, 4)
