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
# # From noise to image
#
# **Question.** What happens between noise and image, and how many evaluations does it take?
#
# **Answer.** Most is decided near the noise: there the path bends, and soon the model expects
# nearly the final image. `auto` needs a third of the evaluations that Euler's rule needs for the
# same error. The numbers are at the end.
#
# A flow model is a velocity $v(x, t)$. Noise at $t = 0$ follows $dx/dt = v(x, t)$ and is an image
# at $t = 1$. A solver knows $v$ only at the points where it evaluates it, and these evaluations
# are what an image costs. We first look at a field in the plane whose endpoints are known to ten
# digits, then at the model.
#
# Another model is one line: `MODEL`.

# %%
from statistics import median
from textwrap import fill

import matplotlib.pyplot as plt
import torch
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline
from janusflow.utils.devices import pick_device

MODEL, VAE = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

torch.set_grad_enabled(False)
logging.disable_progress_bar()
plt.style.use("samplers.benchmark.paper")
plt.rcParams["figure.dpi"] = 75

# %% [markdown]
# ## A mixture in the plane
#
# The data are eight Gaussians of standard deviation 0.2, and $v$ is exact: $v(x, t) =
# E[\text{data} - \text{noise} \mid x]$. We follow 64 samples with 64 evaluations of `auto`.

