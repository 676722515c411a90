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
# # Representation alignment
#
# **Question.** Does a flow model learn faster when its hidden tokens are aligned with the features
# of a vision encoder, and what changes inside?
#
# **Answer.** Slightly faster: every teacher lowers the held-out loss. A vision encoder with random
# weights also lowers it, so not all of this comes from what a teacher knows. Inside, the first
# block becomes more similar to the vision encoder. The numbers are at the end.
#
# JanusFlow takes the image tokens after a quarter of its blocks. A small projector maps them, and
# the training raises their cosine similarity to the features of the *clean* image in the model's
# own vision encoder. This encoder is called the teacher.
#
# The notebook has three parts:
#
# - the curves of a finished study with five teachers and one model without a teacher
#   (`docs/alignment.md` has its protocol),
# - three very small models, trained here,
# - the packaged model, block by block. Another model is one line: `MODEL`.

# %%
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from PIL import Image
from transformers.utils import logging

sys.path.insert(0, "..")  # studies are not installed
from janusflow import JanusFlowPipeline
from janusflow.evaluation.plots import by_depth
from janusflow.scenes import shapes, world
from janusflow.training import losses
from janusflow.training.alignment.similarity import by_block
from janusflow.utils.devices import pick_device
from studies.alignment import findings, run
from studies.alignment.models import Study, prepare, pretrained

MODEL, VAE = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

logging.disable_progress_bar()
torch.set_num_threads(1)
plt.switch_backend("module://matplotlib_inline.backend_inline")  # before the first display
plt.style.use("samplers.benchmark.paper")
plt.rcParams["figure.dpi"] = 75
DOCS = next(p for p in (Path("docs"), Path("../docs")) if (p / "alignment.json").exists())

# %% [markdown]
# ## The study
#
# The model has two million parameters. There are twelve prompts, such as "a red circle": three
# shapes in four colours, one large object near the middle. All models of a seed start from the
# same weights and are trained on the same images, noises and times. Panel (a) has 95 % intervals
# over prompts; panels (b) and (c) have one point for each seed.
#
# - `none`: no teacher, the flow loss alone.
# - `janusflow`: the trained vision encoder, with an MLP as projector.
# - `irepa`: the same encoder with z-scored features, and a convolution as projector.
# - `sra`: the moving average of the model itself, at a later block and a cleaner time.
# - `oracle`: shape and colour under each token, as one-hot vectors.
# - `random`: a vision encoder with random weights.

# %%
study = json.loads((DOCS / "alignment.json").read_text(encoding="utf-8"))
display(findings.figure(study))
print(findings.table(study))

# %% [markdown]
# ## Three small models, from scratch
#
# A smaller network, 80 steps, one seed: without a teacher, with the vision encoder and with the
# oracle. These steps are too few to learn shapes, but they show what the teachers do.

# %%
TINY = replace(
    Study(), steps=80, every=16, pool=512, held_out=120, images=1, calls=3, hidden=64, channels=32
)
lab = prepare(TINY, Path(tempfile.mkdtemp()), pretrained(None, TINY.recipe))
runs = {arm: run.run(lab, arm, 0, bar=lambda _: None) for arm in ("none", "janusflow", "oracle")}

fig, axes = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
titles = {
    "alignment": "alignment loss",
    "held_out": "held-out flow loss",
    "gap": "gap of a wrong prompt",
    "gradient_cosine": "cosine of the gradients",
}
colors = {arm: f"C{i}" for i, arm in enumerate(study["arms"])}
for arm, made in runs.items():
    for ax, measure in zip(axes, titles, strict=True):
        points = [(p["step"], np.mean(p[measure])) for p in made["points"] if p.get(measure)]
        if points:
            ax.plot(*zip(*points, strict=True), "o-", ms=3, color=colors[arm], label=arm)
for ax, title in zip(axes, titles.values(), strict=True):
    ax.set(xlabel="step", title=title)
    ax.legend(fontsize=8)
axes[-1].axhline(0, color="0.6", lw=0.8)
plt.show()

# %% [markdown]
# The gap is the loss with a wrong prompt minus the loss with the right one.
#
# The last panel compares the gradients of the flow loss and of the alignment loss at the aligned
# block. A positive cosine means that both change this block in a similar direction. HASTE (Wang
# et al. 2025) stops the alignment when the two conflict, that is below zero.

# %% [markdown]
# ## Inside
#
# CKNNA (Huh et al. 2024) compares two sets of features by their nearest neighbours: 1 means the
# same neighbours, 0 no neighbour in common. Here it compares the tokens of each block at
# $t = 0.5$ with the vision encoder's features of the clean image, for the models above and for
# those of the study.

