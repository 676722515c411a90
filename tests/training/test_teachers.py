"""Teachers: what each says of images, and what it needs."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from janusflow.scenes.world import COLORS, SHAPES
from janusflow.training import config
from janusflow.training.alignment import repa, teachers
from janusflow.training.alignment.teachers import View

TIMM = "vit_tiny_patch16_224"


def test_the_oracle_says_shape_and_colour_of_every_patch(view):
    features = teachers.Oracle()(view)
    assert features.shape == (3, 36, 20) and (features.sum(-1) == 2).all()
    for row, objects in zip(features.view(3, 6, 6, 20), view.objects, strict=True):
        o = max(objects, key=lambda o: o.shape not in ("ring", "star"))  # covers its centre
        patch = row[int(o.y // 16), int(o.x // 16)]
        assert patch[list(SHAPES).index(o.shape)] or o.shape in ("ring", "star")
        assert patch[9 + list(COLORS).index(o.color)] or o.shape in ("ring", "star")
        assert (row[..., 8] == row[..., 19]).all()  # background has neither


def test_the_average_looks_at_a_cleaner_time_of_the_same_picture(model, view):
    seen = {}

    def spy(_model, x, t, block):
        seen.update(x=x, t=t, block=block)
        return torch.zeros(len(x), 36, 64)

    teacher = teachers.make("ema", model, average=model, block=3, cleaner=0.2)
    teacher(replace(view, hidden_of=spy))
    assert torch.allclose(seen["t"], torch.tensor([0.1, 0.6, 1.0])) and seen["block"] == 3
    t = seen["t"].view(-1, 1, 1, 1)
    assert torch.allclose(seen["x"], (1 - t) * view.noise + t * view.data, atol=1e-5)


def test_the_random_teacher_is_fixed_and_differs_from_the_trained_one(model, view):
    first, second = (teachers.make("random", model)(view) for _ in range(2))
    own = teachers.make("own", model)(view)
    assert torch.equal(first, second) and not torch.allclose(first, own)
    assert not torch.allclose(first[0], first[1])  # it sees the image


def test_an_encoder_of_timm_is_read_from_a_local_file_as_it_was_saved(tmp_path, view):
    torch.manual_seed(1)
    source = timm.create_model(TIMM, num_classes=3).eval()
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    teacher = teachers.TimmTeacherNetwork(TIMM, tmp_path / "vit.safetensors")
    ours = teacher(view.pixel_values)
    x = torch.nn.functional.interpolate(
        view.pixel_values / 2 + 0.5, (224, 224), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        expected = source.forward_features((x - 0.5) / 0.5)[:, 1:]
    assert torch.allclose(ours, expected, atol=1e-4) and ours.shape == (3, 196, 192)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_convolutional_encoder_of_timm_gives_its_map_as_tokens(view):
    teacher = teachers.TimmTeacherNetwork("resnet10t", None)
    features = teacher(view.pixel_values)
    assert features.shape == (3, (-(-teacher.side // 32)) ** 2, teacher.width)


def test_what_a_teacher_needs_and_lacks_is_named(model, view, tmp_path):
    bare = View(t=view.t)
    with pytest.raises(ValueError, match="needs 'pixel_values'"):
        teachers.make("own", model)(bare)
    with pytest.raises(ValueError, match="needs 'objects'"):
        teachers.make("oracle", model)(bare)
    with pytest.raises(ValueError, match="needs 'features'"):
        teachers.make("cached", model)(bare)
    with pytest.raises(ValueError, match="7 wide, expected 48"):
        teachers.make("cached", model)(view)
    assert teachers.make("cached", model, cached_width=7)(view) is view.features
    with pytest.raises(ValueError, match="got no averaged model"):
        teachers.make("ema", model)
    with pytest.raises(ValueError, match="choose one of own"):
        teachers.make("dino", model)
    with pytest.raises(ValueError, match="timm has no model 'vit_x'"):
        teachers.make("timm:vit_x", model)
    with pytest.raises(ValueError, match=r"expected a \.safetensors file"):
        teachers.make(f"timm:{TIMM}", model, weights=tmp_path / "vit.pth")


def test_a_teachers_file_and_size_are_settings(tmp_path, view, model):
    """A patch of 16 pixels sees 96 as 6 x 6 tokens, the student's own grid."""
    source = timm.create_model(TIMM, num_classes=3)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    items = [f"alignment.teacher=timm:{TIMM}", "alignment.teacher_size=96"]
    items.append(f"alignment.teacher_weights={tmp_path / 'vit.safetensors'}")
    chosen = config.changed(config.of_stage(2), config.parse(items)).alignment
    aligner = repa.build(chosen, model)
    assert aligner.teach[0](view).shape == (3, 36, 192)


def test_a_teacher_of_ones_own_is_chosen_by_its_name(view, model):
    @teachers.teacher
    def brightness(_wanted):
        class Brightness:
            width = 1

            def __call__(self, view):
                (pixels,) = view.need("pixel_values")
                return pixels.mean(1).unfold(1, 16, 16).unfold(2, 16, 16).mean((3, 4)).flatten(1)

        return Brightness()

    try:
        chosen = config.changed(config.of_stage(2), {"alignment.teacher": "brightness"}).alignment
        assert repa.build(chosen, model).teach[0](view).shape == (3, 36)
    finally:
        del teachers.TEACHERS["brightness"]
    with pytest.raises(ValueError, match="did you mean 'oracle'"):
        config.changed(config.of_stage(2), {"alignment.teacher": "oracel"})
