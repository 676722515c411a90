"""What fuzzing found, kept."""

import pytest
import torch

import samplers
from janusflow.models.janusflow.configuration import JanusFlowConfig


@pytest.mark.parametrize("text", ["cfg_rescale:4E42", "cfg:-1e39", "cfg++:1,1e30", "cfg++:1,1e9"])
def test_guidance_beyond_what_a_number_holds_is_refused(text):
    with pytest.raises(ValueError, match="guidance"):
        samplers.guidance.parse(text)


def test_a_long_guidance_is_not_repeated_in_full():
    with pytest.raises(ValueError) as caught:
        samplers.guidance.parse("guidance_interval:40" + "\0" * 5000)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("ts", [[0, 1e308], [0, float("inf")], [0, 1e-300, 1], [0, 5e-324]])
@pytest.mark.parametrize("name", ["rf_solver", "auto", "abm", "dpmpp_3m", "deis"])
def test_times_that_no_weight_resolves_are_refused(name, ts):
    with pytest.raises(ValueError, match="grid"):
        samplers.sample(lambda x, _: x, torch.ones(1, 2), ts, name)


@pytest.mark.parametrize("ts", [[0.3, 0.7, 1.5], [0.5, 1, 2], [1, 1.5, 2], [0.5, 0, -1]])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m", "deis", "unipc2", "unipc3"])
def test_a_grid_beyond_the_end_that_a_solver_predicts_is_refused(name, ts):
    with pytest.raises(ValueError, match="or pass it"):
        samplers.sample(lambda x, t: -x * t.float(), torch.ones(1, 2), ts, name)


@pytest.mark.parametrize("value", [[], {}, None, "x"])
@pytest.mark.parametrize("key", ["hidden_size", "block_out_channels"])
def test_a_list_where_a_number_belongs_is_refused(key, value, tiny_pipe):
    content = tiny_pipe.model.config.to_dict()
    content["vision_gen_enc_config"]["params"][key] = value
    with pytest.raises(ValueError, match="expected"):
        JanusFlowConfig(**content)
