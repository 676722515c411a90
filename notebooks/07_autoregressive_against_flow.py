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
# # Autoregressive against flow
#
# **Question.** What does an image cost when it is generated token by token, what by a flow, and
# which model is right more often in the same time?
#
# **Answer.** Here an image takes similar time both ways. In the same time the flow is right more
# often, but its model was trained for much longer, so the scores do not rank the two methods. The
# numbers are at the end.
#
# Janus-Pro generates one token after another. JanusFlow changes all latent tokens at once, many
# times. The two packaged models have language models of the same size but different trainings:
# the autoregressive one was trained for eighty minutes. Other models are one line, `MODELS`. The
# scorer knows only coloured shapes.

# %%
import sys
import time

import matplotlib.pyplot as plt
import torch
from transformers.utils import logging

import janusflow

sys.path.insert(0, "..")  # studies are not installed
from studies.janus_pro_scenes import versus

MODELS = ["janusflow/scenes", "janusflow/scenes-pro"]
PROMPTS = ["a red circle", "a blue square", "a green star", "a yellow ring"]

logging.disable_progress_bar()
logging.set_verbosity_error()
torch.set_grad_enabled(False)
pipes = [janusflow.load(name) for name in MODELS]
for pipe in pipes:
    pipe.set_progress_bar_config(disable=True)

# %% [markdown]
# ## The same prompts with both models


# %%
def draw(pipe, prompts):
    start = time.perf_counter()
    seeds = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    out = pipe(prompts, generator=seeds)
    return out, time.perf_counter() - start


for pipe in pipes:
    draw(pipe, PROMPTS[:1])
made = [draw(pipe, PROMPTS) for pipe in pipes]
figure, axes = plt.subplots(2, len(PROMPTS), figsize=(8, 4.4))
for row, name, (out, _) in zip(axes, MODELS, made, strict=True):
    for place, prompt, image in zip(row, PROMPTS, out.images, strict=True):
        place.imshow(image)
        place.set_title(prompt, fontsize=9)
        place.set_xticks([]), place.set_yticks([])
    row[0].set_ylabel(name.split("/")[1])
plt.show()

# %% [markdown]
# ## The same time
#
# Ten prompts of every category, in batches of twelve, read by the exact scorer. The rows are the
# autoregressive model, the flow with its usual steps, and the flow with as many steps as fit into
# the time of the autoregressive model.

# %%
flow, tokens = pipes
rows = versus.compare(flow, tokens, 10, 12)
print(versus.table(rows))

# %% [markdown]
# ## The answer

# %%
for name, (out, seconds) in zip(MODELS, made, strict=True):
    each = seconds / len(PROMPTS)
    print(f"{name}: {out.calls} network evaluations and {each:.2f} s an image, four at once")


def told(row):
    return f"{row.score:.2f} [{row.interval.low:.2f}, {row.interval.high:.2f}]"


slow, full, equal = rows
print(f"""
In the time of the tokens, {slow.seconds:.3f} s an image, the flow has {equal.calls} evaluations and
{told(equal)} of its images are right; with its usual {full.calls}, {full.seconds:.3f} s an image,
{told(full)} are; of the images by tokens {told(slow)}, after far less training.""")
