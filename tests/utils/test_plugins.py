"""What modules of users register is found: by name, by file and by entry point."""

import sys

import pytest

from janusflow.utils import plugins

SOLVER = """
from itertools import pairwise
from samplers import solver

@solver(order=1, calls=1)
def users_euler(v, x, ts):
    for t, s in pairwise(ts):
        x = x + (s - t) * v(x, t)
        yield x
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    from samplers import SOLVERS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = set(SOLVERS), set(sys.modules)
    yield tmp_path
    for registry, names in zip((SOLVERS, sys.modules), before, strict=True):
        for name in set(registry) - names:
            del registry[name]


@pytest.mark.parametrize("name", ["users_solvers", "users_solvers.py", "{tmp}/users_solvers.py"])
def test_a_solver_of_ones_own_is_found_by_its_name(folder, name):
    from samplers.core import find

    (folder / "users_solvers.py").write_text(SOLVER)
    plugins.load([name.format(tmp=folder)])
    plugins.load([name.format(tmp=folder)])  # twice is once
    assert find("users_euler").order == 1


def test_an_installed_package_needs_no_option(folder, monkeypatch):
    from samplers import SOLVERS

    site = folder / "site"
    (site / "mine-1.dist-info").mkdir(parents=True)
    (site / "mine-1.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1\n")
    entry = f"[{plugins.GROUP}]\nmine = mine_solvers\nbroken = no_such_module\n"
    (site / "mine-1.dist-info" / "entry_points.txt").write_text(entry)
    (site / "mine_solvers.py").write_text(SOLVER)
    monkeypatch.syspath_prepend(site)
    with pytest.warns(UserWarning, match="'no_such_module' is left out"):
        plugins.load()
    assert "users_euler" in SOLVERS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module", "neither a module"),
        ("none.py", "neither a module"),
        ("broken", "NameError: name 'nothing' is not defined"),
        ("broken.py", "NameError: name 'nothing' is not defined"),
        ("needy", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("random.py", "rename the plugin's file"),
        ("", "correct it"),
    ],
)
def test_a_plugin_that_fails_is_named_in_a_sentence(folder, name, said):
    (folder / "broken.py").write_text("nothing")
    (folder / "needy.py").write_text("import no_such_library")
    (folder / "random.py").write_text("")
    import random  # noqa: F401

    with pytest.raises(ValueError, match=r"^plugin ") as told:
        plugins.load([name])
    assert said in str(told.value)
