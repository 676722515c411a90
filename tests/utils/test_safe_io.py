"""Images and prompts of strangers: the right answer or one sentence, bounded."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from janusflow.utils import images, safe_io

RED, GREEN = (220, 30, 40), (30, 160, 60)


def two_halves(size=(40, 20)) -> Image.Image:
    """Left red, right green."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (size[0] // 2, 0, *size))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, body: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that claims these sides, whatever it holds."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    return encoded(two_halves().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def palette_with_transparency() -> bytes:
    image = two_halves().quantize(8)
    return encoded(image, "PNG", transparency=bytes([255] * 8))


def animation(kind: str) -> bytes:
    later = Image.new("RGB", (40, 20), "white")
    return encoded(two_halves(), kind, save_all=True, append_images=[later] * 3, duration=50)


SAME = {
    "png": encoded(two_halves(), "PNG"),
    "jpeg": encoded(two_halves(), "JPEG", quality=98, subsampling=0),
    "bmp": encoded(two_halves(), "BMP"),
    "ppm": encoded(two_halves(), "PPM"),
    "webp": encoded(two_halves(), "WEBP", lossless=True),
    "tiff": encoded(two_halves(), "TIFF", compression="tiff_lzw"),
    "turned by EXIF": rotated(),
    "cmyk": encoded(two_halves().convert("CMYK"), "TIFF"),
    "cmyk jpeg": encoded(two_halves().convert("CMYK"), "JPEG", quality=98, subsampling=0),
    "palette": encoded(two_halves().quantize(8), "PNG"),
    "palette with transparency": palette_with_transparency(),
    "with alpha": encoded(two_halves().convert("RGBA"), "PNG"),
    "animated gif": animation("GIF"),
    "animated webp": animation("WEBP"),
    "animated png": animation("PNG"),
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("suffix", ["png", "jpg", "txt", ""])
def test_every_kind_of_file_gives_the_same_picture_whatever_its_name(kind, suffix, tmp_path):
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(SAME[kind])
    found = images.read(path)
    assert found.mode == "RGB" and found.size == (40, 20)
    error = np.abs(np.asarray(found, int) - np.asarray(two_halves(), int))
    assert error[:, [*range(17), *range(23, 40)]].max() <= 12  # JPEG, webp and palettes round


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_greys(kind):
    grey = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    found = images.decode(encoded(Image.fromarray(grey), kind), "grey")
    assert np.abs(np.asarray(found)[..., 0].astype(int) - np.round(grey / 257)).max() <= 1


@pytest.mark.parametrize("kind", SAME)
def test_a_picture_cut_anywhere_is_refused_or_whole(kind):
    content = SAME[kind]
    for size in {0, 1, 4, 8, 20, 40, len(content) // 3, len(content) // 2, len(content) - 5}:
        try:
            found = images.decode(content[:size], "cut")
        except ValueError as error:
            assert "is not a complete image" in str(error) and "\n" not in str(error)
        else:  # trailing bytes that say nothing about the first image
            assert np.abs(np.asarray(found, int) - np.asarray(two_halves(), int)).mean() < 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(100_000, 100_000), "10000000000 pixels.*JANUSFLOW_MAX_PIXELS"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
        (png(13_000, 13_000), "13000 x 13000 pixels; at most 100000000 are taken, or set JANUS"),
        (png(0, 5), "not a complete image"),
        (png(9_000, 9_000, zlib.compress(bytes(10))), "not a complete image"),
        (png(8, 8, b"", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28)))), "not a complete"),
        (png(8, 8, b"", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**28)))), "not a complete"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run", "none of PNG"),
        (b"BM" + struct.pack("<IHHIIiiHH", 60, 0, 0, 54, 40, -5, -5, 1, 24) + bytes(80), "pixels"),
        (b"P6 99999 99999 255\n" + bytes(9), "9999800001 pixels.*JANUSFLOW_MAX_PIXELS"),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(50), "pixels|complete"),
    ],
    ids=["huge", "beyond PIL", "a little huge", "empty", "missing rows", "text bomb",
         "profile bomb", "a program", "negative", "huge ppm", "huge gif"],
)  # fmt: skip
def test_a_bomb_is_refused_in_a_sentence_and_at_once(content, words):
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        images.decode(content, "bomb")
    assert time.perf_counter() - begun < 4 and "\n" not in str(caught.value)


