"""A solver as a diffusers scheduler: steps, starts, shifts, configurations, refusals."""

import pickle

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler as Euler

import samplers
from samplers.benchmark.measure import fixed
from samplers.benchmark.problems import gaussian, straight
from samplers.diffusers import SolverScheduler
from samplers.grids import uniform
from samplers.search.learn import fit
from samplers.seeds import drawn_seeds

FIELD = gaussian(dim=4)
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def stepped(scheduler, v, noise, n, edit=None, **grid):
    """The loop of every pipeline."""
    scheduler.set_timesteps(**({"num_inference_steps": n} | grid))
    x = noise
    for i, timestep in enumerate(scheduler.timesteps):
        t = 1 - scheduler.sigmas[i].double()
        x = scheduler.step(-v(x, t), timestep, x, return_dict=False)[0]
        x = edit(i, x) if edit else x
    return x


@pytest.mark.parametrize("solver", fixed(), ids=lambda s: s.name)
def test_a_solver_steps_inside_a_pipeline_as_it_does_alone(solver):
    noise = FIELD.noise(6).float()
    scheduler = SolverScheduler(solver=solver.name)
    v = samplers.count(FIELD.velocity)
    x = stepped(scheduler, v, noise, 8)
    ts = samplers.GRIDS[solver.grid](8)
    assert v.calls == len(scheduler.timesteps) == solver.cost(8)
    alone = samplers.sample(FIELD.velocity, noise, ts, solver)
    assert torch.allclose(x.float(), alone, rtol=0, atol=2e-5)


