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
# # Samplers and calls
#
# **Question.** Which sampler gives the smallest error for a number of calls, and does what holds on
# exact fields hold on a model?
#
# A call is one evaluation of the velocity, the only thing that costs time. We compare fixed
# methods, `auto`, the grid of a pilot and a solver learned for the field: first where the exact
# endpoints are known, then on the model. The answer, with numbers, stands at the end.
#
# Another model is one line: `MODEL`. On one CPU core the shipped one takes about a minute.

# %%
import matplotlib.pyplot as plt
import torch
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline, plots
from janusflow.devices import pick_device
from samplers import learn

MODEL, VAE = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

logging.disable_progress_bar()
plt.rcParams.update({"figure.dpi": 75, "axes.spines.top": False, "axes.spines.right": False})


def error(x, exact):
    """Geometric mean over samples of the RMS difference."""
    square = (x - exact).detach().cpu().double().square().flatten(1).mean(1)
    return float(square.log().mean().div(2).exp())


# %% [markdown]
# ## Fields with exact endpoints
#
# Three fields of `samplers.PROBLEMS`: a Gaussian in 16 dimensions, eight Gaussians in the plane,
# and these guided. The pilot looks at the field with eight samples of its own and spaces the times
# of `auto` for it.

# %%
FIELDS = {"gaussian": {}, "mixture": {}, "guided": {}}
SOLVERS = ("euler", "heun", "dpmpp_2m", "abm", "auto")
CALLS = (4, 6, 8, 10, 16, 32, 64)


@torch.no_grad()
def curves_of(v, noise, exact, look):
    """{name: (calls, errors)} of the solvers, and of auto on the grid of a pilot."""
    found = {
        name: (CALLS, [error(samplers.sample(v, noise, n, name), exact) for n in CALLS])
        for name in SOLVERS
    }
    grids = [samplers.pilot(v, look, n) for n in CALLS]
    ends = [samplers.sample(v, noise, grid, "auto") for grid in grids]
    found["auto with pilot"] = CALLS, [error(x, exact) for x in ends]
    return found


exact_curves = {}
for name, options in FIELDS.items():
    field = samplers.PROBLEMS[name](**options)
    noise = field.noise(256)
    look = field.noise(8, seed=1)
    exact_curves[name] = curves_of(field.velocity, noise, field.solution(noise), look)

fig, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
for ax, (name, found) in zip(axes, exact_curves.items(), strict=True):
    plots.work_precision(found, axes=ax)
    ax.set_title(name)
plt.show()

# %% [markdown]
# ## A solver learned for one field
#
# `samplers.learn` starts from the best fixed rule with so many calls and lets all its times and
# weights follow the gradient of the error. It is then tested on noise that it has not seen.

# %%
LEARNED = 6
plane = samplers.PROBLEMS["mixture"]()
train, test = plane.noise(256, seed=2), plane.noise(256)
rule = learn.fit(
    plane.velocity, train, LEARNED, reference=plane.solution(train), iterations=300, batch=128
)
with torch.no_grad():
    learned_error = error(
        samplers.sample(plane.velocity, test, LEARNED, rule), plane.solution(test)
    )
at = CALLS.index(LEARNED)
others = {name: errors[at] for name, (_, errors) in exact_curves["mixture"].items()}
best = min(others, key=others.get)
print(
    f"mixture, {LEARNED} calls: learned {learned_error:.3f}, best other {others[best]:.3f} ({best})"
)

# %% [markdown]
# ## The model
#
# Four prompts, one noise each, guidance 2; the reference is `heun` with 192 calls, and the dotted
# line is how far `abm` with 96 calls ends from it: errors below it mean nothing.

