"""What a visitor asks in vain is answered by what is wrong with it."""

import pytest
from PIL import Image

from janusflow.demo import actions, requests


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), True, "2", None])
def test_what_is_no_number_within_the_limits_is_refused_by_name(value):
    with pytest.raises(requests.InvalidRequest, match="The guidance must be from 0 to 15"):
        requests.GenerationRequest(prompt="a", guidance=value)


def test_a_prompt_that_the_model_does_not_read_is_refused_with_the_reason(tiny_pipe):
    asked = requests.GenerationRequest(prompt="a <image_placeholder>", nfe=1, sampler="euler")
    image = Image.new("RGB", (96, 96))
    for work in (
        lambda: next(actions.generate(tiny_pipe, asked)),
        lambda: next(actions.trajectory(tiny_pipe, asked, 2)),
        lambda: actions.edit(tiny_pipe, image, asked, 0.5),
    ):
        with pytest.raises(requests.InvalidRequest, match=r"prompt is not accepted: .*image_place"):
            work()


def test_a_conversation_too_long_for_the_model_says_so(tiny_pipe):
    said = [{"role": "user", "content": "a " * 190}, {"role": "assistant", "content": "b " * 190}]
    with pytest.raises(requests.InvalidRequest, match=r"conversation is not accepted: .* tokens"):
        next(actions.answer(tiny_pipe, Image.new("RGB", (96, 96)), "what?", 6 * said))