def test_a_stochastic_solver_draws_the_same_noise_at_every_step():
    noise = FIELD.noise(6).float()
    one, two, other = (
        stepped(SolverScheduler(solver="euler_maruyama", seed=s), FIELD.velocity, noise, 8)
        for s in (1, 1, 2)
    )
    generator = torch.Generator().manual_seed(drawn_seeds(1, None, 1)[0])
    alone = samplers.sample(
        FIELD.velocity, noise, uniform(8), "euler_maruyama", generator=generator
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.allclose(one.float(), alone, atol=2e-5)


@pytest.mark.parametrize("name", ["euler_maruyama", "sde_heun", "overshoot"])
def test_the_noise_of_a_stochastic_solver_is_not_that_of_the_latents(name):
    """A pipeline and a scheduler may have the same seed."""
    x = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
    s = SolverScheduler(solver=name, seed=0)
    s.set_timesteps(2)
    y = x
    for t in s.timesteps:
        y = s.step(torch.zeros_like(x), t, y, return_dict=False)[0]
    drift = samplers.sample(lambda x, _: torch.zeros_like(x), x, 2, "euler")
    kept = torch.linalg.lstsq(drift, y).solution
    assert abs(float(kept)) < 1.0
    z = torch.randn(20000, 1, generator=torch.Generator().manual_seed(0))
    fresh = y - y.mean() - torch.linalg.lstsq(x, y).solution * x
    assert abs(float(torch.corrcoef(torch.cat([z, fresh], 1).T)[0, 1])) < 0.05


def test_a_stochastic_solver_takes_the_generators_that_step_gets():
    def end(*seeds):
        s, x = SolverScheduler(solver="euler_maruyama"), torch.ones(2, 3)
        s.set_timesteps(3)
        generators = [torch.Generator().manual_seed(i) for i in seeds]
        for t in s.timesteps:
            x = s.step(torch.zeros_like(x), t, x, generator=generators).prev_sample
        return x

    one, two = end(1, 2), end(2, 3)
    assert torch.equal(one, end(1, 2)) and torch.equal(one[1], two[0])


def test_diffusers_euler_and_ours_agree_in_their_own_conventions():
    noise, sigmas = FIELD.noise(6).float(), [1 - i / 9 for i in range(9)]
    for shift in (1.0, 3.0):
        theirs, ours = (
            stepped(s, FIELD.velocity, noise, None, sigmas=sigmas, num_inference_steps=None)
            for s in (Euler(shift=shift), SolverScheduler(solver="euler", shift=shift))
        )
        assert torch.allclose(theirs, ours, atol=1e-5)


def test_what_a_pipeline_changes_between_steps_stays_changed():
    """Inpainting writes into the latents after every step."""

    def push(i, x):
        return x + 0.1 if i == 2 else x

    noise = FIELD.noise(6).float()
    theirs, ours = (
        stepped(s, FIELD.velocity, noise, 8, push, **grid)
        for s, grid in (
            (Euler(), {"sigmas": [1 - i / 8 for i in range(8)]}),
            (SolverScheduler(solver="euler"), {}),
        )
    )
    assert torch.allclose(theirs, ours, atol=1e-5)


def test_a_run_may_start_part_of_the_way():
    """Image-to-image cuts the list of timesteps and says where."""
    scheduler, x = SolverScheduler(solver="heun"), FIELD.noise(6).float()
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(3 * scheduler.order)
    start = x
    for timestep in scheduler.timesteps[3 * scheduler.order :]:
        v = FIELD.velocity(x, 1 - timestep.double() / 1000)
        x = scheduler.step(-v, timestep, x).prev_sample
    alone = samplers.sample(FIELD.velocity, start, uniform(8)[3:], "heun")
    assert torch.allclose(x.float(), alone, atol=2e-5)


STRAIGHT = straight()


@pytest.mark.parametrize(
    "grid", [{"num_inference_steps": 14}, {"sigmas": [1 - i / 14 for i in range(14)]}]
)
@pytest.mark.parametrize("solver", fixed(), ids=lambda s: s.name)
def test_a_run_may_start_at_any_call(solver, grid):
    """Where the velocity is one everywhere, every rule goes as far as there is noise."""
    if solver.name in ("auto", "exponential", "exponential3"):
        pytest.skip("not exact on a straight path")
    for first in range(1, solver.cost(14), 5):
        s, x = SolverScheduler(solver=solver.name, grid=None if "sigmas" in grid else "uniform"), 0
        s.set_timesteps(**grid)
        s.set_begin_index(first)
        x = start = torch.zeros(1, 2, dtype=torch.float64)
        for t in s.timesteps[first:]:
            x = s.step(-STRAIGHT.velocity(x, t), t, x, return_dict=False)[0]
        way = STRAIGHT.velocity(start, 0) * s.timesteps[first] / 1000
        assert torch.allclose(x, way, atol=1e-6), (solver.name, first)


@pytest.mark.parametrize("name", ["sde_heun", "euler_maruyama", "restart_heun"])
def test_a_stochastic_run_may_start_within_a_step_and_be_pickled(name):
    s, x = SolverScheduler(solver=name, seed=1), FIELD.noise(6).float()
    s.set_timesteps(6)
    s.set_begin_index(1)
    for t in s.timesteps[1:]:
        x = s.step(-FIELD.velocity(x, 1 - t.double() / 1000), t, x, return_dict=False)[0]
        s = pickle.loads(pickle.dumps(s))
    assert bool(x.isfinite().all()) and s.step_index is None


def test_what_is_written_into_the_latents_stays_written():
    for name in ("euler", "heun", "abm", "auto", "dpmpp_2m"):
        s, x = SolverScheduler(solver=name), torch.ones(1, 2)
        s.set_timesteps(4)
        for i, t in enumerate(s.timesteps):
            x = s.step(torch.zeros(1, 2), t, x, return_dict=False)[0]
            if i == 1:
                x.mul_(0)
        assert torch.equal(x, torch.zeros(1, 2)), name


@pytest.mark.parametrize(
    ("theirs", "mu"),
    [
        (diffusers.UniPCMultistepScheduler(flow_shift=5.0, **FLOW), None),
        (diffusers.DPMSolverMultistepScheduler(flow_shift=3.0, **FLOW), None),
        (Euler(use_dynamic_shifting=True, shift_terminal=0.02), 0.8),
        (Euler(use_beta_sigmas=True), None),
        (Euler(use_karras_sigmas=True, shift=3.0), None),
        (Euler(use_exponential_sigmas=True), None),
    ],
)
def test_a_models_schedule_is_kept(theirs, mu):
    ours = SolverScheduler.from_config(theirs.config, solver="euler")
    for s in (ours, theirs):
        s.set_timesteps(6, **({} if mu is None else {"mu": mu}))
    assert torch.allclose(ours.sigmas, theirs.sigmas.float(), atol=2e-3)


def test_inverted_sigmas_count_up_and_predict_the_other_sign():
    theirs = Euler(invert_sigmas=True)
    ours = SolverScheduler.from_config(theirs.config, solver="euler")
    sigmas, ends = [1 - i / 5 for i in range(5)], []
    for s in (theirs, ours):
        s.set_timesteps(sigmas=sigmas)
        x = torch.ones(1, 2)
        for i, t in enumerate(s.timesteps):
            x = s.step(x * s.sigmas[i], t, x, return_dict=False)[0]
        ends.append(x)
    assert torch.allclose(ours.sigmas, theirs.sigmas) and torch.allclose(*ends)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (diffusers.EulerDiscreteScheduler(), "prediction_type='epsilon'"),
        (diffusers.DDIMScheduler(prediction_type="v_prediction"), "v_prediction"),
        (diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"), "use_flow_sigmas"),
        (diffusers.UniPCMultistepScheduler(use_karras_sigmas=True, **FLOW), "use_karras_sigmas"),
        (Euler(stochastic_sampling=True), "stochastic_sampling"),
        (diffusers.UniPCMultistepScheduler(final_sigmas_type="sigma_min", **FLOW), "final_sigmas"),
    ],
)
def test_what_no_solver_of_velocities_can_follow_is_refused_by_name(theirs, told):
    with pytest.raises(ValueError, match=told):
        SolverScheduler.from_config(theirs.config, solver="euler")


