"""A whole run under torch.compile."""

import pytest
import torch

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
