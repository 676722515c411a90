"""Images that are not square: buckets, positions, the shift of times, alignment."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from janusflow.data.buckets import divided, shapes
from janusflow.data.dataset_report import describe
from janusflow.data.read_options import Data
from janusflow.data.readers import find, open_data
from janusflow.data.samples import Sample
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.packed_forward import forward
from janusflow.models.janusflow.packing import image_positions
from janusflow.training import checkpoints, export, job
from janusflow.training.alignment import repa
from janusflow.training.alignment.teachers import View
from janusflow.training.config_stages import STAGES
from janusflow.training.objectives.network import draw

WIDE = {"data.buckets": "1:1 2:1 1:2"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine images: three square, four wide, two high."""
    folder = tmp_path_factory.mktemp("shapes")
    sizes = [(40, 40)] * 3 + [(80, 40)] * 4 + [(30, 60)] * 2
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (20 * number, 0, 99)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


def test_shapes_have_near_the_pixels_of_the_square_and_whole_tokens():
    found = shapes("1:1 4:3 3:4 16:9", 384, 16)
    assert found["1:1"] == (384, 384) and found["4:3"] == found["3:4"][::-1]
    for height, width in found.values():
        assert height % 16 == width % 16 == 0 and abs(height * width / 384**2 - 1) < 0.05
    with pytest.raises(ValueError, match="'4/3'"):
        shapes("4/3", 384, 16)


def test_a_step_draws_one_shape_and_a_pass_shows_every_image_once(pictures, processor):
    mixture = open_data(pictures, processor, options=Data(buckets=WIDE["data.buckets"]))
    seen, shapes_of = {}, set()
    for step in range(60):
        whole = mixture.draw(step, counts={"generation": 2})
        parts = [mixture.draw(step, rank, 2, {"generation": 2})[0] for rank in range(2)]
        assert [s.name for s in parts] == [s.name for s in whole]
        (shape,) = {tuple(s.pixel_values.shape[-2:]) for s in whole}
        shapes_of.add(shape)
        seen.setdefault(shape, []).extend(s.name for s in whole)
    assert shapes_of == {(96, 96), (64, 128), (128, 64)} and len(seen[64, 128]) > len(seen[128, 64])
    for shape, count in (((96, 96), 3), ((64, 128), 4), ((128, 64), 2)):
        assert len(set(seen[shape][:count])) == count


def test_an_image_on_its_side_is_counted_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("x")
    ((_, records),) = find(tmp_path)
    assert divided(records, shapes("1:1 2:1 1:2", 96, 16)) == {"1:2": [0]}


def test_the_start_says_how_many_images_have_which_shape(pictures, processor):
    told = describe(open_data(pictures, processor, options=Data(buckets="1:1 2:1 1:2")))
    assert "4 of them in the shape 2:1" in told


def test_buckets_train_with_alignment_and_resume_in_the_same_bits(pictures, tiny_folder, tmp_path):
    changes = WIDE | {"training.steps": 6, "training.batch": 2, "training.warmup": 1}
    changes |= {"run.save_every": 1, "run.keep": 9, "alignment": "irepa", "alignment.tap": 1}
    changes |= {"training.mixture": {"generation": 1}, "training.image_grid": 6}
    for out in (tmp_path / "whole", tmp_path / "cut"):
        job.of_stage("2", str(tiny_folder), pictures, out, changes).run()
    for step in (4, 5, 6):
        checkpoints.path_of(tmp_path / "cut", step).unlink()
    job.of_stage("2", str(tiny_folder), pictures, tmp_path / "cut", changes).run()
    ours, theirs = (checkpoints.read(tmp_path / name, 6)[0] for name in ("cut", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    export.export(tmp_path / "whole", tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text())["image_grid"] == 6


def test_positions_of_the_trained_grid_are_in_a_row_and_others_span_the_same():
    assert torch.equal(image_positions(6, 6, 6), torch.arange(37))
    assert torch.equal(image_positions(4, 8), torch.arange(33))
    finer = image_positions(12, 12, 6)[1:].view(6, 2, 6, 2)
    assert torch.allclose(finer.mean((1, 3)), 1 + torch.arange(36.0).view(6, 6))
    wide = image_positions(3, 12, 6)[1:].view(3, 12)
    assert wide.min() > 0 and wide.max() < 36


def test_packed_and_sampled_passes_agree_on_positions_of_another_grid(tiny_folder):
    model = JanusFlowModel.from_pretrained(tiny_folder).eval()
    model.config.image_grid = 6
    seen = []
    model.language_model.model.rotary_emb.register_forward_pre_hook(
        lambda _module, args, told: seen.append(told.get("position_ids", args[-1])),
        with_kwargs=True,
    )
    x, t = torch.randn(1, 16, 8, 16), torch.tensor([0.4])
    sample = Sample(kind="generation", input_ids=torch.tensor([1, 5, 6]), latents=x[0])
    with torch.no_grad():
        packed = forward(model, [sample], x, t).velocity
        alone = model.velocity(x, t, model.encode_prompt(sample.input_ids[None]))
    assert torch.allclose(packed, alone, atol=1e-5)
    whole, _, image = seen
    assert torch.equal(whole[0, 3:], image[0])
    assert torch.equal(image[0] - 3, image_positions(4, 8, 6))


def test_larger_latents_are_drawn_nearer_to_the_noise():
    stage = STAGES["2"]
    assert stage.shift_at(999) == stage.shift
    stage = replace(stage, shift=1.5, shift_base=144)
    assert stage.shift_at(144) == 1.5 and stage.shift_at(576) == 3

    def times(side):
        ids = torch.tensor([1])
        made = [Sample(kind="generation", input_ids=ids, latents=torch.zeros(4, side, side))] * 8
        return draw(stage, made, 0, range(8), 8, "cpu").t

    small, large = times(12), times(24)
    assert (large < small).all()
    odds = lambda t: t / (1 - t)  # noqa: E731
    assert torch.allclose(odds(small) / odds(large), torch.tensor(2.0), rtol=1e-3)


@pytest.mark.parametrize("projector", ["mlp", "conv"])
def test_alignment_on_a_wide_grid_compares_the_same_places(projector):
    class Teacher:
        """A ramp from left to right, on a square grid of 8 x 8."""

        width = 3

        def __call__(self, _view):
            ramp = torch.arange(8.0).repeat(8, 1).flatten()
            return torch.stack([ramp.cos(), ramp.sin(), ramp / 8], 1)[None].repeat(2, 1, 1)

    protocol = repa.preset("repa", tap=1, projector=projector)
    aligner = repa.Aligner(protocol, 3, 4, Teacher())
    aligner.projector = torch.nn.Identity() if projector == "mlp" else aligner.projector
    velocity, view = torch.zeros(2, 4, 8, 16), View(t=torch.rand(2))
    ramp = (torch.arange(8.0) + 0.0).repeat(4, 1).flatten()
    hidden = torch.stack([ramp.cos(), ramp.sin(), ramp / 8], 1)[None].repeat(2, 1, 1)
    found = aligner.losses(0, view, velocity, hidden)["alignment"]
    assert found.shape == (2,)
    if projector == "mlp":
        assert found.max() < 1e-5