@pytest.mark.parametrize(
    "sigmas", [[], [1.0, 0.5, 0.5], [0.5, 0.8], [1.0, float("nan")], [1.0, 0.0], [1.2, 0.5]]
)
def test_sigmas_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas fall from at most 1"):
        SolverScheduler(solver="euler").set_timesteps(sigmas=sigmas)


def test_a_number_of_steps_may_come_with_sigmas_if_they_agree():
    s = SolverScheduler(solver="euler")
    s.set_timesteps(2, sigmas=[1.0, 0.5])
    with pytest.raises(ValueError, match="equal numbers if several"):
        s.set_timesteps(3, sigmas=[1.0, 0.5])


def test_a_pipeline_may_say_what_the_model_is_told():
    """CogView4 shifts the sigmas and not the timesteps."""
    theirs, timesteps = Euler(use_dynamic_shifting=True), [1000.0, 750.0, 500.0, 250.0]
    sigmas = [t / 1000 for t in timesteps]
    ours = SolverScheduler.from_config(theirs.config, solver="euler")
    for s in (ours, theirs):
        s.set_timesteps(timesteps=timesteps, sigmas=sigmas, mu=0.8)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert torch.allclose(ours.sigmas, theirs.sigmas)
    data, noise = torch.zeros(1, 2), torch.ones(1, 2)
    mixed = [s.scale_noise(data, s.timesteps[1:2], noise) for s in (ours, theirs)]
    assert torch.allclose(*mixed)


def test_the_shift_can_be_set_and_a_timestep_found():
    s = SolverScheduler(solver="heun")
    s.set_shift(3.0)
    s.set_timesteps(4)
    plain = SolverScheduler(solver="heun", shift=3.0)
    plain.set_timesteps(4)
    assert s.shift == 3.0 and torch.equal(s.timesteps, plain.timesteps)
    assert s.index_for_timestep(s.timesteps[2]) == 2
    with pytest.raises(ValueError, match="not one of the scheduler's"):
        s.index_for_timestep(3.3)


