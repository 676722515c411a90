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
# # Guidance
#
# **Question.** How much guidance, when, and by which rule?
#
# **Answer.** Plain guidance with a weight near 3. On this model no other rule scores higher, but
# guiding only the first half of the time costs a quarter less. The numbers are at the end.
#
# A rule combines a prediction with the prompt and one without it to one velocity. Plain guidance
# multiplies their difference by a weight w. An interval guides only during part of the time.
# CFG-Zero\* rescales the second prediction and begins with a velocity of zero. Projected guidance
# (APG) drops the part of the difference that is parallel to the first prediction. Every setting
# generates the same prompts from the same noises, and an exact scorer reads the images. Another
# model is one line, `model`. The scorer knows only coloured shapes, so score other images
# yourself.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers.utils import logging

import samplers
from janusflow import JanusFlowPipeline
from janusflow.evaluation import intervals, plots
from janusflow.scenes import scorer, world
from janusflow.utils.devices import pick_device

model, vae = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

logging.disable_progress_bar()
plt.style.use("samplers.benchmark.paper")
CATEGORIES = world.categories_of("test")
PROMPTS = [world.prompt("test", name, i) for i in range(6) for name in CATEGORIES]
pipe = JanusFlowPipeline.from_pretrained(model, vae=vae).to(pick_device())
pipe.set_progress_bar_config(disable=True)


def draw(rule):
    """Images of all prompts by 16 Euler steps, the noise of a prompt always the same."""
    seeds = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
    texts = [prompt.text for prompt in PROMPTS]
    return pipe(texts, num_inference_steps=16, guidance_scale=rule, generator=seeds)


def scores(images):
    """Whether each image shows exactly what was asked for."""
    pairs = zip(images, PROMPTS, strict=True)
    return np.array([scorer.score(np.asarray(image), prompt).strict for image, prompt in pairs])


def saturation(images):
    """Largest minus smallest channel, mean over pixels, in grey levels of 255."""
    return float(
        np.mean([np.ptp(np.asarray(image).astype(float), axis=-1).mean() for image in images])
    )


# %% [markdown]
# ## Every rule at every weight

# %%
WEIGHTS = (1.5, 3.0, 5.0, 8.0)
RULES = {
    "plain": samplers.cfg,
    "only t <= 0.5": lambda w: samplers.guidance_interval(w, 0.0, 0.5),
    "CFG-Zero*": samplers.cfg_zero_star,
    "APG": samplers.apg,
}
made = {("none", 1.0): draw(1.0)}
for name, rule in RULES.items():
    for w in WEIGHTS:
        made[name, w] = draw(rule(w))
right = {key: scores(out.images) for key, out in made.items()}
colour = {key: saturation(out.images) for key, out in made.items()}
band = {
    key: (hits.mean(), *intervals.wilson(int(hits.sum()), len(hits))) for key, hits in right.items()
}

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for shift, name in enumerate(RULES):
    values = np.array([band["none", 1.0]] + [band[name, w] for w in WEIGHTS])
    x = np.array((1.0, *WEIGHTS)) * 1.02 ** (shift - 1.5)
    reach = np.abs(values[:, 1:] - values[:, :1]).T
    axes[0].errorbar(x, values[:, 0], reach, fmt="o-", ms=4, lw=1.2, capsize=2, label=name)
    axes[1].plot(
        x, [colour["none", 1.0]] + [colour[name, w] for w in WEIGHTS], "o-", ms=4, label=name
    )
for ax, title in zip(axes, ("strict score, 95 % intervals", "saturation, of 255"), strict=True):
    ax.set_xscale("log")
    ax.set_xticks((1.0, *WEIGHTS), ("1", *(f"{w:g}" for w in WEIGHTS)))
    ax.minorticks_off()
    ax.set(xlabel="guidance scale", title=title)
    ax.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Side by side
#
# Two prompts, the same noise in every image of a row.

# %%
ROWS = (3, 4)
settings = [("none", 1.0), ("plain", 3.0), *((name, 8.0) for name in RULES)]
sheet = [made[key].images[row] for row in ROWS for key in settings]
heads = ["no guidance", "plain, 3", *(f"{name}, 8" for name in RULES)]
fig, ax = plt.subplots(figsize=(10, 4), layout="constrained")
plots.images(sheet, heads + [""] * len(heads), len(heads), ax)
plt.show()
print("\n".join(PROMPTS[row].text for row in ROWS))

# %% [markdown]
# ## The answer
#
# Images of two settings come from the same noise, so they are compared in pairs: the number of
# prompts that only one of the two got right, and McNemar's exact p for it. The best of seventeen
# settings was chosen on these prompts, so its p is too small.

# %%
best = max(right, key=lambda key: right[key].mean())


def told(key):
    score, low, high = band[key]
    return f"{key[0]} {key[1]:g}: {score:.2f} [{low:.2f}, {high:.2f}]"


def against(a, b):
    only_a, only_b = int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())
    p = intervals.mcnemar(only_a, only_b)
    return f"{told(a)} against {told(b)}: {only_a} to {only_b}, p = {p:.2g}"


print(f"{len(PROMPTS)} prompts, one image each. How much:")
print(against(best, ("none", 1.0)))
print(against(best, ("plain", 8.0)))
print("\nWhich rule, at weight 5:")
for name in list(RULES)[1:]:
    print(against((name, 5.0), ("plain", 5.0)))
print("\nWhat it costs, network evaluations for an image:")
print(", ".join(f"{name} {made[name, 5.0].calls}" for name in RULES))
print("\nSaturation at weight 8, without guidance it is", f"{colour['none', 1.0]:.0f}:")
print(", ".join(f"{name} {colour[name, 8.0]:.0f}" for name in RULES))