# %%
plane = samplers.PROBLEMS["mixture"](dim=2)
path = list(samplers.trajectory(plane.velocity, plane.noise(64), 64, "auto"))
times = torch.stack([t for t, _ in path])
states = torch.stack([x for _, x in path])  # (65, 64, 2)
means = plane.velocity.means

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(*states.unbind(-1), color="0.7", lw=0.8, zorder=0)
left.scatter(*states[0].T, s=10, label="noise, t = 0")
left.scatter(*states[-1].T, s=10, label="data, t = 1")
left.scatter(*means.T, s=60, marker="+", color="k", label="means of the modes")
left.set(title="where 64 samples go", aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
left.legend(fontsize=8)
right.plot(times, states[..., 0], color="0.4", lw=0.6)
right.set(title="their first coordinate", xlabel="t", ylabel="$x_1$")
plt.show()

# %% [markdown]
# At $t = 0$ every sample moves towards the mean of all data. Later each moves to one mode, and the
# paths bend. On a straight path at constant speed $v = x_1 - x_0$ throughout, and one evaluation
# is enough. The distance of a field from that at each time is $E|v - (x_1 - x_0)|^2 \,/\, E|x_1 -
# x_0|^2$. We call its mean over time the field's bend.


# %%
def bend(times, states):
    """The middle of each step and how far its velocity is from the chord there, relative."""
    h = times.diff().to(states)
    v = states.diff(dim=0) / h.reshape(-1, *[1] * (states.ndim - 1))
    chord = states[-1] - states[0]
    relative = (v - chord).square().flatten(1).mean(1) / chord.square().mean()
    return (times[1:] + times[:-1]) / 2, relative.cpu()


def mean_bend(times, states):
    return float((bend(times, states)[1] * times.diff()).sum())


plane_bend = mean_bend(times, states)
print(f"bend of the plane: {plane_bend:.2f}")

# %% [markdown]
# How many evaluations does an accurate endpoint take? The error of a sample is the root mean
# square (RMS) of its distance to the exact endpoint; we take the geometric mean over 512 samples.
# `auto` is the default solver of `samplers`. `pilot` integrates eight other samples first and
# places the times for this field.


# %%
def error(x, exact):
    """Geometric mean over samples of the RMS difference."""
    square = (x - exact).cpu().double().square().flatten(1).mean(1)
    return float(square.log().mean().div(2).exp())


PLANE_CALLS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
noise = plane.noise(512)
exact = plane.solution(noise)
pilots = {n: samplers.pilot(plane.velocity, plane.noise(8, seed=1), n) for n in PLANE_CALLS}


def plane_error(solver, grid):
    return error(samplers.sample(plane.velocity, noise, grid, solver), exact)


plane_errors = {
    name: [plane_error(name, n) for n in PLANE_CALLS] for name in ("euler", "heun", "auto")
}
plane_errors["auto with pilot"] = [plane_error("auto", pilots[n]) for n in PLANE_CALLS]


def plot_errors(ax, calls, errors, title):
    for marker, (name, values) in zip("os^D", errors.items(), strict=False):
        ax.loglog(calls, values, f"{marker}-", ms=4, label=name)
    ax.set_xticks(calls, calls)
    ax.minorticks_off()
    ax.set(xlabel="evaluations of v", ylabel="error at t = 1 (RMS)", title=title)
    ax.grid(alpha=0.3)
    ax.legend()


fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
plot_errors(ax, PLANE_CALLS, plane_errors, "mixture in the plane, n = 512")
plt.show()
looked = [grid.evaluations for grid in pilots.values()]
print(f"a pilot took {min(looked)} to {max(looked)} evaluations of its 8 samples, once per field")

# %% [markdown]
# ## The model
#
# Eight prompts, one noise each, guidance 3. An evaluation of the guided velocity evaluates the
# network twice, with the prompt and without. The reference is Heun's rule with 256 evaluations;
# its states along the way show what happens.

# %%
PROMPTS = [
    "a blue star and a green heart",
    "three orange circles",
    "a red circle",
    "a purple ring above a cyan square",
    "two yellow triangles",
    "a pink cross left of a brown diamond",
    "a green heart",
    "four red squares",
]
GUIDANCE = 3.0

pipe = JanusFlowPipeline.from_pretrained(MODEL, vae=VAE).to(pick_device())
field = pipe.field(PROMPTS, GUIDANCE)
generator = torch.Generator().manual_seed(0)
noise = pipe.prepare_latents(len(PROMPTS), None, None, generator)
path = list(samplers.trajectory(field, noise, 256, "heun"))
times = torch.stack([t for t, _ in path])
states = torch.stack([x for _, x in path])  # (129, 8, channels, height, width)
reference = states[-1]


def decoded(latents):
    """(B, height, width, 3) in [0, 1]."""
    return pipe.decode(latents, "np")


def levels(images, others):
    """Mean absolute difference of images in grey levels of 255, one number for each image."""
    return abs(images - others).mean((1, 2, 3)) * 255


# %% [markdown]
# At time $t$ the model expects the image $x + (1 - t)\, v(x, t)$, the end of the path if it went
# straight on from here. For two prompts, the decoded state and the decoded expected image:

# %%
SHOWN = range(0, 129, 16)
final = decoded(reference)
beliefs = [decoded(states[i] + (1 - float(times[i])) * field(states[i], times[i])) for i in SHOWN]
away = [levels(belief, final).mean() for belief in beliefs]

fig, axes = plt.subplots(4, len(SHOWN), figsize=(11, 5.2), layout="constrained")
for ax in axes.flat:
    ax.axis("off")
for column, i in enumerate(SHOWN):
    for row, shown in enumerate((decoded(states[i]), beliefs[column])):
        axes[row, column].imshow(shown[0])
        axes[row + 2, column].imshow(shown[1])
    axes[0, column].set_title(f"t = {float(times[i]):.3g}", fontsize=9)
for ax, name in zip(axes[:, 0], ("state", "expected") * 2, strict=True):
    place = dict(transform=ax.transAxes, rotation=90, ha="right", va="center")
    ax.text(-0.08, 0.5, name, fontsize=9, **place)
plt.show()
print("expected image to final image, mean distance over prompts, in grey levels of 255:")
print(", ".join(f"t = {float(times[i]):.3g}: {d:.1f}" for i, d in zip(SHOWN, away, strict=True)))

# %% [markdown]
# Where does the path bend, and does guidance bend it?

# %%
plain = list(samplers.trajectory(pipe.field(PROMPTS, 1.0), noise, 128, "heun"))
curves = {
    f"guidance {GUIDANCE:g}": (times, states),
    "guidance 1": (torch.stack([t for t, _ in plain]), torch.stack([x for _, x in plain])),
}
bends = {name: mean_bend(*curve) for name, curve in curves.items()}

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for name, curve in curves.items():
    ax.plot(*bend(*curve), label=f"{name}: mean {bends[name]:.3f}")
ax.set(xlabel="t", ylabel="relative distance to chord", ylim=(0, None))
ax.legend()
plt.show()

# %% [markdown]
# Error against evaluations of the guided velocity, in latents of about unit variance. The dotted
# line is the distance of the reference from another one (`abm`, 128 evaluations): errors below it
# mean nothing.

# %%
CALLS = (4, 6, 8, 10, 16, 24, 30, 48)
ends = {
    name: [samplers.sample(field, noise, n, name) for n in CALLS]
    for name in ("euler", "abm", "auto")
}
errors = {name: [error(x, reference) for x in row] for name, row in ends.items()}
second = samplers.sample(field, noise, 128, "abm")
doubt = error(second, reference)

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.axhline(doubt, color="k", ls=":", lw=1, label="between two references")
plot_errors(ax, CALLS, errors, f"{MODEL}, guidance {GUIDANCE:g}, n = {len(PROMPTS)}")
plt.show()

# %% [markdown]
# The first six prompts as images, by `auto`. The number above each is its distance to the
# reference's image, in grey levels of 255.

# %%
SHEET, WIDTH = (4, 8, 16, 30), 6  # evaluations, prompts
rows = {n: decoded(ends["auto"][CALLS.index(n)]) for n in SHEET}
apart = {n: levels(images, final) for n, images in rows.items()}

fig, axes = plt.subplots(5, WIDTH, figsize=(8.4, 7.8), layout="constrained")
for row, (name, images) in zip(axes, [*rows.items(), ("256 heun", final)], strict=True):
    for i, ax in enumerate(row):
        ax.imshow(images[i])
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{apart[name][i]:.1f}" if name in apart else "", fontsize=8)
    row[0].set_ylabel(f"{name} evaluations", fontsize=7)
for ax, prompt in zip(axes[-1], PROMPTS[:WIDTH], strict=True):
    ax.set_xlabel(fill(prompt, 20), fontsize=8)
plt.show()

# %% [markdown]
# ## The answer


# %%
def fewest(calls, errors, target):
    """For each solver the fewest of the calls tried that keep the error at the target or below."""
    enough = {
        name: [n for n, e in zip(calls, row, strict=True) if e <= target]
        for name, row in errors.items()
    }
    return "; ".join(f"{k} {ns[0] if ns else f'over {calls[-1]}'}" for k, ns in enough.items())


half = next(t for t, d in zip(times[::16], away, strict=True) if d <= away[0] / 2)
remaining = away[4] / away[0]
middles, curve = bend(times, states)
early = float(curve[middles < 0.2].sum() / curve.sum())
guided, target = bends[f"guidance {GUIDANCE:g}"], errors["euler"][CALLS.index(30)]
at_16 = plane_errors["auto"][PLANE_CALLS.index(16)], errors["auto"][CALLS.index(16)]
worst, sure = apart[30].argmax(), levels(decoded(second), final).max()
medians = {n: median(apart[n]) for n in SHEET}

print(f"""What happens. At the first evaluation the model expects a blur,
{away[0]:.0f} grey levels from the final image. At t = {float(half):.3g} it is at most half as
far, and at t = 0.5 {remaining:.0%} of the distance remain.
{early:.0%} of the bend lies before t = 0.2.
With guidance {GUIDANCE:g} the bend is {guided:.3f}, without {bends["guidance 1"]:.3f}.

How many evaluations, in the plane. For an error of 0.01, a twentieth of a mode's deviation:
{fewest(PLANE_CALLS, plane_errors, 0.01)}.

How many evaluations, with {MODEL}. For the error of 30 Euler steps, {target:.3f}:
{fewest(CALLS, errors, target)}.
Median difference of {len(PROMPTS)} images by auto from the reference's, in grey levels:
{", ".join(f"{d:.1f} with {n} evaluations" for n, d in medians.items())}.
The median hides prompts where a small error decides what is drawn: with 30 evaluations
"{PROMPTS[worst]}" differs by {apart[30][worst]:.1f},
and the second reference by at most {sure:.1f} on any prompt.

A small bend does not make a field easy: it is {plane_bend:.2f} in the plane and {guided:.3f}
for the model, but with 16 evaluations of auto the error is {at_16[0]:.2g} in the plane and
{at_16[1]:.2g} for the model.""")
