"""The benchmark measures what it says, counts honestly, and finds whatever is registered."""

import csv
import json
import math
import sys
import types

import pytest
import torch

import samplers
from samplers.benchmark import equal_calls
from samplers.benchmark.measure import judged
from samplers.benchmark.peers import flow_matching_peers, peers
from samplers.benchmark.problems import PROBLEMS
from samplers.benchmark.summary import OURS, Report, Row, number, ratio_table, ratios
from samplers.core import SOLVERS, steps
from samplers.rectify import straightness
from samplers.search.learn import fit

PEERS = peers()
BEND = PROBLEMS["bend"]()


def small(**options):
    """A run of two solvers and two peers."""
    noise = BEND.noise(32)
    return equal_calls.run(
        BEND.velocity,
        noise,
        **{
            "calls": (32, 64),
            "solvers": ["euler", "heun"],
            "others": [PEERS["torchdiffeq midpoint"], PEERS["diffusers Heun"]],
            "reference": BEND.solution(noise),
            "pilot": False,
            "name": "bend",
            **options,
        },
    )


@pytest.fixture(scope="module")
def report():
    return small()


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_spends_what_it_declares_and_stays_in_time(name):
    field = PROBLEMS["gaussian"](dim=4)

    def v(x, t):
        assert 0 <= t <= 1
        return field.velocity(x, t)

    peer = PEERS[name]
    for calls in (4, 10):
        counted = samplers.count(v)
        x = peer.run(counted, field.noise(8), calls)
        spent = peer.cost(peer.steps(calls))
        bounded = name == "torchdiffeq implicit_adams"  # stops correcting once it agrees
        assert counted.calls <= spent <= calls if bounded else counted.calls == spent <= calls
        assert x.shape == (8, 4)


def test_every_library_that_is_installed_takes_part():
    assert {p.library for p in PEERS.values()} >= {"diffusers", "torchdiffeq"}
    assert {"diffusers Euler", "diffusers UniPC 2", "torchdiffeq rk4"} <= set(PEERS)


def test_a_peer_says_when_it_cannot_afford_a_step():
    with pytest.raises(ValueError, match="takes 4 evaluations a step, and calls is 3"):
        PEERS["torchdiffeq rk4"].run(BEND.velocity, BEND.noise(2), 3)


def test_peers_leave_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    PEERS["diffusers LCM"].run(BEND.velocity, BEND.noise(2), 4)
    assert torch.equal(torch.rand(3), expected)


def test_flow_matching_is_driven_on_an_explicit_grid(monkeypatch):
    """Its own default is one Euler step. The package is not installed here: a stand-in records."""
    seen = {}

    class ODESolver:
        def __init__(self, velocity_model):
            self.v = velocity_model

        def sample(self, x_init, step_size, method, time_grid, return_intermediates):
            seen.update(step_size=step_size, method=method, times=len(time_grid))
            assert return_intermediates
            return torch.stack([self.v(x=x_init, t=t) for t in time_grid])

    module = types.ModuleType("flow_matching.solver")
    module.ODESolver = ODESolver
    monkeypatch.setitem(sys.modules, "flow_matching", types.ModuleType("flow_matching"))
    monkeypatch.setitem(sys.modules, "flow_matching.solver", module)
    midpoint = next(p for p in flow_matching_peers() if p.name == "midpoint")
    midpoint.run(BEND.velocity, BEND.noise(2), 8)
    assert seen == {"step_size": None, "method": "midpoint", "times": 5}


def test_e_is_the_geometric_mean_of_the_errors_and_rms_the_root_of_the_mean_square():
    judge = judged(torch.zeros(2, 3))
    found = judge(torch.tensor([[0.1, 0.1, 0.1], [10.0, 10.0, 10.0]]))
    assert found["e"] == pytest.approx(1.0)
    assert found["rms"] == pytest.approx(math.sqrt((0.01 + 100) / 2))
    assert found["flips"] is None


def test_flips_are_the_share_of_samples_in_another_mode():
    judge = judged(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), basin=lambda x: x[:, 0] > 0)
    assert judge(torch.tensor([[2.0], [-2.0], [-0.5], [-3.0]]))["flips"] == 0.25


def test_a_straight_path_is_straight_and_a_circle_is_not():
    line, circle = PROBLEMS["straight"](), PROBLEMS["rotation"]()
    assert straightness(line.velocity, line.noise(4)) < 1e-20
    assert straightness(circle.velocity, circle.noise(4)) > 0.1


