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
# # One, two and four evaluations
#
# **Question.** How does a flow that needs many evaluations become one that needs one, two or four?
#
# **Answer.** By reflow or by a flow map.
#
# - *Reflow* trains the velocity again on pairs (noise, data) of its own flow. This makes the paths
#   straight, and a straight path needs one Euler step.
# - A *flow map* u(x, t, s) is trained to jump from t to s in one evaluation.
#
# We train both on points in the plane, which takes seconds. Then we look at the packaged flow map
# of coloured shapes: with four evaluations it scores at least as high as its teacher with 60. The
# numbers are at the end.

# %%
import json
import time
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from torch import nn
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline
from janusflow.evaluation import plots
from janusflow.training.objectives import map_losses
from samplers import rectify

model, few = "janusflow/scenes", "janusflow/scenes-few"

logging.disable_progress_bar()
torch.set_num_threads(1)
torch.manual_seed(0)
plt.style.use("samplers.benchmark.paper")
plt.rcParams["figure.dpi"] = 75
DOCS = next(p for p in (Path("docs"), Path("../docs")) if (p / "results").exists())

# %% [markdown]
# ## Points in the plane
#
# The data are eight Gaussians on a circle. `Net` takes two times, t and s, as a flow map needs
# them. As a velocity it is evaluated with s = t.


# %%
class Net(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        sizes = [2 + 6, width, width, width]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x, t, s=None):
        s = t if s is None else s
        times = torch.stack([t, s - t], dim=1)
        waves = [times, (3.14 * times).sin(), (3.14 * times).cos()]
        return self.layers(torch.cat([x, *waves], dim=1))


def ring(count):
    angle = torch.randint(8, (count,)) * torch.pi / 4
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centres + 0.15 * torch.randn(count, 2)


def train(net, loss, steps=1500, lr=2e-3):
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss(net).mean().backward()
        optimizer.step()
    return net.requires_grad_(False)


def flow_matching(net):
    return rectify.loss(net, torch.randn(256, 2), ring(256), torch.rand(256))


start = time.perf_counter()
first = train(Net(), flow_matching)
print(f"{time.perf_counter() - start:.0f} s")

# %% [markdown]
# **Reflow.** We integrate the trained flow to get pairs (noise, data), and train a second network
# on them by flow matching. The pairs of the second network train a third.


# %%
def reflowed(net, count=8192):
    noise, data = rectify.pairs(samplers.batched(net), torch.randn(count, 2), 32)

    def loss(net):
        i = torch.randint(count, (256,))
        return rectify.loss(net, noise[i], data[i], torch.rand(256))

    return train(Net(), loss)


second = reflowed(first)
third = reflowed(second)

# %% [markdown]
# **A flow map.** We train u(x, t, s) with the loss of MeanFlow (Geng et al.): u = v + (s - t)
# du/dt, where v is the velocity of the first network. For half of the samples s = t, where u is
# the velocity.


# %%
def mean_flow(net):
    noise, data, t = torch.randn(256, 2), ring(256), torch.rand(256)
    s = torch.where(torch.arange(256) < 128, t, t + (1 - t) * torch.rand(256))
    x = noise + t[:, None] * (data - noise)
    return map_losses.mean_flow(net, x, t, s, first(x, t), "finite")


jumper = train(Net(), mean_flow, steps=2000)

# %% [markdown]
# The table has the energy distance between generated points and data, for each number of
# evaluations. The bend is 0 for straight paths. The last row is the distance of other samples of
# the data.


# %%
def energy(x, y):
    """2 E|x - y| - E|x - x'| - E|y - y'|, times 100."""
    own = torch.cdist(x, x).mean() + torch.cdist(y, y).mean()
    return float(100 * (2 * torch.cdist(x, y).mean() - own))


noise, truth = torch.randn(2000, 2), ring(2000)
even = samplers.grids.uniform
nets = {"flow matching": first, "reflow, once": second, "reflow, twice": third}
table = {}
for name, net in nets.items():
    v = samplers.batched(net)
    drawn = [samplers.sample(v, noise, even(n), "euler") for n in (1, 2, 4, 32)]
    table[name] = [energy(x, truth) for x in drawn] + [rectify.straightness(v, noise)]
u = samplers.flow_map(samplers.batched(jumper))
drawn = [samplers.sample(u, noise, even(n), "jump") for n in (1, 2, 4, 32)]
table["flow map"] = [energy(x, truth) for x in drawn]
lines = [f"{'evaluations':16}" + "".join(f"{n:>8}" for n in (1, 2, 4, 32)) + "    bend"]
lines += [f"{name:16}" + "".join(f"{x:8.2f}" for x in row) for name, row in table.items()]
print("\n".join([*lines, f"{'fresh data':16}{energy(ring(2000), truth):8.2f}"]))