def test_a_pilots_grid_is_taken_as_it_is(tmp_path):
    grid = samplers.pilot(FIELD.velocity, FIELD.noise(4), 4, "abm", looks=12)
    s = SolverScheduler(solver="abm", grid=grid, shift=3.0)
    noise = FIELD.noise(6).float()
    x = stepped(s, FIELD.velocity, noise, 4)
    alone = samplers.sample(FIELD.velocity, noise, grid, "abm")
    assert torch.allclose(x.float(), alone, atol=2e-5)
    s.save_config(tmp_path)
    assert SolverScheduler.from_pretrained(tmp_path).config.grid == list(grid.times)
    with pytest.raises(ValueError, match="num_inference_steps=4"):
        s.set_timesteps(5)


def test_two_grids_at_once_are_refused():
    s = SolverScheduler(solver="euler", grid="cosine")
    s.set_timesteps(sigmas=[1.0, 2 / 3, 1 / 3])  # what a pipeline passes of itself
    assert float(s.sigmas[1]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="leave one of them out"):
        s.set_timesteps(sigmas=[1.0, 0.3])


def test_a_half_precision_network_keeps_a_float32_state():
    noise = FIELD.noise(64).float()

    def coarse(x, t):
        assert x.dtype == torch.bfloat16
        return FIELD.velocity(x.double(), t).bfloat16()

    scheduler = SolverScheduler(solver="euler")
    x = stepped(scheduler, coarse, noise.bfloat16(), 50)
    exact = samplers.sample(FIELD.velocity, noise.bfloat16().float(), 50, "euler")
    rounded = exact.bfloat16()  # no worse than a few roundings of the result
    assert (x.float() - exact).abs().mean() < 6 * (rounded.float() - exact).abs().mean()


def test_a_learned_solver_runs_in_a_pipeline_from_its_file(tmp_path):
    rule = fit(FIELD.velocity, FIELD.noise(32), 4, iterations=3)
    rule.save(tmp_path / "rule.json")
    noise = FIELD.noise(6).float()
    x = stepped(SolverScheduler(solver=str(tmp_path / "rule.json")), FIELD.velocity, noise, 4)
    alone = samplers.sample(FIELD.velocity, noise, 4, rule)
    assert torch.allclose(x.float(), alone, atol=2e-5)


def test_a_scheduler_without_timesteps_says_so():
    with pytest.raises(ValueError, match="call set_timesteps first"):
        SolverScheduler().step(torch.zeros(1, 2), 1000.0, torch.zeros(1, 2))


def test_adding_noise_is_the_straight_path():
    scheduler = SolverScheduler()
    data, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    at = torch.tensor([0.0, 250.0, 1000.0])
    mixed = scheduler.scale_noise(data, at, noise)
    assert torch.equal(mixed[0], data[0]) and torch.equal(mixed[2], noise[2])
    assert torch.allclose(mixed[1], 0.25 * noise[1] + 0.75 * data[1])
    assert torch.equal(mixed, scheduler.add_noise(data, noise, at))


def test_a_saved_configuration_makes_the_same_scheduler(tmp_path):
    scheduler = SolverScheduler(solver="heun3", grid="cosine", shift=2.0)
    scheduler.save_config(tmp_path)
    again = SolverScheduler.from_pretrained(tmp_path)
    for s in (scheduler, again):
        s.set_timesteps(7)
    assert again.config.solver == "heun3" and again.order == 3
    assert torch.equal(scheduler.timesteps, again.timesteps)


def test_the_configuration_of_a_pipelines_scheduler_is_taken_over():
    ours = SolverScheduler.from_config(Euler(shift=3.0).config, solver="ralston")
    assert ours.config.shift == 3.0 and ours.order == 2


def test_adaptive_solvers_cannot_list_their_timesteps():
    with pytest.raises(ValueError, match="fixed steps"):
        SolverScheduler(solver="dopri5")


def test_dynamic_shifting_wants_mu():
    scheduler = SolverScheduler(use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="mu"):
        scheduler.set_timesteps(4)
    theirs = Euler(use_dynamic_shifting=True)
    sigmas = [1 - i / 4 for i in range(4)]
    scheduler = SolverScheduler(solver="euler", use_dynamic_shifting=True)
    for s in (scheduler, theirs):
        s.set_timesteps(sigmas=sigmas, mu=0.8)
    assert torch.allclose(scheduler.sigmas, theirs.sigmas, atol=1e-6)
