"""Latents and features on disk: the same training, and nothing stale or damaged gets in."""

import json
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from janusflow.data.feature_cache import ABOUT, Cache, CacheError
from janusflow.scenes.world import render, scene
from janusflow.training import config, job, precompute, resume_checks
from janusflow.training.alignment import teachers

MODEL = "janusflow/scenes"
SMALL = {"training.steps": 2, "training.batch": 4, "training.warmup": 1}


def draw(folder, numbers):
    for index in numbers:
        drawn = scene("train", index)
        Image.fromarray(render(drawn.objects)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(drawn.caption, encoding="utf-8")


@pytest.fixture(scope="module")
def encoders():
    return precompute.load(MODEL)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw(folder, range(6))
    return folder


@pytest.fixture
def cache(pictures, encoders, tmp_path):
    precompute.precompute(pictures, encoders, tmp_path / "cache")
    return tmp_path / "cache"


def engine(data, out, **changes):
    return job.of_stage(1, MODEL, data, out, SMALL | changes).trainer()


def losses(made):
    return [made.step()["parts"] for _ in range(2)]


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_training_from_the_cache_has_the_losses_of_training_without(pictures, cache, tmp_path):
    plain = losses(engine(pictures, tmp_path, **{"data.crop": "center"}))
    made = engine(pictures, tmp_path, **{"data.cache": str(cache)})
    assert all(s.pixel_values is None for s in made.data.draw(0, counts={"generation": 4}))
    for ours, theirs in zip(losses(made), plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert {"flow", "alignment"} <= ours.keys()


def test_a_teacher_that_learns_or_is_another_is_run_and_the_latents_serve(
    pictures, cache, tmp_path
):
    learns = {"training.trainable": ("vision_encoder", "linear", "generation")}
    for changes in (learns, {"alignment.teacher": "random"}):
        made = engine(pictures, tmp_path, **changes, **{"data.cache": str(cache)})
        sample = made.data.draw(0, counts={"generation": 1})[0]
        assert sample.pixel_values is not None and sample.features is None
        assert isinstance(made.objective.aligner.teach[0], teachers.Encoder)
        assert "alignment" in made.step()["parts"]


def test_a_run_goes_on_with_a_cache_and_says_when_the_crop_changes(pictures, cache, tmp_path):
    out, plain = tmp_path / "run", {**SMALL, "data.crop": "center"}
    job.of_stage(1, MODEL, pictures, out, plain | {"run.save_every": 1}).run()
    made = engine(pictures, out, **{"data.cache": str(cache)})
    assert made.restore(out) and made.state.step == 2 and not made.changes
    other = engine(pictures, out)
    assert other.restore(out) and set(other.changes) == {"data.crop"}


def test_what_was_cut_off_is_gone_on_with(pictures, encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(precompute, "BATCH", 2)
    monkeypatch.setattr(precompute, "SHARD_IMAGES", 2)
    calls, about = [], encoders.about

    class Dies:
        processor = encoders.processor

        def __init__(self):
            self.about = about

        def __call__(self, pixels):
            calls.append(len(pixels))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return encoders(pixels)

    with pytest.raises(KeyboardInterrupt):
        precompute.precompute(pictures, Dies(), tmp_path / "cache")
    with pytest.raises(CacheError, match="not finished"):
        engine(pictures, tmp_path, **{"data.cache": str(tmp_path / "cache")})
    (tmp_path / "cache" / "x.part").write_bytes(b"half")
    summary = precompute.precompute(pictures, encoders, tmp_path / "cache")
    assert (summary.computed, summary.known) == (2, 4)
    assert not list((tmp_path / "cache").glob("*.part"))
    assert engine(pictures, tmp_path, **{"data.cache": str(tmp_path / "cache")}).step()


def test_what_is_new_alone_is_computed_and_what_moved_is_known(pictures, cache, encoders):
    draw(pictures, [6])
    (pictures / "deep").mkdir()
    for suffix in (".png", ".txt"):
        (pictures / f"0{suffix}").rename(pictures / "deep" / f"z{suffix}")
    summary = precompute.precompute(pictures, encoders, cache)
    assert (summary.computed, summary.known) == (1, 6)


@pytest.mark.parametrize("change", ["added", "removed", "another size"])
def test_data_that_changed_is_seen_at_the_start(pictures, cache, tmp_path, change):
    if change == "added":
        draw(pictures, [9])
    elif change == "removed":
        (pictures / "0.png").unlink()
    else:
        with open(pictures / "0.png", "ab") as file:
            file.write(b"\0")
    with pytest.raises(CacheError, match="is stale: files of the data"):
        engine(pictures, tmp_path, **{"data.cache": str(cache)})


def test_a_picture_changed_in_place_is_seen_when_it_is_drawn(pictures, cache, tmp_path):
    for index in range(6):
        flip(pictures / f"{index}.png")  # the last byte of the end mark's checksum: still read
    made = engine(pictures, tmp_path, **{"data.cache": str(cache)})
    with pytest.raises(CacheError, match=r"\.png is not in it; run janusflow precompute"):
        made.step()


@contextmanager
def changed(network):
    parameter = next(network.parameters())
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter += 1e-3
        yield
        parameter.copy_(before)


def test_other_weights_or_another_autoencoder_make_a_cache_stale(
    pictures, encoders, cache, tmp_path
):
    with changed(encoders.teacher.network):
        with pytest.raises(CacheError, match=r"another kind.*features' weights"):
            precompute.precompute(pictures, encoders, cache)
        precompute.precompute(pictures, encoders, tmp_path / "teacher")
    with changed(encoders.vae):
        precompute.precompute(pictures, encoders, tmp_path / "vae")
    for name, what in (("teacher", "features"), ("vae", "latents")):
        with pytest.raises(CacheError, match=f"stale: {what}' weights"):
            engine(pictures, tmp_path, **{"data.cache": str(tmp_path / name)})


@pytest.mark.parametrize("place", [-1, 4000])
def test_one_changed_bit_is_found_when_it_is_read(pictures, cache, tmp_path, place):
    (shard,) = cache.glob("*.safetensors")
    flip(shard, place)
    with pytest.raises(CacheError, match="is damaged"):
        made = engine(pictures, tmp_path, **{"data.cache": str(cache)})
        for _ in range(6):
            made.data.draw(made.state.step, counts={"generation": 4})
            made.state.step += 1


@pytest.mark.parametrize("size", [0, 100, 5000, -1])
def test_a_file_cut_short_is_refused(pictures, cache, tmp_path, size):
    (shard,) = cache.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(CacheError, match="is damaged"):
        engine(pictures, tmp_path, **{"data.cache": str(cache)})


@pytest.mark.parametrize("edit", ["value", "cut", "list", "none"])
def test_an_edited_description_is_refused(pictures, cache, tmp_path, edit):
    about = json.loads((cache / ABOUT).read_text())
    about["preparation"]["image_size"] = 384
    said = {"value": json.dumps(about), "cut": '{"format": 1', "list": "[1]", "none": ""}[edit]
    (cache / ABOUT).write_text(said)
    with pytest.raises(CacheError, match="is damaged"):
        engine(pictures, tmp_path, **{"data.cache": str(cache)})


def test_a_shard_of_another_cache_does_not_fit(cache, encoders, tmp_path):
    about = encoders.about
    other = Cache.create(tmp_path / "other", about | {"latents": {"weights": "others"}})
    key = next(iter(Cache.create(cache, about).places))
    other.add({key: {"latents": torch.zeros(4, 12, 12), "features": torch.zeros(36, 8)}})
    for shard in cache.glob("*.safetensors"):
        shard.unlink()
    (other.folder / f"{key}.safetensors").rename(cache / f"{key}.safetensors")
    with pytest.raises(CacheError, match="checksum"):
        Cache.create(cache, about).get(key, ["latents"])


def test_unreadable_pictures_are_counted_named_and_left_out(
    pictures, encoders, tmp_path, janusflow
):
    (pictures / "2.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"2\.png"):
        summary = precompute.precompute(pictures, encoders, tmp_path / "cache")
    assert summary.computed == 5 and "2.png" in str(summary) and "1 unreadable" in str(summary)
    made = engine(pictures, tmp_path, **{"data.cache": str(tmp_path / "cache")})
    with pytest.warns(UserWarning, match="another sample stands in"):
        names = {s.name for s in made.data.draw(0, counts={"generation": 6})}
    assert not any("2.png" in name for name in names)
    with pytest.raises(ValueError, match="0 are allowed"):
        precompute.precompute(pictures, encoders, tmp_path / "more", limit=0)
    code, said, told = janusflow("precompute", "--data", pictures, "--out", tmp_path / "cache")
    assert code == 0 and "2.png" in told and "0 images computed, 5 known, 1 unreadable" in said


def test_any_encoder_of_timm_is_cached_in_a_narrow_dtype(pictures, tmp_path, monkeypatch):
    """Fresh weights, made the same at every call: a test has no network."""
    made = teachers.TimmTeacherNetwork.__init__

    def seeded(self, name, weights="hub", size=None):  # noqa: ARG001
        with torch.random.fork_rng():
            torch.manual_seed(3)
            made(self, name, None, size)

    monkeypatch.setattr(teachers.TimmTeacherNetwork, "__init__", seeded)
    name = "timm:test_vit"
    found = precompute.load(MODEL, teacher=name, dtype="bfloat16")
    precompute.precompute(pictures, found, tmp_path / "cache")
    aligned = {"alignment.teacher": name}
    plain = losses(engine(pictures, tmp_path, **aligned, **{"data.crop": "center"}))
    cached = engine(pictures, tmp_path, **aligned, **{"data.cache": str(tmp_path / "cache")})
    assert cached.data.draw(0, counts={"generation": 1})[0].features.dtype == torch.bfloat16
    for ours, theirs in zip(losses(cached), plain, strict=True):
        assert ours["alignment"] == pytest.approx(theirs["alignment"], rel=1e-3)


def test_what_the_settings_of_an_older_run_do_not_say_is_as_it_was_then():
    ours = config.of_stage(2)
    older = ours.as_dict()
    for section, name in (("training", "time_weight"), ("alignment", "cleaner")):
        del older[section][name]
    del older["data"], older["adapter"]
    assert config.from_dict(older) == ours


def test_a_cache_may_take_the_place_of_middle_crops_when_a_run_goes_on(tmp_path):
    ours = config.changed(config.of_stage(2), {"data.crop": "center"})
    cached = config.changed(config.of_stage(2), {"data.cache": "somewhere"})
    assert resume_checks.continued(cached, ours, 3, tmp_path)[1] == {}


def test_recipes_and_random_crops_have_no_cache(tmp_path):
    with pytest.raises(ValueError, match="train by --stage"):
        job.of_recipe("scenes-smoke", tmp_path, {"data.cache": "x"})
    with pytest.raises(ValueError, match=r"data\.crop is random"):
        job.of_stage(1, MODEL, tmp_path, tmp_path, {"data.crop": "random", "data.cache": "x"})
