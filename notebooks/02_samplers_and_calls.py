# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Samplers and evaluations
#
# **Question.** Which solver is most accurate with few evaluations, and is the best solver on exact
# fields also the best on a trained model?
#
# **Answer.** With 16 evaluations `auto` is the most accurate of the solvers that are not fitted to
# the field, on both exact fields and on the model. The numbers are at the end.
#
# A solver knows the velocity only where it evaluates it. We plot error against evaluations, first
# on two fields whose endpoints are known, then on the model, where an accurate solver gives the
# reference. Another model is one line: `model`.

# %%
import matplotlib.pyplot as plt
import torch
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline
from janusflow.evaluation import plots
from janusflow.utils.devices import pick_device

model, vae = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

torch.set_grad_enabled(False)
logging.disable_progress_bar()
plt.style.use("samplers.benchmark.paper")
CALLS = (4, 6, 8, 10, 16, 32)
SOLVERS = ("euler", "heun", "dpmpp_2m", "unipc2", "abm", "auto")


def error(x, exact):
    """Geometric mean over samples of the RMS difference."""
    square = (x - exact).cpu().double().square().flatten(1).mean(1)
    return float(square.log().mean().div(2).exp())


def curve(v, noise, exact, solver, grids):
    """(calls, errors) of a solver on {calls: grid}, where it can spend so many."""
    spent = {}
    for n, grid in grids.items():
        try:
            spent[n] = error(samplers.sample(v, noise, grid, solver), exact)
        except ValueError:  # such as heun with an odd number of calls
            continue
    return list(spent), list(spent.values())


# %% [markdown]
# ## Exact fields
#
# A mixture of eight Gaussians in the plane and one in 64 dimensions; 256 samples in float64.
# `pilot` places the times after it has integrated eight other samples. In 64 dimensions there is
# also a solver whose coefficients were all learned for this field (`samplers.learn`), on other
# noises.

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
exact_errors = {}
for ax, dim in zip(axes, (2, 64), strict=True):
    problem = samplers.PROBLEMS["mixture"](dim=dim)
    v, noise = problem.velocity, problem.noise(256, seed=5)
    exact = problem.solution(noise)
    plain = {n: n for n in CALLS}
    rows = {name: curve(v, noise, exact, name, plain) for name in SOLVERS}
    placed = {n: samplers.pilot(v, problem.noise(8, seed=1), n) for n in CALLS}
    rows["auto, pilot"] = curve(v, noise, exact, "auto", placed)
    if dim == 64:
        fitted = {n: samplers.learned(f"mixture64-{n}") for n in (4, 6, 8, 10)}
        ends = {n: samplers.sample(v, noise, n, one) for n, one in fitted.items()}
        rows["learned"] = (list(ends), [error(x, exact) for x in ends.values()])
    plots.work_precision(rows, axes=ax)
    ax.set_title(f"mixture in {dim} dimensions, n = 256")
    exact_errors[dim] = {name: dict(zip(*row, strict=True)) for name, row in rows.items()}
plt.show()

# %% [markdown]
# The times of 16 evaluations: each row is a grid, each tick a time.

# %%
fig, ax = plt.subplots(figsize=(7, 1.6), layout="constrained")
problem = samplers.PROBLEMS["mixture"](dim=2)
grids = {
    "uniform": samplers.uniform(16),
    "auto's own": samplers.tilted(16),
    "pilot": samplers.pilot(problem.velocity, problem.noise(8, seed=1), 16),
}
for i, grid in enumerate(grids.values()):
    times = getattr(grid, "times", grid)
    ax.plot(times, [i] * len(times), "|", ms=14)
ax.set_yticks(range(len(grids)), grids)
ax.set(xlabel="t", ylim=(2.6, -0.6))
plt.show()

# %% [markdown]
# ## The model
#
# Four prompts, guidance 2. An evaluation of the guided velocity evaluates the network twice. The
# reference is rk4 with 192 evaluations; the dotted line is the distance of rk4 with 96 evaluations
# from it.

# %%
PROMPTS = ["a red circle", "two blue squares", "a green star", "a yellow ring above a pink cross"]
pipe = JanusFlowPipeline.from_pretrained(model, vae=vae).to(pick_device())
field = pipe.field(PROMPTS, 2.0)
noise = pipe.prepare_latents(len(PROMPTS), None, None, torch.Generator().manual_seed(0))
truth = samplers.sample(field, noise, 192, "rk4")
doubt = error(samplers.sample(field, noise, 96, "rk4"), truth)
grids = {n: n for n in CALLS}
rows = {name: curve(field, noise, truth, name, grids) for name in SOLVERS}
model_errors = {name: dict(zip(*row, strict=True)) for name, row in rows.items()}
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
plots.work_precision(rows, doubt, ax)
ax.set_title(f"{model}, guidance 2, n = {len(PROMPTS)}")
ax.set_xlabel("evaluations of the guided velocity")
plt.show()

# %% [markdown]
# One noise of each solver as an image:

# %%
SHOWN = (4, 8, 16, 32)
sheet, captions = [], []
for name in ("euler", "abm"):
    for n in SHOWN:
        sheet.append(pipe.decode(samplers.sample(field, noise, n, name))[3])
        captions.append(f"{name}, {n} evaluations")
    sheet.append(pipe.decode(truth)[3])
    captions.append("rk4, 192 evaluations")
fig, ax = plt.subplots(figsize=(9, 4.4), layout="constrained")
plots.images(sheet, captions, 5, ax)
plt.show()

# %% [markdown]
# ## The answer


# %%
def ranking(errors, n):
    found = sorted((row[n], name) for name, row in errors.items() if n in row)
    return ", ".join(f"{name} {e:.2g}" for e, name in found)


def place(errors, n):
    """The rank of `auto` among the solvers that do not see the field before."""
    row = sorted(SOLVERS, key=lambda name: errors[name][n])
    return f"number {row.index('auto') + 1} of {len(row)}"


def first(errors, n):
    return min((row[n], name) for name, row in errors.items() if n in row)[1]


n = 16
print(f"""With {n} evaluations the most accurate solver is
{first(exact_errors[2], n)} in 2 dimensions,
{first(exact_errors[64], n)} in 64, and {first(model_errors, n)} on {model}. Among the solvers that
do not see the field before, auto is {place(exact_errors[2], n)} in 2 dimensions,
{place(exact_errors[64], n)} in 64, and {place(model_errors, n)} on {model}.
""")
for n in (8, 16, 32):
    print(f"{n} evaluations, mixture in 2 dimensions: {ranking(exact_errors[2], n)}")
    print(f"{n} evaluations, mixture in 64 dimensions: {ranking(exact_errors[64], n)}")
    print(f"{n} evaluations, {model}: {ranking(model_errors, n)}\n")
gain = {
    "the mixture in 64 dimensions": exact_errors[64],
    f"{model}": model_errors,
}
for name, errors in gain.items():
    better = {n: errors["euler"][n] / errors["abm"][n] for n in (8, 32)}
    ratios = f"{better[8]:.2g} (8 evaluations) and {better[32]:.2g} (32) times"
    print(f"{name}: euler's error is {ratios} that of abm")
print(f"The reference on {model} is itself uncertain by {doubt:.2g}.")
