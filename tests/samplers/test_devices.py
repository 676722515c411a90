"""A pretended accelerator: it holds numbers of its own, refuses float64 as Apple's GPUs do, and
refuses to meet tensors of the CPU beyond single numbers."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import samplers
from janusflow.pipelines.editing import _psnr
from janusflow.training.losses import by_time

THERE, HERE = torch.device("meta"), torch.device("cpu")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(torch.Tensor):
    """Lies on the pretended device; its numbers are in `held`."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("this device has no float64")
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=THERE
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """Makes tensors that ask for the device while it is on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    there = [a for a in tensors if isinstance(a, There)]
    wide = [a for a in tensors if not isinstance(a, There) and a.ndim]
    if there and wide and func not in MOVES:
        raise RuntimeError(f"{func} meets tensors of two devices")
    asked = kwargs.get("device")
    goes = bool(there) if asked is None else torch.device(asked) == THERE
    if func is MOVES[1]:
        goes = isinstance(args[0], There)
    if asked is not None:
        kwargs = {**kwargs, "device": HERE}
    known = {id(a.held): a for a in there}
    args, kwargs = tree_map(lambda a: a.held if isinstance(a, There) else a, (args, kwargs))
    out = func(*args, **kwargs)

    def wrapped(one):
        if not isinstance(one, torch.Tensor):
            return one
        if id(one) in known:  # written into
            return known[id(one)]
        return There(one) if goes else one

    return tree_map(wrapped, out)


@pytest.fixture(autouse=True)
def pretended():
    with torch.no_grad(), Pretended():
        yield


def v(x, t):
    return -x * t.to(x.dtype).to(x.device)


def start():
    return torch.linspace(-1, 1, 33).reshape(11, 3).to(THERE)


def test_the_device_refuses_what_it_should():
    x = start()
    assert isinstance(x + 1, There) and x.device == THERE
    with pytest.raises(TypeError, match="no float64"):
        x.double()
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(3)


OURS = [
    s.name  # the other adaptive ones are torchdiffeq's
    for s in samplers.SOLVERS.values()
    if not s.maps and (not s.adaptive or s.name.endswith("_per_sample"))
]


@pytest.mark.parametrize("name", OURS)
def test_every_solver_runs_there_and_gives_what_it_gives_here(name):
    ts = [0.0, 0.3, 0.7, 1.0]
    seeded = samplers.SOLVERS[name].stochastic

    def options():
        return {"generator": torch.Generator().manual_seed(0)} if seeded else {}

    there = samplers.sample(v, start(), ts, name, **options())
    here = samplers.sample(v, start().cpu(), ts, name, **options())
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-4)


def test_guidance_and_inpainting_run_there():
    pair = (v, lambda x, t: 0.5 * v(x, t))
    for rule in (3.0, samplers.apg(3.0, of_data=True, radius=1.0), samplers.cfg_zero_star(2.0)):
        for calls in (4, 6):  # four lean
            samplers.sample(samplers.guide(pair, rule), start(), calls, "auto")
    keep = samplers.inpaint(v, start(), start(), torch.ones(11, 3).to(THERE))
    samplers.sample(keep, start(), 4, "heun")
    samplers.sample(samplers.controlled(v, start(), 0.5), start(), 4, "euler")


def test_a_pilot_and_picard_run_there():
    assert len(samplers.pilot(v, start(), 4, "heun", looks=2)) == 3
    samplers.picard(v, start(), 4)


def test_sums_of_a_training_step_and_errors_of_a_round_trip_are_taken_there():
    losses = torch.linspace(0.5, 2, 11)
    for there, here in zip(
        by_time(losses.to(THERE), losses.to(THERE) / 4), by_time(losses, losses / 4), strict=True
    ):
        torch.testing.assert_close(there.cpu().double(), here)
    assert _psnr(start(), start() + 0.1) == pytest.approx([20.0] * 11, abs=1e-4)
