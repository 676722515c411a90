"""Tokens against a flow, in one table."""

import pytest

import janusflow
from studies.janus_pro_scenes.versus import compare, parameters, table


@pytest.fixture(scope="module")
def pair():
    pipes = [janusflow.load(name) for name in ("janusflow/scenes", "janusflow/scenes-pro")]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    return pipes


def test_codecs_and_vision_encoders_are_not_counted(pair):
    flow, tokens = pair
    inside = tokens.model.model
    apart = (inside.vqmodel, inside.vision_model, inside.aligner)
    left = sum(p.numel() for part in apart for p in part.parameters())
    assert parameters(tokens) == sum(p.numel() for p in tokens.model.parameters()) - left
    apart = (flow.model.vision_und_enc_model, flow.model.vision_und_enc_aligner)
    left = sum(p.numel() for part in apart for p in part.parameters())
    assert parameters(flow) == sum(p.numel() for p in flow.model.parameters()) - left


@pytest.mark.slow
def test_rows_say_calls_scores_and_an_equal_time(pair):
    rows = compare(*pair, 1, 6)
    tokens, usual, equal = rows
    assert tokens.calls == 2 * 144 and usual.calls == 2 * 30
    assert equal.calls >= 2 and equal.name.endswith(f"{equal.calls // 2} steps")
    assert all(row.interval.low <= row.score <= row.interval.high for row in rows)
    assert len(table(rows).splitlines()) == 4 and max(map(len, table(rows).splitlines())) <= 80
