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
# # Understanding
#
# **Question.** What does the model see in an image, where does it fail, and can it judge its own
# images?
#
# **Answer.** It answers nearly every question about its world correctly; captions fail most often.
# It attends most to the object that a question names. Its judgement of its own images nearly
# always agrees with that of the exact scorer. The numbers are at the end.
#
# Questions about scenes have exact answers, so right and wrong can be counted. We ask, look at the
# attention behind an answer, collect failures, and compare the model's judgement of its own images
# with the exact scorer's. Another model is one line, `model`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from janusflow import JanusFlowPipeline
from janusflow.evaluation import intervals, plots
from janusflow.evaluation.tasks.vqa import answer
from janusflow.scenes import questions, scorer
from janusflow.scenes import world as scenes
from janusflow.scenes.shapes import render
from janusflow.utils.devices import pick_device

model, vae = "janusflow/scenes", None  # or "deepseek-ai/JanusFlow-1.3B", "stabilityai/sdxl-vae"

torch.set_grad_enabled(False)
logging.disable_progress_bar()
plt.style.use("samplers.benchmark.paper")
pipe = JanusFlowPipeline.from_pretrained(model, vae=vae).to(pick_device())
pipe.set_progress_bar_config(disable=True)


def rendered(scene):
    return Image.fromarray(render(scene.objects))


# %% [markdown]
# ## Questions of every kind
#
# Thirty questions of each template about held-out scenes. Answers are greedy, and right if they
# are equal word for word.

# %%
EACH = 30
asked = {
    name: [questions.question("test", i, name) for i in range(EACH)] for name in questions.TEMPLATES
}
said = {
    name: answer(pipe, [rendered(q.scene) for q in batch], [q.text for q in batch])
    for name, batch in asked.items()
}
right = {
    name: [q.answer == text for q, text in zip(asked[name], said[name], strict=True)]
    for name in asked
}
score = {
    name: (sum(hits) / EACH, *intervals.wilson(sum(hits), EACH)) for name, hits in right.items()
}
fig, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
plots.bars({"exact, 95 % intervals": score}, ax)
plt.show()

# %% [markdown]
# ## Attention behind an answer
#
# The attention of the position that produces the first word of the answer to the image's tokens,
# as a mean over heads and the last three blocks. Yellow is most.

# %%
pipe.model.language_model.set_attn_implementation("eager")  # the one that keeps its weights


def attention(image, text):
    """(side, side): the weight of each of the image's tokens, and their share of all weight."""
    inputs = pipe.processor(text, images=[image]).to(pipe.device)
    weights = pipe.model(**inputs, output_attentions=True).attentions[-3:]
    row = torch.stack([w[0, :, -1].float().mean(0) for w in weights]).mean(0)
    tokens = row[inputs["image_token_mask"][0]][1:]  # the first is the start tag
    side = round(len(tokens) ** 0.5)
    return tokens.reshape(side, side).cpu().numpy(), float(tokens.sum())


scene = scenes.scene("test", 4, "two_object")
a, b = scene.objects[:2]
image = rendered(scene)
texts = [
    f"what color is the {a.shape}?",
    f"what color is the {b.shape}?",
    "how many shapes are there?",
    "describe the picture.",
]
fig, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained")
axes[0].imshow(image)
axes[0].set_title("the image", fontsize=8)
shares = {}
for ax, text in zip(axes[1:], texts, strict=True):
    weights, shares[text] = attention(image, text)
    ax.imshow(image)
    w, h = image.size
    ax.imshow(weights, alpha=0.65, extent=(0, w, h, 0), interpolation="bilinear")
    ax.set_title(f"{text}\n{pipe.chat(text, [image])}", fontsize=8)
for ax in axes:
    ax.set_axis_off()
plt.show()
print("share of the attention that goes to the image:")
print("\n".join(f"{share:.2f}  {text}" for text, share in shares.items()))

# %% [markdown]
# Does the model attend to the object that it is asked about? Over many scenes with two objects:
# attention per token on the object that the question names, relative to the other one.


# %%
def under(obj, side, width):
    """Tokens (side, side) whose middle is in the object's box."""
    middle = (np.arange(side) + 0.5) * width / side
    x, y = abs(middle - obj.x) <= obj.size / 2, abs(middle - obj.y) <= obj.size / 2
    return y[:, None] & x[None, :]