def test_a_raised_limit_lets_a_larger_picture_in(monkeypatch):
    with pytest.MonkeyPatch.context() as lower:
        lower.setenv("JANUSFLOW_MAX_PIXELS", "500")
        with pytest.raises(ValueError, match="JANUSFLOW_MAX_PIXELS"):
            images.decode(SAME["png"], "p")
    monkeypatch.setenv("JANUSFLOW_MAX_PIXELS", "900")
    assert images.decode(SAME["png"], "p").size == (40, 20)


def test_text_chunks_of_a_picture_change_nothing():
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 10_000)
    content = encoded(two_halves(), "PNG", pnginfo=info)
    assert np.array_equal(np.asarray(images.decode(content, "p")), np.asarray(two_halves()))


@pytest.mark.parametrize("read", [images.read, safe_io.read_prompts, safe_io.read_object])
def test_what_never_ends_or_is_no_file_is_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    names = [tmp_path / "pipe", tmp_path / "loop", tmp_path, Path("/dev/zero"), Path("/dev/tty")]
    for path in [*names, tmp_path / "no", Path("a\0b"), Path("x" * 5000), Path("/proc/kmsg")]:
        begun = time.perf_counter()
        with pytest.raises(ValueError, match=r"cannot be opened|is not a file|lacks"):
            read(path)
        assert time.perf_counter() - begun < 1


def test_a_pipe_of_the_shell_is_read():
    out, into = os.pipe()
    os.write(into, b"a\r\nb\n")
    os.close(into)
    assert safe_io.read_prompts(Path(f"/dev/fd/{out}")) == ["a", "b"]
    os.close(out)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n\r\n", ["a", "b"]),
        (b"a\rb", ["a", "b"]),
        (b"\xef\xbb\xbfa", ["a"]),
        ("ein Stern \u2028 und\x0bmehr\x85".encode(), ["ein Stern \u2028 und\x0bmehr"]),
        ("红色的圆 🟥\n".encode(), ["红色的圆 🟥"]),
    ],
)
def test_a_prompt_is_a_line(content, expected):
    assert safe_io.split_prompts(content, "p") == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no prompts"),
        (b" \n\t\n", "holds no prompts"),
        (b"ok\na\0b", "line 2, holds a NUL"),
        (b"ok\n" + b"x" * 2**20, "line 2, has more than 4000 characters"),
        (b"ok\n\xff\xfe", "is not UTF-8 text .byte 3"),
        ("a\ud800".encode("utf-8", "surrogatepass"), "is not UTF-8"),
        ("b".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_a_broken_prompt_file_is_named_with_its_line(content, words):
    with pytest.raises(ValueError, match=words) as caught:
        safe_io.split_prompts(content, "p.txt")
    assert str(caught.value).startswith("p.txt") and "\n" not in str(caught.value)


def test_a_prompt_with_half_a_letter_is_refused():
    with pytest.raises(ValueError, match="not Unicode text"):
        safe_io.check_prompt("a\udcff", "a prompt")


ATTACKS = """
import resource, struct, sys, torch
from pathlib import Path
import janusflow.pipelines.pipeline_janusflow as p
from janusflow.utils import images, safe_io
from test_safe_io import png, chunk
import zlib

size = int(open("/proc/self/statm").read().split()[0]) * 4096 + 2**29
resource.setrlimit(resource.RLIMIT_AS, (size, size))
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
(out / "long.txt").write_bytes(b"x" * 2**26)
(out / "bomb.png").write_bytes(png(100_000, 100_000, zlib.compress(bytes(2**27))))
for read, what in [
    (safe_io.read_prompts, out / "long.txt"),
    (safe_io.read_prompts, Path("/dev/zero")),
    (images.read, out / "bomb.png"),
    (p.JanusFlowPipeline.from_pretrained, folder),
]:
    try:
        read(what)
    except ValueError as error:
        print("refused:", error)
"""


@pytest.mark.slow
def test_hostile_files_stay_within_half_a_gigabyte(tiny_folder, tmp_path):
    """Among them a configuration of thirty billion parameters with small weights."""
    import json
    import shutil

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    content = json.loads((folder / "config.json").read_text())
    content["language_config"] |= {"num_hidden_layers": 500, "intermediate_size": 300_000}
    (folder / "config.json").write_text(json.dumps(content))
    home = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", ATTACKS, folder, tmp_path],
        capture_output=True, text=True, cwd=tmp_path, timeout=200,
        env=os.environ | {"PYTHONPATH": f"{home.parents[1]}:{home.parent}:{home}"},
    )  # fmt: skip
    assert done.stdout.count("refused: ") == 4, done.stdout + done.stderr
