"""`janusflow doctor` finds what is silently wrong with a folder; a complete one is well."""

import json
import shutil

import pytest
import tiny_pro

from janusflow.cli.commands import doctor_checks


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "m")


def states(janusflow, folder, *words):
    code, out, err = janusflow("doctor", folder, "--json", *words)
    assert err == ""
    told = json.loads(out)
    assert told["ok"] == (code == 0) and code in (0, 1)
    return {check["name"]: check for check in told["checks"]}


def test_a_whole_folder_is_well_and_its_images_are_timed(janusflow, folder):
    code, out, _ = janusflow("doctor", folder, "--device", "cpu")
    assert code == 0 and "nothing is wrong" in out and " s an image (30 Euler steps" in out
    assert max(map(len, out.splitlines())) <= 80


def spaceless(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    content["decoder"] = None
    content["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def tagless(folder):
    for name in ("tokenizer.json", "processor_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text)
    content = json.loads((folder / "processor_config.json").read_text())
    content["image_start_tag"] = "<begin_of_a_picture>"
    (folder / "processor_config.json").write_text(json.dumps(content))


def other_vae(folder):
    from janusflow.models.autoencoder import PatchAutoencoder

    shutil.rmtree(folder / "vae")
    PatchAutoencoder(4).save_pretrained(folder / "vae")


def foreign_vae(folder):
    (folder / "vae" / "config.json").write_text('{"_class_name": "VQModel"}')


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (spaceless, "spaces"),
        (tagless, "special tokens"),
        (other_vae, "autoencoder"),
        (foreign_vae, "autoencoder"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_timed(damage, name, janusflow, folder):
    damage(folder)
    found = states(janusflow, folder)
    assert found[name]["state"] == "problem"
    assert "generation" not in found and found["speed"]["state"] == "warning"
    assert found["memory"]["state"] in ("ok", "warning")  # the fault is told once


@pytest.mark.parametrize("content", [None, b"", "half"])
def test_missing_weights_are_found_without_loading_them(content, janusflow, folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert states(janusflow, folder, "--no-speed")["weights"]["state"] == "problem"


def test_a_folder_without_autoencoder_can_still_answer(janusflow, folder):
    shutil.rmtree(folder / "vae")
    found = states(janusflow, folder)
    assert found["speed"]["state"] == "warning"
    assert not any(check["state"] == "problem" for check in found.values())


def test_a_check_that_fails_does_not_hide_the_others(janusflow, folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("the device \x1b[2J is gone")

    monkeypatch.setattr(doctor_checks, "device", broken)
    found = states(janusflow, folder, "--no-speed")
    assert found["device"]["state"] == "problem" and "\x1b" not in found["device"]["found"]
    assert found["memory"]["state"] == "ok"


def test_published_models_are_described_without_a_download(janusflow):
    code, out, _ = janusflow("info", "deepseek-ai/JanusFlow-1.3B")
    assert code == 0 and "2,046,367,504" in out and "int8" in out


def test_info_downloads_no_weights(janusflow, tiny_folder, tmp_path, monkeypatch):
    import huggingface_hub

    def snapshot_download(name, allow_patterns, **_):
        assert not any(pattern.endswith((".safetensors", ".bin")) for pattern in allow_patterns)
        return str({"some/flow": tiny_folder, "some/vae": tiny_folder}.get(name, tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert janusflow("info", "some/flow", "--vae", "some/vae")[0] == 0
    (tmp_path / "config.json").write_text(json.dumps(tiny_pro.published_config()))
    assert janusflow("info", "some/pro")[0] == 0
