"""Twenty images and the packaged model: the example does what its page says, in a short run."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow.scenes.scorer import read
from janusflow.training import job, loop

pytest.importorskip("peft")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def mint():
    spec = importlib.util.spec_from_file_location("mint", ROOT / "studies" / "mint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(mint, tmp_path_factory):
    found = tmp_path_factory.mktemp("mint")
    mint.make(found, own=2)
    return found


def test_the_folder_holds_twenty_pictures_of_the_concept_and_some_of_the_models(mint, folder):
    drawn, own = sorted(folder.glob("mint-*.png")), sorted(folder.glob("own-*.png"))
    assert len(drawn) == 20 and len(own) == 2
    for path in drawn:
        shape = path.with_suffix(".txt").read_text().removeprefix("a mint ")
        assert mint.is_mint(Image.open(path), shape)
    assert not any(mint.is_mint(Image.open(path), "circle") for path in own)
    found = read(np.asarray(Image.open(drawn[0])))
    assert found[0].color is None  # none of the ten


def test_the_figure_names_the_groups_of_its_columns(mint):
    shapes = (*mint.SHOWN, *mint.UNSEEN)
    shown = {text: Image.new("RGB", (9, 9)) for text in (*shapes, "a green circle")}
    drawn = mint.figure({"before": ({}, shown), "after": ({}, shown)})
    columns = [len(part.axes) // 2 for part in drawn.subfigs]
    assert columns == [len(mint.SHOWN), len(mint.UNSEEN), 1]
    assert all(part.get_suptitle() for part in drawn.subfigs)


@pytest.mark.slow
def test_a_short_run_on_the_folder_turns_the_colour_and_the_base_stays(mint, folder, tmp_path):
    changes = {"adapter.rank": 8, "training.lr": 3e-3, "training.steps": 60, "training.warmup": 5}
    plan = job.of_stage("tune", "janusflow/scenes", folder, tmp_path / "run", changes)
    assert plan.settings.training.mixture.keys() == {"generation"}
    plan.run()
    loop.export(tmp_path / "run", tmp_path / "adapter")
    pipe = mint.quiet("janusflow/scenes")
    texts = ["a mint circle", "a mint square", "a mint heart"]
    before, distances = pipe.model.state_dict(), []
    for lora in (None, tmp_path / "adapter"):
        if lora:
            pipe.load_lora_weights(lora)
        pictures = [np.asarray(x, float) for x in mint._generate(pipe, texts, 0)]
        distances.append(np.median([apart(x, mint.MINT) for x in pictures]))
    assert distances[1] < 0.5 * distances[0]
    pipe.unload_lora_weights()
    after = pipe.model.state_dict()
    assert all((before[name] == after[name]).all() for name in before)


def apart(picture: np.ndarray, color) -> float:
    """RGB distance of the object's median colour."""
    own = np.linalg.norm(picture - picture[:2].mean((0, 1)), axis=-1) > 60
    return float(np.linalg.norm(np.median(picture[own], axis=0) - color)) if own.any() else 442.0