def test_the_observed_order_is_the_declared_one(report):
    assert report.order("bend", (OURS, "euler", "own")) == pytest.approx(1, abs=0.1)
    assert report.order("bend", (OURS, "heun", "own")) == pytest.approx(2, abs=0.1)
    assert report.order("bend", ("torchdiffeq", "midpoint", "as shipped")) == pytest.approx(
        2, abs=0.1
    )


def test_calls_are_counted_and_fewer_than_allowed_are_starred(report):
    spent = {(r.solver, r.asked): r.calls for r in report.rows}
    assert spent["heun", 32] == 32 and spent["Heun", 32] == 31
    assert "*" in str(report).split("Heun")[1].splitlines()[0]


def test_adaptive_and_stochastic_solvers_take_part_when_named():
    found = small(solvers=["dopri5", "euler_maruyama"], others=False, calls=(8,))
    adaptive, stochastic = found.rows
    assert adaptive.asked == adaptive.calls > 6 and adaptive.e < 1e-4
    assert stochastic.calls == 8


def test_on_a_pilots_grid_peers_are_marked_apart_and_its_cost_is_reported():
    field = PROBLEMS["mixture"](dim=2)
    noise = field.noise(64)
    found = equal_calls.run(
        field.velocity,
        noise,
        calls=(8,),
        solvers=["auto"],
        reference=field.solution(noise),
        others=[PEERS["torchdiffeq euler"]],
        overhead=False,
        name="mixture",
    )
    assert [(r.library, r.grid) for r in found.rows] == [
        (OURS, "own"),
        (OURS, "pilot"),
        ("torchdiffeq", "as shipped"),
        ("torchdiffeq", "pilot"),
    ]
    assert found.rows[3].e <= found.rows[2].e  # a pilot keeps a grid that none beats clearly
    assert found.pilots["mixture"]["samples"] == 8
    assert found.pilots["mixture"]["calls"]["auto 8"] > 64
    assert "torchdiffeq, on our grid (pilot)" in str(found)


def test_our_heun_and_torchdiffeqs_agree():
    noise = BEND.noise(32)
    found = small(
        solvers=["heun", "heun3"],
        others=[PEERS["torchdiffeq heun2"], PEERS["torchdiffeq heun3"]],
        calls=(12,),
        reference=BEND.solution(noise),
    )
    ours, ours3, theirs, theirs3 = (r.e for r in found.rows)
    assert ours == pytest.approx(theirs, rel=1e-6) and ours3 == pytest.approx(theirs3, rel=1e-6)


def test_a_reference_is_found_where_none_is_given():
    noise = BEND.noise(16)
    given, sought = small(calls=(16,)), small(calls=(16,), reference=1e-10)
    assert len(noise) == 16
    for a, b in zip(given.rows, sought.rows, strict=True):
        assert a.e == pytest.approx(b.e, rel=1e-5)


def test_the_table_fits_a_terminal():
    wide = small(calls=equal_calls.CALLS)
    assert max(map(len, str(wide).splitlines())) <= 80
    assert max(map(len, ratio_table(wide).splitlines())) <= 80


def test_csv_and_json_hold_every_row_and_the_protocol(report, tmp_path):
    report.to_csv(tmp_path / "b.csv")
    report.to_json(tmp_path / "b.json")
    with open(tmp_path / "b.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "b.json").read_text())
    assert len(rows) == len(content["rows"]) == len(report.rows) == 8
    assert float(rows[0]["e"]) == report.rows[0].e == content["rows"][0]["e"]
    assert content["protocol"]["versions"]["torch"] and content["protocol"]["dtype"] == "float64"
    assert {tuple(o[:2]) for o in content["overhead"]} == set(report.overhead)


def test_json_stays_json_where_a_method_diverges(tmp_path):
    row = Row(
        field="f",
        library="l",
        solver="s",
        grid="own",
        asked=4,
        calls=4,
        e=math.nan,
        rms=math.inf,
        flips=None,
        seconds=0.1,
    )
    Report(rows=[row], protocol={"samples": 1, "dtype": "float64"}).to_json(tmp_path / "b.json")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "b.json").read_text(), parse_constant=refuse)
    assert content["rows"][0]["e"] is None


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_plot_is_drawn(report, tmp_path, ending):
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / f"work.{ending}")
    head = (tmp_path / f"work.{ending}").read_bytes()[:200]
    assert b"PNG" in head or b"svg" in head


