"""The model's own understanding as a reward: its answers about the images that it generated."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.scenes.questions import prompt_questions
from janusflow.scenes.world import Prompt
from janusflow.training.rewards.reward import Graded, reward
from janusflow.training.rollouts import evaluating


@reward(name="own_judge", batched=True)
def own_judge(graded: Graded) -> Tensor:
    """The model's mean probability of the right answers to questions about the request.

    They ask for every required object, the number of shapes and the relation. The model may be
    wrong about its own images and then learns to generate what it is wrong about, so watch `strict`
    as well. Raises ValueError if the images come without model and processor.
    """
    if graded.model is None or graded.processor is None:
        raise ValueError("the reward own_judge needs the model and its processor; give both")
    found = [
        _answered(graded, image, request)
        for image, request in zip(graded.pixels, graded.requests, strict=True)
    ]
    return torch.tensor(found)


@torch.no_grad()
def _answered(graded: Graded, image: np.ndarray, request: Prompt) -> float:
    """Answers an image's questions in one batch; only each answer's first token counts."""
    asked, answers = zip(*prompt_questions(request), strict=True)
    shown = [Image.fromarray(image)]
    inputs = graded.processor(list(asked), images=[shown] * len(asked))
    place = next(graded.model.parameters()).device
    with evaluating(graded.model):
        logits = graded.model(**inputs.to(place)).logits[:, -1].float()
    first = [
        graded.processor.tokenizer.encode(f" {answer}", add_special_tokens=False)[0]
        for answer in answers
    ]
    shares = logits.softmax(-1)[torch.arange(len(first)), torch.tensor(first)]
    return float(shares.mean())
