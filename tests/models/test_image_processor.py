"""The image processor: the published pixels, every kind of image, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tokenizer import edit, picture

from janusflow import JanusFlowProcessor
from janusflow.models.janusflow.image_processing import JanusFlowImageProcessor
from janusflow.utils.images import to_rgb


@pytest.mark.parametrize("size", [(96, 96), (128, 64), (31, 62), (640, 480), (300, 10), (5, 5)])
@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.48, 0.46, 0.41)])
def test_pixels_equal_transformers_pil_backend_bit_for_bit(size, mean):
    theirs = pytest.importorskip("transformers.models.janus.image_processing_pil_janus")
    reference = theirs.JanusImageProcessorPil(
        size={"height": 96, "width": 96}, image_mean=mean, image_std=(0.5, 0.3, 0.2)
    )
    ours = JanusFlowImageProcessor(image_size=96, image_mean=mean, image_std=(0.5, 0.3, 0.2))
    expected = reference(picture(*size), return_tensors="pt")["pixel_values"]
    assert torch.equal(ours([picture(*size)]), expected)


def test_the_padding_is_the_means_colour_and_the_picture_is_centred():
    ours = JanusFlowImageProcessor(image_size=96, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    pixels = ours([Image.new("RGB", (200, 100), "white")])[0]
    assert torch.allclose(pixels[:, :24], torch.tensor((127 / 255 - 0.5) / 0.5))
    assert (pixels[:, 24:72] == 1).all() and torch.equal(pixels, pixels.flip(1))


def test_sides_are_truncated_as_published_not_rounded():
    square = JanusFlowImageProcessor(image_size=384, image_mean=(0.0,) * 3).square(
        Image.new("RGB", (100, 65), "white")
    )
    assert (np.asarray(square)[:, 0, 0] == 255).sum() == 249  # 249.6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_a_red_picture_becomes_rgb(mode):
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    if mode in ("LA", "PA"):
        image = red.convert(mode[0]).convert(mode)
    else:
        image = red.convert(mode)
    assert to_rgb(image).mode == "RGB" and to_rgb(image).size == (8, 6)
    if mode not in ("1", "L", "LA"):
        assert np.abs(np.asarray(to_rgb(image), int) - [255, 0, 0]).max() <= 3


def test_sixteen_bits_keep_their_greys():
    grey = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert grey.mode.startswith("I") and (np.asarray(to_rgb(grey)) == 128).all()


def test_a_palettes_transparency_does_not_warn(recwarn):
    image = picture().convert("P")
    image.info["transparency"] = bytes(range(256))
    to_rgb(image)
    assert not recwarn.list


def test_exif_turns_the_picture_upright():
    image = picture(40, 20)
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (20, 40)


@pytest.mark.parametrize("kind", ["uint8", "float", "first", "torch"])
def test_arrays_and_tensors_are_pictures_too(kind):
    image = picture()
    array = np.asarray(image)
    given = {
        "uint8": array,
        "float": array / 255,
        "first": array.transpose(2, 0, 1),
        "torch": torch.tensor(array).permute(2, 0, 1).float() / 255,
    }[kind]
    assert np.array_equal(np.asarray(to_rgb(given)), array)


def test_what_is_no_picture_is_refused(tmp_path):
    picture(200, 200).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:5000])
    bad = [
        Image.open(tmp_path / "cut.png"),
        np.zeros((5, 4, 7)),
        np.full((4, 4), np.nan),
        np.zeros((0, 3, 3), np.uint8),
        np.broadcast_to(np.uint8(0), (20_000, 20_000)),
    ]
    for image in bad:
        with pytest.raises(ValueError, match="image"):
            to_rgb(image)
    with pytest.raises(TypeError, match=r"PIL\.Image\.open"):
        to_rgb("image.png")


def test_mean_and_deviation_come_from_the_file(own):
    edit(own / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], image_std=[1, 2, 4])
    pixels = JanusFlowProcessor.from_pretrained(own).image_processor([Image.new("RGB", (9, 9))])
    expected = torch.tensor([-0.1, -0.1, -0.075])
    assert torch.allclose(pixels[0, :, 0, 0], expected)