# %%
PROMPTS = [
    "a red circle left of a blue square",
    "three orange circles",
    "a green heart",
    "a purple ring above a cyan square",
]
pipe = JanusFlowPipeline.from_pretrained(MODEL, vae=VAE).to(pick_device())
with torch.no_grad():
    field = pipe.field(PROMPTS, 2.0)
    noise = pipe.prepare_latents(len(PROMPTS), None, None, torch.Generator().manual_seed(0))
    reference = samplers.sample(field, noise, 192, "heun")
    doubt = error(samplers.sample(field, noise, 96, "abm"), reference)

# %% [markdown]
# The pilot may not look at the noise that it is judged on: it looks at another four.

# %%
CALLS = (4, 6, 8, 10, 16, 24, 32)
others_noise = pipe.prepare_latents(len(PROMPTS), None, None, torch.Generator().manual_seed(1))


@torch.no_grad()
def look_at(n):
    return samplers.pilot(field, others_noise, n, looks=150)


model_curves = {}
with torch.no_grad():
    for name in SOLVERS:
        ends = [samplers.sample(field, noise, n, name) for n in CALLS]
        model_curves[name] = CALLS, [error(x, reference) for x in ends]
FEW = (6, 10)
piloted = {n: look_at(n) for n in FEW}
with torch.no_grad():
    ends = [samplers.sample(field, noise, piloted[n], "auto") for n in FEW]
model_curves["auto with pilot"] = FEW, [error(x, reference) for x in ends]

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
plots.work_precision(model_curves, floor=doubt, axes=ax)
ax.set_title(f"{MODEL}, guidance 2")
plt.show()
spent = ", ".join(f"{piloted[n].evaluations} calls for {n}" for n in FEW)
print(f"a pilot's look took, once a field, on its batch of {len(PROMPTS)}: {spent}")

# %% [markdown]
# How much of that can be seen? The first prompt with few calls, beside the reference.

# %%
with torch.no_grad():
    shown = {
        name: [samplers.sample(field, noise, n, name)[:1] for n in (4, 8, 16)] + [reference[:1]]
        for name in ("euler", "abm", "auto")
    }
    rows = {k: [pipe.decode(x, "np")[0] for x in row] for k, row in shown.items()}
captions = ["4 calls", "8 calls", "16 calls", "reference"] + [""] * 8
fig, ax = plt.subplots(figsize=(7.4, 5.4), layout="constrained")
plots.images([p for row in rows.values() for p in row], captions, columns=4, axes=ax)
for i, name in enumerate(rows):
    ax.text(-0.04, (i + 0.6) * ax.get_ylim()[0] / 3, name, rotation=90, ha="right", va="center")
plt.show()

# %% [markdown]
# ## The answer


# %%
def ranking(curves, calls):
    """Names from the smallest error with so many calls to the largest."""
    found = {
        name: errors[list(ns).index(calls)] for name, (ns, errors) in curves.items() if calls in ns
    }
    return ", ".join(f"{name} {e:.2g}" for name, e in sorted(found.items(), key=lambda p: p[1]))


def ratio(curves, calls, a="auto", b="euler"):
    ns = list(curves[a][0])
    return curves[a][1][ns.index(calls)] / curves[b][1][ns.index(calls)]


euler = dict(zip(*model_curves["euler"], strict=True))
abm = dict(zip(*model_curves["abm"], strict=True))
enough = min((n for n in CALLS if abm[n] <= euler[32]), default=None)
print(f"""With 10 calls, from the smallest error to the largest:
  gaussian: {ranking(exact_curves["gaussian"], 10)}
  mixture: {ranking(exact_curves["mixture"], 10)}
  guided: {ranking(exact_curves["guided"], 10)}
  {MODEL}: {ranking(model_curves, 10)}

With 16 calls auto has {ratio(exact_curves["mixture"], 16):.0%} of Euler's error on the mixture and
{ratio(model_curves, 16):.0%} on the model: what is won on exact fields is won only in part there.
abm reaches the error of 32 Euler calls, {euler[32]:.3f}, with {enough or "more than 32"} calls.
The solver learned for {LEARNED} calls on the mixture has {learned_error / others[best]:.0%} of
the error of the best other one, {best}, and works on that field alone.""")