# %%
inside = {f"{arm}, 80 steps": made["cknna"] for arm, made in runs.items()}
large = {arm: entry["cknna"] for arm, entry in study["arms"].items()}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", sharey=True)
for ax, lines, title in zip(axes, (inside, large), ("above", "in the study"), strict=True):
    for name, values in lines.items():
        color = colors[name.split(",")[0]]
        ax.plot(range(1, len(values) + 1), values, "o-", ms=4, color=color, label=name)
    ax.set(xlabel="block", title=f"CKNNA with the vision encoder, {title}")
    ax.set_xticks(range(1, len(values) + 1))
    ax.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 0.86))
plt.show()

# %% [markdown]
# ## Inside the packaged model
#
# `MODEL` was trained to the end. We noise 60 captioned images to three times and compare each
# block with the model's own vision encoder.

# %%
pipe = JanusFlowPipeline.from_pretrained(MODEL, vae=VAE).to(pick_device())
SCENES, TIMES = [world.scene("test", i) for i in range(60)], (0.1, 0.5, 0.9)
side = pipe.default_size
drawn = [Image.fromarray(shapes.render(s.objects)).resize((side, side)) for s in SCENES]
with torch.no_grad():
    model = pipe.model.eval()
    prompt, _ = pipe.encode_prompts([s.caption for s in SCENES])
    pixels = pipe.processor.image_processor(drawn).to(model.device, model.dtype)
    clean = model.vision_und_enc_model(pixels)
    data = pipe.encode(drawn)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0)).to(data.device)
    ready = {}
    for t in TIMES:
        at = torch.full((len(data),), t, device=data.device)
        ready[t] = by_block(model, losses.interpolate(noise, data, at), at, prompt, clean)
fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
by_depth({f"t = {t}": row for t, row in ready.items()}, axes=ax)
plt.show()

# %% [markdown]
# ## The answer

# %%
arms = study["arms"]
seen = study["study"]["steps"] * study["study"]["batch"]


def last(arm, measure):
    return arms[arm]["curves"][measure]["mean"][-1]


def against(measure):
    return {
        arm: "/".join(f"{d:+.3f}" for d in entry["against_none"][measure])
        for arm, entry in arms.items()
        if arm != "none"
    }


def steady(measure, sign):
    """The arms whose difference from none has this sign with every seed."""
    found = [
        arm
        for arm, entry in arms.items()
        if arm != "none" and all(sign * d > 0 for d in entry["against_none"][measure])
    ]
    return ", ".join(found) or "none of them"


gains = {arm: 1 - last(arm, "held_out") / last("none", "held_out") for arm in arms if arm != "none"}
ranked = sorted(gains, key=gains.get, reverse=True)
tap = large["janusflow"][0] / large["none"][0]
print(f"""Faster? After {seen:,} images the held-out loss is lower than without a teacher by
{", ".join(f"{gains[arm]:.1%} ({arm})" for arm in ranked)}.
Lower with both seeds: {steady("held_out", -1)}.
Higher score with both seeds: {steady("strict", 1)}.
The random encoder, which knows nothing, gains {gains["random"]:.1%}.

Inside: block 1 is aligned. With janusflow's teacher its CKNNA with the vision encoder is
{tap:.1f} times that without a teacher. In {MODEL} it is highest for block
{int(np.argmax(ready[0.5])) + 1} of {len(ready[0.5])}, at t = 0.5.
""")
print(f"after {seen:,} images, two seeds:")
print("  strict score:", ", ".join(f"{arm} {last(arm, 'strict'):.2f}" for arm in arms))
print("  held-out loss:", ", ".join(f"{arm} {last(arm, 'held_out'):.4f}" for arm in arms))
for measure in ("strict", "held_out", "gap"):
    each = ", ".join(f"{arm} {text}" for arm, text in against(measure).items())
    print(f"  {measure} minus none's, second half of training, by seed: {each}")
for arm in ("janusflow", "oracle"):
    cosines = [p["gradient_cosine"] for p in runs[arm]["points"]]
    print(f"  gradient cosine of {arm}, 80 steps: {min(cosines):+.2f} to {max(cosines):+.2f}")
for t, row in ready.items():
    best = int(np.argmax(row))
    print(
        f"{MODEL} at t = {t}: CKNNA {row[0]:.2f} after block 1, at most {row[best]:.2f} (block "
        f"{best + 1} of {len(row)}), {row[-1]:.2f} after the last"
    )
