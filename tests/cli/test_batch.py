"""Many images into a folder, presets of quality, and oneDNN's products."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from janusflow import JanusFlowPipeline
from janusflow.bench import reference_sampler
from janusflow.cli import batch
from janusflow.cli.commands import pilot_grid
from janusflow.pipelines import image_io
from janusflow.pipelines.presets import QUALITIES, read_grid, resolve
from janusflow.utils.cpu import onednn_linear

ROWS = ["a red circle", "two blue squares", "a green star"]


@pytest.fixture(scope="module")
def pipe():
    made = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    made.set_progress_bar_config(disable=True)
    return made


def fill(pipe, folder, seed=5, size=2, steps=2):
    about = {"model": "scenes", "steps": steps}
    return batch.fill(pipe, ROWS, seed, size, {"num_inference_steps": steps}, about, folder)


class Counting:
    """A pipeline that keeps the prompts it was asked for."""

    def __init__(self, pipe):
        self.pipe, self.asked = pipe, []

    def __call__(self, prompts, **settings):
        self.asked += prompts
        return self.pipe(prompts, **settings)


def test_a_folder_gets_only_the_pictures_it_lacks(pipe, tmp_path):
    paths = fill(pipe, tmp_path)
    whole = [path.read_bytes() for path in paths]
    paths[1].write_bytes(whole[1][:100])  # cut off
    again = Counting(pipe)
    assert fill(again, tmp_path) == paths and again.asked == [ROWS[1]]
    assert Image.open(paths[1]).text["prompt"] == ROWS[1]
    assert fill(Counting(pipe), tmp_path, seed=6) == paths  # another order: made anew
    assert [path.read_bytes() for path in paths] != whole


def test_processes_share_the_rows(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        made += [path.name for path in fill(pipe, tmp_path)]
    assert made == ["00000.png", "00002.png", "00001.png"]


def test_a_picture_that_cannot_be_written_is_named_and_the_rest_goes_on(
    pipe, tmp_path, monkeypatch, capsys
):
    save = image_io.save

    def full(image, note, path):
        if path.name == "00001.png":
            raise OSError("No space left on device")
        return save(image, note, path)

    monkeypatch.setattr(image_io, "save", full)
    with pytest.raises(OSError, match=r"1 of 3 images were not written, the first '00001.png'"):
        fill(pipe, tmp_path)
    assert "00001.png" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00002.png"]


@pytest.mark.parametrize("name", QUALITIES)
def test_every_quality_makes_a_picture_for_what_it_says(pipe, name, monkeypatch):
    monkeypatch.setattr(pipe, "few_step", {})  # the draft by its own weights too
    chosen = resolve(name, pipe.grids)
    out = pipe(ROWS[0], quality=name, output_type="latent")
    solver, times = chosen.path()
    said = pipe(
        ROWS[0],
        sampler=solver,
        grid=times,
        num_inference_steps=chosen.steps,
        guidance_scale=chosen.rule(2.0),
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    same = pipe(
        ROWS[0], quality=name, generator=torch.Generator().manual_seed(0), output_type="latent"
    )
    assert torch.equal(same.images, said.images) and out.calls == said.calls <= 60


def test_what_is_given_takes_the_place_of_the_preset(pipe):
    assert resolve("fast", steps=5).steps == 5 and resolve("fast", steps=None) == QUALITIES["fast"]
    with pytest.raises(
        ValueError, match="the grid has 3 times, which are 2 steps, and steps is 5; leave out one"
    ):
        resolve("fast", grid=read_grid("0 0.3 1"), steps=5)
    with pytest.raises(ValueError, match="no quality named 'best'; choose one of exact"):
        pipe("a red circle", quality="best")


@pytest.fixture(scope="module")
def grid(pipe):
    texts = ["a red circle", "two green stars", "a blue square above a red star"]
    return pilot_grid.place(pipe, texts, "draft", seed=0, looks=6)


def test_a_pilot_grid_ends_nearer_than_the_solvers_own(grid):
    assert len(grid) == QUALITIES["draft"].steps + 1 and grid.error < grid.before


def test_a_models_own_grid_is_saved_and_read_and_used_with_it(pipe, grid, tmp_path):
    one = JanusFlowPipeline(pipe.model, pipe.processor, pipe.vae)
    one.set_progress_bar_config(disable=True)
    one.grids = {"draft": grid}
    one.save_pretrained(tmp_path)
    again = JanusFlowPipeline.from_pretrained(tmp_path)
    assert again.grids == {"draft": grid}
    given = dict(generator=torch.Generator().manual_seed(0), output_type="latent")
    used = again(ROWS[0], quality="draft", **given)
    given = dict(given, generator=torch.Generator().manual_seed(0), grid=grid.ts)
    asked = one(ROWS[0], quality="draft", **given)
    assert torch.allclose(used.images, asked.images, atol=1e-3) and used.calls == asked.calls
    assert resolve("draft", one.grids, steps=7).grid is None  # another number of steps


def test_a_grid_brings_the_time_that_its_guidance_ended_at(pipe):
    found = pilot_grid.place(pipe, ROWS, "draft", until=0.25, looks=3)
    chosen = resolve("draft", {"draft": found})
    assert chosen.guided == (0.0, 0.25) and resolve("draft").guided == (0.0, 0.6)
    one = JanusFlowPipeline(pipe.model, pipe.processor, pipe.vae)
    one.set_progress_bar_config(disable=True)
    one.grids = {"draft": found}
    guided = sum(t <= 0.25 for t in found.times)
    made = one(ROWS[0], quality="draft", output_type="latent")
    assert made.calls == len(found.times) - 1 + guided
    with pytest.raises(ValueError, match="expected a time from 0 to 1"):
        pilot_grid.place(pipe, ROWS, "draft", until=2.0)


@pytest.mark.parametrize("told", ["often", [0.5, 0.1], [0, "1"], [0, 0.2, 1], [0, float("nan")]])
def test_a_grid_with_a_strange_interval_is_refused(grid, told):
    strange = replace(grid, settings={**grid.settings, "guided": told})
    with pytest.raises(ValueError, match="create the grid again"):
        resolve("draft", {"draft": strange})


def test_the_grid_in_a_pictures_text_makes_the_picture_again(grid):
    told = resolve("draft", {"draft": grid}).told()
    times = read_grid(told["grid"])
    assert torch.allclose(times, grid.ts, atol=1e-8) and told["steps"] == len(times) - 1
    assert read_grid("cosine") == "cosine" and read_grid(None) is None
    with pytest.raises(ValueError, match="no grid named 'fine'; choose one of uniform"):
        read_grid("fine")


def test_the_published_way_in_float32_ends_where_ours_ends(pipe):
    noise = pipe.prepare_latents(2, None, None, torch.Generator().manual_seed(1))
    texts = ["a red circle left of a blue square", "two green stars"]  # of different length
    ours = pipe(texts, latents=noise, num_inference_steps=4, output_type="latent").images
    theirs = reference_sampler.prompts(pipe, texts, noise, steps=4, state=torch.float32)
    assert (theirs - ours).abs().max() < 1e-4 * ours.abs().max()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN")
def test_onednn_gives_the_products_and_gradients_of_torch(monkeypatch):
    monkeypatch.setattr(onednn_linear, "onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    plain = nn.Linear(96, 160).double()
    ours = onednn_linear.use_onednn(nn.Linear(96, 160))
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(3, 400, 96)
    used = []
    product = onednn_linear._product
    monkeypatch.setattr(onednn_linear, "_product", lambda *a: used.append(1) or product(*a))
    ours(x)
    assert not used  # small, and not said to come again
    with onednn_linear.repeating():
        grads = []
        for layer, inputs in ((plain, x.double()), (ours, x.clone())):
            inputs.requires_grad_()
            y = layer(inputs)
            (y * y).sum().backward()
            grads.append([y, inputs.grad, layer.weight.grad, layer.bias.grad])
    assert len(used) == 3
    for exact, found in zip(*grads, strict=True):
        assert found.dtype == torch.float32
        assert (exact - found).abs().max() < 1e-5 * exact.abs().max()
