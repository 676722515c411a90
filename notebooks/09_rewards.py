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
# # Learning from rewards, and how a reward is hacked
#
# **Question.** What does a flow learn from a reward for each of its samples, and what happens when
# the reward is not exactly what was meant?
#
# **Answer.** It learns exactly what is rewarded. If that is not what was meant, the reward rises
# while the samples get worse. A penalty on the distance to the base model prevents this. The
# numbers are at the end.
#
# We first train on points in the plane, which takes seconds and shows every sample. Then we look
# at images of coloured shapes, where the exact scorer measures what was meant. The algorithm is
# DiffusionNFT (Zheng et al.), which `janusflow reward` also uses.

# %%
import copy
import json
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from torch import nn
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline
from janusflow.evaluation import plots
from janusflow.scenes import world
from janusflow.training.objectives.nft import nft
from janusflow.training.rewards import Graded, find, reward
from samplers import rectify

model = "janusflow/scenes"

logging.disable_progress_bar()
torch.set_num_threads(1)
torch.manual_seed(0)
plt.style.use("samplers.benchmark.paper")
plt.rcParams["figure.dpi"] = 75
DOCS = next(p for p in (Path("docs"), Path("../docs")) if (p / "results").exists())

# %% [markdown]
# ## Points in the plane
#
# The data are eight Gaussians on a circle. What is **meant** are points of the data with a large
# x. What is **rewarded** is x alone, so a point far to the right of all data has the best reward.


# %%
class Net(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        sizes = [5, width, width, width]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, x, t):
        waves = torch.stack([t, (3.14 * t).sin(), (3.14 * t).cos()], dim=1)
        return self.layers(torch.cat([x, waves], dim=1))


ANGLES = torch.arange(8) * torch.pi / 4
CENTRES = 2 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)


def rewarded(x):
    return x[:, 0].tanh()


def meant(x):
    on_data = torch.cdist(x, CENTRES).min(dim=1).values < 0.5
    return (on_data & (x[:, 0] > 1)).float()


base = Net()
optimizer = torch.optim.Adam(base.parameters(), lr=2e-3)
for _ in range(1500):
    data = CENTRES[torch.randint(8, (256,))] + 0.15 * torch.randn(256, 2)
    optimizer.zero_grad()
    rectify.loss(base, torch.randn(256, 2), data, torch.rand(256)).mean().backward()
    optimizer.step()

# %% [markdown]
# One step of DiffusionNFT samples from the policy and scores the samples. It then moves the
# velocity towards the better samples and away from the worse ones. `kl` is the weight of the
# squared distance to the velocity of the base model.


# %%
def learn(kl, steps=300, count=256):
    net, policy = copy.deepcopy(base), copy.deepcopy(base)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4)
    history = []
    for _ in range(steps):
        with torch.no_grad():
            x = samplers.sample(samplers.batched(policy), torch.randn(count, 2), 10, "ab2")
        score = rewarded(x)
        history.append((float(score.mean()), float(meant(x).mean())))
        share = 0.5 + 0.5 * ((score - score.mean()) / score.std()).clamp(-1, 1)
        t = torch.rand(count)
        noised = torch.lerp(torch.randn(count, 2), x, t[:, None])
        with torch.no_grad():
            old, first = policy(noised, t), base(noised, t)
        v = net(noised, t)
        loss = nft(v, old, noised, t, x, share, 1.0) + kl * (v - first).square().mean(dim=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        with torch.no_grad():  # the policy follows slowly
            for ours, theirs in zip(policy.parameters(), net.parameters(), strict=True):
                ours.lerp_(theirs, 0.1)
    with torch.no_grad():
        return samplers.sample(samplers.batched(policy), torch.randn(600, 2), 10, "ab2"), history


with torch.no_grad():
    drawn = {"base": samplers.sample(samplers.batched(base), torch.randn(600, 2), 10, "ab2")}
histories = {}
for kl in (0.0, 0.1, 1.0):
    drawn[f"kl {kl:g}"], histories[f"kl {kl:g}"] = learn(kl)

fig, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained", sharex=True, sharey=True)
for ax, (name, x) in zip(axes, drawn.items(), strict=True):
    ax.plot(*CENTRES.T, "+", color="0.7", ms=12)
    ax.plot(*x.T, ".", ms=3)
    score = f"rewarded {rewarded(x).mean():.2f}, meant {meant(x).mean():.2f}"
    ax.set_title(f"{name}: {score}", fontsize=10)
    ax.set(aspect="equal", xlabel="x")
axes[0].set_ylabel("y")
plt.show()

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for name, history in histories.items():
    for ax, values in zip(axes, np.array(history).T, strict=True):
        ax.plot(values, label=name)
for ax, name in zip(axes, ("rewarded: tanh x", "meant: on the data, x > 1"), strict=True):
    ax.set(title=name, xlabel="step", ylim=(-0.1, 1.05))
axes[0].set_ylabel("mean of 256 samples")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Your own reward for images
#
# A reward is a function of an image, (H, W, 3) uint8, and its request. If you save it as
# `my_rewards.py`, this command trains on it:
# `janusflow reward janusflow/scenes -o run --plugin my_rewards --reward colourful`.


# %%
@reward
def colourful(image, _request):
    """The mean spread of the colour channels of a pixel, in [0, 1]."""
    return np.ptp(image, axis=-1).mean() / 255


pipe = JanusFlowPipeline.from_pretrained(model)
pipe.set_progress_bar_config(disable=True)
asked = [world.prompt("test", "color_attr", i) for i in range(4)]
images = pipe([p.text for p in asked], seed=[0, 1, 2, 3]).images
graded = Graded(pixels=np.stack([np.asarray(image) for image in images]), requests=asked)
names = ("strict", "lenient", "second_reader", "clean", "colourful")
values = {name: find(name)(graded).tolist() for name in names}
display(plots.images(images, [p.text for p in asked], columns=4))
lines = [f"{name:14}" + "".join(f"{x:7.2f}" for x in found) for name, found in values.items()]
print("\n".join(lines))

# %% [markdown]
# ## A reward hacked on purpose
#
# The packaged model was trained on `colourful` alone. The exact scorer, a second reader and a
# measure of clean images scored the same images but did not train the model. The curves are means
# of ten steps, from `docs/results/reward-hacking.json`.

# %%
told = json.loads((DOCS / "results" / "reward-hacking.json").read_text())["rows"]
steps = [row["step"] for row in told]
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(steps, [row["colourful"] for row in told], "o-", ms=3)
axes[0].set(title="what is rewarded", xlabel="step", ylabel="colourful")
for name in ("strict", "second_reader", "clean"):
    axes[1].plot(steps, [row[name] for row in told], "o-", ms=3, label=name)
axes[1].set(title="what is watched", xlabel="step", ylabel="mean of the images drawn", ylim=(0, 1))
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## The answer
#
# A flow learns exactly what is rewarded. Where that is not what was meant, the reward keeps rising
# while the score of what was meant falls: points leave the data, and images no longer show what
# the prompt says. Two things help:
#
# - Penalise the distance to the velocity of the base model (`objective.kl`).
# - Watch a score that nothing is trained on (`objective.watch`).

# %%
text = []
for name, history in histories.items():
    found, gold = np.mean(history[-20:], axis=0)
    text.append(f"plane, {name:7} rewarded {found:.2f}, meant {gold:.2f}")
for row in (told[0], told[-1]):
    found = f"colourful {row['colourful']:.2f}, strict {row['strict']:.2f}"
    text.append(f"images, step {row['step']}: {found}")
print("\n".join(text))
