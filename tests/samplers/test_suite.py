"""Families of fields: the same from the same seed, their references right, their page narrow."""

from random import Random

import pytest
import torch

from samplers import sample, uniform
from samplers.benchmark import equal_calls, suite, trained_fields
from samplers.benchmark.field_families import FAMILIES, Scaled, TanhNetwork
from samplers.benchmark.problems import GaussianMixture, normal
from samplers.grids import at_jumps

SLOW = ("low_rank", "guided_digits", "trained_networks", "mild")
QUICK = [name for name in FAMILIES if name not in SLOW]


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(trained_fields, "STEPS", 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_draws_the_same_field_from_the_same_seed(name):
    one, two, three = (FAMILIES[name](Random(seed)) for seed in ("a", "a", "b"))
    x = one.noise(2, seed=1)
    t = torch.tensor(0.4, dtype=torch.float64)
    assert torch.equal(one.velocity(x, t), two.velocity(x, t))
    assert three.dim != one.dim or not torch.equal(one.velocity(x, t), three.velocity(x, t))


@pytest.mark.parametrize("name", QUICK)
def test_small_steps_end_at_the_reference(name):
    problem = FAMILIES[name](Random(0))
    noise = problem.noise(2, seed=1)
    ts = at_jumps(uniform(600) ** 0.7, getattr(problem.velocity, "jumps", ()))
    end = sample(problem.velocity, noise, ts, "rk4")
    torch.testing.assert_close(problem.solution(noise), end, rtol=0, atol=2e-3)


def test_deviations_that_agree_make_a_plain_mixture():
    means, t = normal(5, 3, seed=0), torch.tensor(0.7, dtype=torch.float64)
    x = normal(4, 3, seed=1)
    axes = torch.linalg.qr(normal(3, 3, seed=2))[0]
    turned = Scaled(means @ axes, torch.tensor(0.3), axes)
    torch.testing.assert_close(turned(x, t), GaussianMixture(means, 0.3)(x, t))


def test_a_random_network_is_scaled_to_its_inputs():
    network = TanhNetwork(32, 64, 1.0, 0.0, seed=1)
    v = network(normal(256, 32, seed=3), torch.tensor(0.5, dtype=torch.float64))
    assert 0.3 < float(v.std()) < 3


def test_there_are_forty_hard_fields_and_no_field_lies_in_both_halves():
    seeds = {half: {f"{prefix}/{n}/0" for n in FAMILIES} for half, prefix in suite.HALVES.items()}
    assert not seeds["development"] & seeds["held-out"]
    assert 2 * 2 * (len(FAMILIES) - 1) >= 40


@pytest.fixture(scope="module")
def page():
    few = {name: FAMILIES[name] for name in ("stiff_ends", "tanh_networks")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "FAMILIES", few)
        return suite.run((4, 8), ["development"], per_family=1)


def test_a_page_is_eighty_columns_wide_and_has_every_family(page):
    lines = str(page).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("stiff_ends") for line in lines) == 2
    assert {c.calls for c in page.cells} == {4, 8} and all(c.own > 0 for c in page.cells)


def test_the_rows_of_a_page_are_written_as_json(page, tmp_path):
    page.to_json(tmp_path / "page.json")
    assert '"cells"' in (tmp_path / "page.json").read_text()


def test_the_program_takes_a_suite(monkeypatch, capsys):
    monkeypatch.setattr(suite, "FAMILIES", {"tanh_networks": FAMILIES["tanh_networks"]})
    equal_calls.main(["--suite", "held-out", "--calls", "4", "--no-pilot"])
    assert "tanh_networks" in capsys.readouterr().out


def test_a_suite_has_no_plot():
    with pytest.raises(SystemExit, match="leave out --csv and --plot"):
        equal_calls.main(["--suite", "--plot", "a.png"])


def test_a_trained_network_ends_near_the_digits_it_saw(monkeypatch):
    """Unguided, from the null label: the mean over samples is the mean of the data."""
    monkeypatch.setattr(trained_fields, "STEPS", 60)
    network = trained_fields.DigitNetwork(96)
    trained_fields.train(network, torch.Generator().manual_seed(0))
    net = trained_fields.batched(
        lambda x, t: network(x, t, torch.full((len(x),), trained_fields.NONE))
    )
    with torch.no_grad():
        end = sample(net, torch.randn(256, 64, generator=torch.Generator().manual_seed(1)), 16)
    mean = trained_fields.digits()[0].mean(0).float()
    assert float((end.mean(0) - mean).square().mean().sqrt()) < 0.4 * float(mean.std())


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    FAMILIES["trained_networks"](Random("quick"))
    assert torch.equal(before, torch.get_rng_state())
