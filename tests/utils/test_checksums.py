"""Weights with a list of checksums are compared with it whenever they are located."""

import hashlib
import shutil
from fnmatch import fnmatch

import pytest

from janusflow.models.autoencoder_loading import locate_autoencoder
from janusflow.utils import hub
from janusflow.utils.hub import PACKAGED, SUMS, locate


def listed(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / SUMS).write_text(f"{digest}  model.safetensors\n")
    return folder


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packaged_weights_are_those_of_their_list(name):
    assert "model.safetensors" in (locate(name) / SUMS).read_text()


def test_one_changed_bit_of_the_weights_is_found(tiny_folder, tmp_path):
    folder = listed(shutil.copytree(tiny_folder, tmp_path / "m"))
    assert locate(folder) == folder
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors in .* differs from the file"):
        locate(folder)


@pytest.mark.parametrize("line", ["x  model.safetensors", f"{'0' * 64}  ../x", f"{'0' * 64}  /x"])
def test_a_list_that_leads_elsewhere_is_refused(line, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / SUMS).write_text(line)
    with pytest.raises(ValueError, match="malformed"):
        locate(folder)


def test_a_file_that_is_gone_is_told(tiny_folder, tmp_path):
    folder = listed(shutil.copytree(tiny_folder, tmp_path / "m"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is listed in .*download it again"):
        locate(folder)


@pytest.mark.parametrize(
    "name", ["pilot-exact.json", "vae/x.safetensors", "generation_config.json"]
)
def test_a_file_that_was_added_is_told_if_it_would_be_obeyed(name, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / SUMS).touch()
    hub.relist(folder)
    (folder / "notes.txt").write_text("mine")
    assert locate(folder) == folder
    (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=rf"{name} in .* is not in its SHA256SUMS"):
        locate(folder)
    hub.relist(folder)
    assert locate(folder) == folder


# The hub, as a folder of repositories


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Repositories by name; what was downloaded is remembered."""
    import huggingface_hub

    asked = []

    def snapshot_download(name, allow_patterns, **options):
        source = tmp_path / "hub" / name
        paths = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        taken = {p for p in paths if any(fnmatch(p, pattern) for pattern in allow_patterns)}
        asked.append((name, taken, options))
        for path in taken:
            (tmp_path / "cache" / name / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, tmp_path / "cache" / name / path)
        (tmp_path / "cache" / name).mkdir(parents=True, exist_ok=True)
        return str(tmp_path / "cache" / name)

    def put(name, files):
        for file in files:
            path = tmp_path / "hub" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return put, asked


SDXL_VAE = ["config.json", "diffusion_pytorch_model.safetensors", "sdxl_vae.safetensors"]
SDXL = [
    "model_index.json",
    "sd_xl_base_1.0.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
]


@pytest.mark.parametrize(
    ("files", "inside", "taken"),
    [
        (SDXL_VAE, "", {"config.json", "diffusion_pytorch_model.safetensors"}),
        (SDXL, "vae", {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}),
    ],
)
def test_of_an_autoencoder_comes_what_is_read_and_no_more(files, inside, taken, stored):
    put, asked = stored
    put("a/vae", files)
    folder = locate_autoencoder("a/vae")
    assert asked == [("a/vae", taken, {})]
    assert (folder / "config.json").is_file() and folder.name == (inside or "vae")


def test_a_name_may_pin_a_revision(stored):
    put, asked = stored
    put("a/vae", SDXL_VAE)
    locate_autoencoder("a/vae@v2")
    assert asked[0][2] == {"revision": "v2"}


def test_a_model_is_described_by_its_configuration_alone(stored):
    put, asked = stored
    put("a/m", ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"])
    hub.locate("a/m", hub.CONFIGS)
    assert asked[0][1] == {"config.json"}


@pytest.mark.parametrize("safe", [True, False])
def test_weights_come_once_in_the_safest_form(safe, stored):
    put, asked = stored
    put("a/m", ["config.json", "pytorch_model.bin", *(["model.safetensors"] if safe else [])])
    hub.locate("a/m", ["*.json", "*.safetensors", "*.bin"])
    assert ("pytorch_model.bin" in asked[-1][1]) != safe
