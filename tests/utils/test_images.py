"""One door for pixels: what is an image, in which range, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow.utils import images


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def kinds(array):
    """The same image as people hold it."""
    first = torch.from_numpy(array).permute(2, 0, 1)
    return {
        "pil": Image.fromarray(array),
        "uint8": array,
        "uint16": array.astype(np.uint16) * 257,
        "int64": array.astype(np.int64),
        "float32": array.astype(np.float32) / 255,
        "float64": array / 255,
        "channels first": array.transpose(2, 0, 1),
        "tensor": first,
        "float tensor": first.float() / 255,
        "rgba": Image.fromarray(np.dstack([array, np.full((12, 10), 7, np.uint8)])),
        "float rgba": np.dstack([array / 255, np.full((12, 10), 0.1)]),
    }


def test_every_kind_of_one_image_gives_the_same_pixels(image):
    expected = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    for name, kind in kinds(image).items():
        assert np.array_equal(np.asarray(images.to_rgb(kind)), image), name
        torch.testing.assert_close(images.to_tensor(kind), expected, atol=1e-6, rtol=0)


def test_floats_keep_their_precision_as_tensors(image):
    fine = image / 255 * 0.123456
    found = images.to_tensor(fine)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, fine, atol=1e-7)


@pytest.mark.parametrize("value", [1.0001, 1.014, -0.0001, -0.03])
@pytest.mark.parametrize("door", [images.to_rgb, images.to_tensor])
def test_a_little_overshoot_is_clipped_at_both_ends(image, value, door):
    floats = image / 255
    floats[0, 0, 0] = value
    clipped = floats.clip(0, 1)
    assert np.array_equal(np.asarray(door(floats)), np.asarray(door(clipped)))
    assert np.array_equal(np.asarray(door(torch.tensor(floats))), np.asarray(door(clipped)))


@pytest.mark.parametrize("value", [1.5, -1.0, 255.0, np.nan, np.inf])
@pytest.mark.parametrize("door", [images.to_rgb, images.to_tensor, images.to_mask])
def test_floats_of_another_range_are_refused(image, value, door):
    floats = image / 255
    floats[0, 0, 0] = value
    with pytest.raises(ValueError, match=r"expected.* from 0 to 1"):
        door(floats)


def test_torchs_resizing_of_an_image_is_an_image(image):
    large = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    sharp = (large > 0.5).float()
    smaller = torch.nn.functional.interpolate(sharp, (7, 7), mode="bilinear", antialias=True)
    assert images.to_rgb(smaller[0] * 1.001).size == (7, 7)


def test_nothing_that_is_given_is_written_to(image):
    floats = image / 255
    floats[0, 0] = 1.01
    before = floats.copy()
    for door in (images.to_rgb, images.to_tensor, images.to_mask):
        door(floats)
    assert np.array_equal(floats, before)


def test_exif_turns_an_image_upright_at_every_door(image, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    turned = Image.open(tmp_path / "a.png")
    expected = np.rot90(image, -1)
    assert np.array_equal(np.asarray(images.to_rgb(turned)), expected)
    assert images.to_tensor(turned).shape == (1, 3, 10, 12)
    assert images.to_mask(turned).size == (12, 10)
    assert np.array_equal(np.asarray(images.read(tmp_path / "a.png")), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint16, bool, np.float32])
def test_masks_of_zero_and_one_are_black_and_white(kind):
    mask = np.zeros((6, 8), kind)
    mask[:, 4:] = 1
    shapes = [mask, mask[None], mask[..., None], torch.tensor(mask.astype(np.float32))]
    for one in shapes:
        assert np.array_equal(np.asarray(images.to_mask(one)) > 127, mask > 0)
    assert np.asarray(images.to_mask(mask)).max() == 255


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "I", "P"])
def test_masks_of_every_mode_are_read(mode):
    mask = Image.new("L", (8, 6))
    mask.paste(255, (4, 0, 8, 6))
    found = np.asarray(images.to_mask(mask.convert(mode)))
    assert (found[:, 4:] == 255).all() and not found[:, :4].any()
    ones = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8))
    assert np.array_equal(np.asarray(images.to_mask(ones)), np.asarray(mask))


def test_several_images_are_a_list_or_a_batch(image):
    batch = np.stack([image, image])
    assert images.to_tensor(batch).shape == (2, 3, 12, 10)
    assert len(images.listed([image])) == len(images.listed(image)) == 1
    with pytest.raises(ValueError, match="there is no image"):
        images.listed([])
    with pytest.raises(ValueError, match="images are 10 x 12, 5 x 12; make them the same size"):
        images.to_tensor([image, image[:, :5]])


def test_a_mask_of_any_kind_of_zero_and_one_is_a_mask():
    array = np.zeros((8, 6), np.uint8)
    array[:, 3:] = 1
    palette = Image.fromarray(array * 255).convert("P")
    kinds = [
        array,
        array.astype(np.uint16) * 255,
        array.astype(bool),
        array[None],
        np.stack([array] * 4, -1),
        Image.fromarray(np.stack([array] * 3, -1)),
        Image.fromarray(array * 255).convert("LA"),
        palette,
        torch.from_numpy(array)[None, :, :, None][0],
    ]
    for kind in kinds:
        assert np.array_equal(np.asarray(images.to_mask(kind)), array * 255), kind


@pytest.mark.parametrize("coloured", [False, True])
def test_a_mask_that_is_transparent_in_places_is_refused(coloured):
    pixels = np.full((8, 6, 4), 255, np.uint8)
    pixels[:, 3:, 3] = 0
    pixels[0, 0, 0] = 0 if coloured else 255
    with pytest.raises(ValueError, match="getchannel"):
        images.to_mask(Image.fromarray(pixels))


def test_integers_of_two_bytes_that_fit_into_one_are_bytes(image):
    assert np.array_equal(np.asarray(images.to_rgb(image.astype(np.uint16))), image)
    deep = Image.fromarray(np.full((4, 4), 200, np.uint16))  # a file's, which may be dark
    assert np.asarray(images.to_rgb(deep)).max() == 1


@pytest.mark.parametrize("kind", [complex, object, "U1"])
def test_what_is_no_number_is_refused_by_name(image, kind):
    array = image.astype(kind) if kind != "U1" else np.full((4, 4), "a")
    for door, name in ((images.to_rgb, "image"), (images.to_mask, "mask")):
        with pytest.raises(ValueError, match=f"the {name} holds"):
            door(array)


def test_every_mode_of_pil_is_read(image):
    whole = Image.fromarray(image)
    for mode in ("CMYK", "HSV", "YCbCr", "RGBX", "RGBa", "LA", "1", "I", "F"):
        assert images.to_rgb(whole.convert(mode)).mode == "RGB"
    assert images.to_rgb(whole.convert("LA").convert("La")).mode == "RGB"


def test_a_tensor_without_pixels_is_refused():
    with pytest.raises(TypeError, match="which holds no pixels"):
        images.to_rgb(torch.ones(3, 8, 8, device="meta"))