def test_without_matplotlib_the_plot_says_what_to_install(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        report.plot(tmp_path / "work.png")


def test_ratios_are_taken_to_the_best_peer_as_shipped_and_averaged_over_fields():
    def row(field, library, grid, e):
        who = {"field": field, "library": library, "solver": "x", "grid": grid}
        return Row(**who, asked=8, calls=8, e=e, rms=e, flips=None, seconds=0.0)

    rows = [
        *(row("f", lib, grid, e) for lib, grid, e in [(OURS, "own", 1.0), ("a", "as shipped", 2)]),
        *(row("f", lib, grid, e) for lib, grid, e in [("a", "pilot", 0.1), ("b", "as shipped", 4)]),
        *(row("g", lib, grid, e) for lib, grid, e in [(OURS, "own", 3.0), ("a", "as shipped", 2)]),
    ]
    assert ratios(Report(rows=rows, protocol={})) == {"x (own)": {8: pytest.approx(1.0)}}


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "1.2e-1"), (0.0999, "1.0e-1"), (9.96e-5, "1.0e-4"), (0.0, "0")]
)
def test_numbers_take_six_characters(value, text):
    assert number(value) == text and number(math.nan) == number(math.inf) == "-"


def test_a_registered_solver_appears_in_the_benchmark_and_on_the_command_line(capsys):
    @samplers.solver(order=1, calls=1)
    def halfhearted(v, x, ts):
        """Half of Euler's step."""
        for t, _, h in steps(ts):
            x = x + h / 2 * v(x, t)
            yield x

    try:
        names = {r.solver for r in small(solvers=None, calls=(4,)).rows}
        equal_calls.main(["--field", "bend", "--calls", "4", "--no-peers", "--no-pilot"])
        assert "halfhearted" in names and "halfhearted" in capsys.readouterr().out
    finally:
        del SOLVERS["halfhearted"]


def test_the_command_line_writes_its_files(tmp_path, capsys):
    files = {
        "--csv": tmp_path / "b.csv",
        "--json": tmp_path / "b.json",
        "--plot": tmp_path / "b.svg",
    }
    pytest.importorskip("matplotlib")
    arguments = ["--field", "gaussian:dim=3", "rotation", "--solvers", "heun", "--samples", "16"]
    named = [str(part) for pair in files.items() for part in pair]
    equal_calls.main([*arguments, "--calls", "4", "8", "--no-pilot", "--no-peers", *named])
    out = capsys.readouterr().out
    assert "gaussian:dim=3" in out and "rotation" in out and all(f.exists() for f in files.values())


def test_a_learned_solver_is_compared_on_the_field_it_was_learned_on(tmp_path, capsys):
    field = PROBLEMS["gaussian"](dim=2)
    rule = fit(field.velocity, field.noise(32), 4, iterations=2, name="gaussian:dim=2")
    rule.save(tmp_path / "rule.json")
    arguments = ["--solvers", "heun", "--calls", "4", "--no-pilot", "--no-overhead", "--learned"]
    report = equal_calls.main(
        ["--field", "gaussian:dim=2", "bend", *arguments, str(tmp_path / "rule.json"), "--ratios"]
    )
    assert [r.field for r in report.rows if r.solver == "learned"] == ["gaussian:dim=2"]
    assert "learned (own)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--field", "nowhere"], "no field named 'nowhere'; choose one of bend"),
        (["--field", "mixture:dim=many"], "mixture:dim=64"),
        (["--solvers", "runge"], "no solver named 'runge'"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(arguments, message):
    with pytest.raises(SystemExit, match=message):
        equal_calls.main([*arguments, "--no-peers", "--no-pilot"])


def test_mixtures_report_basin_flips():
    field = PROBLEMS["mixture"](dim=2)
    noise = field.noise(64)
    found = equal_calls.run(
        field.velocity,
        noise,
        calls=(2, 64),
        solvers=["euler"],
        reference=field.solution(noise),
        others=False,
        pilot=False,
        basin=equal_calls.modes(field),
    )
    few, many = (row.flips for row in found.rows)
    assert few > many >= 0


def test_whoever_watches_is_shown_every_trial_once():
    shown = []

    def watch(plans):
        for plan in plans:
            shown.append(plan)
            yield plan

    assert len(small(watch=watch).rows) == len(shown) > 0
