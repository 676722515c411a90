"""The public names, what they show, and what they were called."""

import subprocess
import sys

import pytest
import torch

import samplers

X = torch.ones(2, 3)


def test_every_public_name_is_there_and_listed():
    assert all(getattr(samplers, name) is not None for name in samplers.__all__)
    assert set(samplers.__all__) < set(dir(samplers)) and "apg" in dir(samplers)
    assert 20 <= len(samplers.__all__) <= 30


@pytest.mark.slow
def test_a_public_name_warns_nobody():
    names = [*samplers.__all__, "cfg", "shifted", "PilotGrid", "Rule"]
    code = f"import samplers\nfor name in {names}: getattr(samplers, name)"
    command = [sys.executable, "-W", "error::DeprecationWarning:samplers", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0 and "Deprecat" not in out.stderr, out.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [("masked", "inpaint"), ("between", "interpolate"), ("partway", "img2img_timesteps")],
)
def test_an_old_name_gives_the_new_thing_and_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(samplers, old) is getattr(samplers, new)


def test_solvers_go_by_name():
    with pytest.warns(DeprecationWarning, match='"heun", passed by its name'):
        assert samplers.heun is samplers.SOLVERS["heun"].path
    with pytest.warns(DeprecationWarning, match="dopri5_per_sample"):
        samplers.sample(lambda x, _: -x, X, [0, 1], "dopri5_each")
    with pytest.warns(DeprecationWarning, match="GaussianMixture"):
        assert samplers.problems.Mixture is samplers.benchmark.problems.GaussianMixture
    assert "dopri5_each" not in list(samplers.SOLVERS)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'eular' \(did you mean 'euler'\?\); choose one of"):
        samplers.sample(lambda x, _: -x, X, 4, "eular")
    with pytest.raises(AttributeError, match="nothing"):
        _ = samplers.nothing


@pytest.mark.parametrize("table", [samplers.SOLVERS, samplers.GRIDS, samplers.RULES])
def test_tables_show_what_there_is(table):
    name = next(iter(table))
    assert name in repr(table) and f"<code>{name}</code>" in table._repr_html_()