named = []
for i in range(30):
    scene = scenes.scene("test", i, "two_object")
    a, b = scene.objects[:2]
    weights, _ = attention(rendered(scene), f"what color is the {a.shape}?")
    on = [under(obj, len(weights), 96) for obj in (a, b)]
    if on[0].any() and on[1].any():
        named.append(float(np.log(weights[on[0]].mean() / weights[on[1]].mean())))
low, high = intervals.bootstrap([(named, range(len(named)))])
ratio, ratio_low, ratio_high = np.exp([np.mean(named), low, high])
print(f"{ratio:.2f} times [{ratio_low:.2f}, {ratio_high:.2f}] as much, {len(named)} scenes")
pipe.model.language_model.set_attn_implementation("sdpa")

# %% [markdown]
# ## Failures
#
# The first wrong answers of each template that has any.

# %%
wrong = [
    (q, text)
    for name, batch in asked.items()
    for q, text in [
        pair
        for pair, hit in zip(zip(batch, said[name], strict=True), right[name], strict=True)
        if not hit
    ][:2]
][:10]
captions = [f"{q.text} {text} (not {q.answer})" for q, text in wrong]
columns = min(len(wrong), 5)
fig, ax = plt.subplots(figsize=(2.2 * columns, 3.2 * -(-len(wrong) // 5)), layout="constrained")
plots.images([rendered(q.scene) for q, _ in wrong], captions, columns, ax)
plt.show()

# %% [markdown]
# ## The model judges its own images
#
# It generates images of one and two objects and is asked about every object: "is there a red
# circle?". It accepts an image if it says yes to all. The scorer reads the same images without any
# network.

# %%
PROMPTS = [
    scenes.prompt("test", name, i) for i in range(20) for name in ("single_object", "color_attr")
]
seeds = [torch.Generator().manual_seed(i) for i in range(len(PROMPTS))]
drawn = pipe([p.text for p in PROMPTS], num_inference_steps=20, generator=seeds).images
truth = np.array(
    [scorer.score(np.asarray(x), p).lenient for x, p in zip(drawn, PROMPTS, strict=True)]
)


def yes(image, need):
    return pipe.chat(f"is there {need.phrase}?", [image], max_new_tokens=4) == "yes"


own = np.array([all(yes(x, need) for need in p.needs) for x, p in zip(drawn, PROMPTS, strict=True)])
table = np.array(
    [[(own & truth).sum(), (own & ~truth).sum()], [(~own & truth).sum(), (~own & ~truth).sum()]]
)
fig, ax = plt.subplots(figsize=(3.4, 2.8), layout="constrained")
ax.imshow(table, cmap="Blues", vmin=0, vmax=1.5 * table.max())
for (i, j), n in np.ndenumerate(table):
    ax.text(j, i, str(n), ha="center", va="center", fontsize=14)
ax.set_xticks((0, 1), ("right", "wrong"))
ax.set_yticks((0, 1), ("yes", "no"))
ax.set(xlabel="the scorer", ylabel="the model")
plt.show()

# %% [markdown]
# ## The answer


# %%
def interval(hits):
    low, high = intervals.wilson(int(hits.sum()), len(hits))
    return f"{hits.mean():.2f} [{low:.2f}, {high:.2f}]"


ranked = sorted(score, key=lambda name: -score[name][0])
everything = np.concatenate([right[name] for name in right])
print(f"""What it sees: {interval(everything)} of {len(everything)} questions right; best at
{", ".join(f"{name} {score[name][0]:.2f}" for name in ranked[:3])}, worst at
{", ".join(f"{name} {score[name][0]:.2f}" for name in ranked[-3:])}.

Where it looks: an object that the question names gets {ratio:.2f} times [{ratio_low:.2f},
{ratio_high:.2f}] the attention of the other one, per token.

Its own images: the scorer finds {interval(truth)} of {len(truth)} right, the model
{interval(own)}. They agree on {interval(own == truth)}. Of the {own.sum()} images that the model
approves of {interval(truth[own])} are right, of all {truth.mean():.2f}.""")