# %%
fig, axes = plt.subplots(1, 4, figsize=(13, 3.3), layout="constrained", sharex=True, sharey=True)
for ax, (name, net) in zip(axes, nets.items(), strict=False):
    path = [x for _, x in samplers.trajectory(samplers.batched(net), noise[:60], 32, "rk4")]
    for i in range(60):
        ax.plot(*torch.stack([x[i] for x in path]).T, lw=0.6, color="0.6")
    ax.plot(*path[-1].T, ".", ms=4)
    ax.set_title(f"{name}: 60 paths")
axes[3].plot(*samplers.sample(u, noise[:600], even(1), "jump").T, ".", ms=3)
axes[3].set_title("flow map: 600 ends of one jump")
for ax in axes:
    ax.set(aspect="equal", xlabel="first coordinate", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
axes[0].set_ylabel("second coordinate")
plt.show()

# %% [markdown]
# ## The packaged flow map
#
# `janusflow/scenes-few` was distilled from `janusflow/scenes`. Each column has the same noise. The
# times are of one thread, with one image at a time.

# %%
PROMPTS = ["a red circle", "a blue star above a green ring", "three hearts", "an orange cross"]
teacher, student = (JanusFlowPipeline.from_pretrained(name) for name in (model, few))
rows, seconds = {}, {}


def paint(pipe, **how):
    seeds = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
    start = time.perf_counter()
    out = [pipe(p, generator=g, **how).images[0] for p, g in zip(PROMPTS, seeds, strict=True)]
    return out, (time.perf_counter() - start) / len(PROMPTS)


for pipe in (teacher, student):
    pipe.set_progress_bar_config(disable=True)
    pipe("a star", num_inference_steps=4)
for name, pipe, how in (
    ("1 evaluation", student, {"num_inference_steps": 1}),
    ("2 evaluations", student, {"num_inference_steps": 2}),
    ("4 evaluations", student, {"num_inference_steps": 4}),
    ("teacher, exact", teacher, {"quality": "exact"}),
):
    rows[name], seconds[name] = paint(pipe, **how)
captions = [f"{name}: {prompt}" for name in rows for prompt in PROMPTS]
display(plots.images([image for row in rows.values() for image in row], captions, len(PROMPTS)))
print("\n".join(f"{name:16}{1000 * spent:7.0f} ms an image" for name, spent in seconds.items()))

# %% [markdown]
# The flow map works with any grid of `samplers`. Here we compare one jump with four jumps of
# unequal length from the same noise.

# %%
u = student.flow_map("a blue star above a green ring")
x = student.prepare_latents(1, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    far = samplers.sample(u, x, [0.0, 1.0], "jump")
    near = samplers.sample(u, x, [0.0, 0.17, 0.3, 0.67, 1.0], "jump")
apart = float((far - near).square().mean().sqrt() / near.std())
print(f"one jump ends {apart:.2f} of the latents' deviation away from four")

# %% [markdown]
# The strict score of the test prompts with 95 % intervals, from
# `docs/results/few-evaluations.json`:

# %%
told = json.loads((DOCS / "results" / "few-evaluations.json").read_text())["rows"]
lines = {}
for name in dict.fromkeys(row["model"] for row in told):
    own = sorted((r for r in told if r["model"] == name), key=lambda r: r["evaluations"])
    lines[name] = tuple([r[k] for r in own] for k in ("evaluations", "strict", "low", "high"))
fig = plots.curves(lines, "network evaluations an image", "strict score (n = 600)")
fig.axes[0].set(xscale="log", ylim=(0, 1))
spent = sorted({row["evaluations"] for row in told})
fig.axes[0].set_xticks(spent, spent)
fig.axes[0].minorticks_off()
display(fig)

# %% [markdown]
# ## The answer
#
# In the plane one round of reflow makes the paths straight: one Euler step of the second network
# is as accurate as many steps of the first. The flow map reaches the same accuracy without pairs.
# Images of coloured shapes are harder; the scores below show what fewer evaluations cost.

# %%
text = [f"plane, one evaluation: {name} {row[0]:.2f}" for name, row in table.items()]
for row in told:
    score = f"{row['strict']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    text.append(f"{row['model']:22} {row['evaluations']:3} evaluations: {score}")
print("\n".join(text))
