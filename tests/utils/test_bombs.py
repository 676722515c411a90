"""Whatever reads a file meets a pickle, a pipe, depth and nonsense there: one sentence each."""

import json
import math
import os
import threading
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import samplers
from checks.hostile import LIES, bomb, zipped
from janusflow.data import readers
from janusflow.data.feature_cache import Cache
from janusflow.evaluation import plan, report
from janusflow.evaluation.tasks import vqa
from janusflow.models import lora
from janusflow.pipelines.guided_velocity import read_guidance
from janusflow.training import checkpoints, config
from janusflow.training.config_stages import STAGES
from janusflow.training.recipes import RECIPES, Recipe
from janusflow.utils import hub, images, safe_io
from samplers.search.pilot import PilotGrid

DEEP = b'{"a":' + b"[" * 200_000
ADAPTER = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}).encode()


def adapter(folder):
    """With an honest configuration, unless that is what the attack is in."""
    if not (folder / lora.CONFIG).exists():
        (folder / lora.CONFIG).write_bytes(ADAPTER)
    return lora.read(folder)


def cached(folder):
    return Cache.create(folder, {"latents": 1})


def rows(folder):
    """Every row of what a folder of data holds."""
    for _, records in readers.find(folder):
        for i in range(len(records)):
            records[i]


# name of the file: what reads it, given its folder
READ = {
    "step-00000001.safetensors": checkpoints.latest,
    "settings.yaml": lambda folder: config.read(folder / "settings.yaml"),
    lora.CONFIG: adapter,
    lora.WEIGHTS: adapter,
    "adapter_model.bin": adapter,
    "cache.json": cached,
    "0123.safetensors": cached,
    "rows.jsonl": rows,
    "rows.parquet": rows,
    "rows.tar": rows,
    "text.txt": rows,
    "protocol.json": plan.read,
    "answers.json": vqa.read,
    "report.json": lambda folder: report.load(folder / "report.json"),
    "rule.json": lambda folder: samplers.learned(folder / "rule.json"),
    "grid.json": lambda folder: PilotGrid.load(folder / "grid.json"),
    "prompts.txt": lambda folder: safe_io.read_prompts(folder / "prompts.txt"),
    "image.png": lambda folder: images.read(folder / "image.png"),
    "config.json": lambda folder: safe_io.read_object(folder / "config.json"),
    "SHA256SUMS": lambda folder: hub.verify(folder),
}
ATTACKS = {
    "a pickle": bomb,
    "a pickle in a zip": zipped,
    "depth": lambda _: DEEP,
    "nothing": lambda _: b"",
    "NaN": lambda _: b'{"times": [NaN], "weights": Infinity, "format": "samplers pilot grid 1"}',
    "no UTF-8": lambda _: b"\xff\xfe\x00{",
    "a number of 4,000 digits": lambda _: b'{"prompts": ' + b"9" * 4000 + b', "splits": ["test"]}',
    "a header of lies": lambda _: LIES["a shape of 2^62 elements"],
    "a list": lambda _: b"[[[]]]",
}
FINE = {  # what some readers may take for a file of theirs
    ("text.txt", "nothing"),
    ("text.txt", "depth"),
    ("text.txt", "NaN"),
    ("text.txt", "a number of 4,000 digits"),
    ("text.txt", "a list"),
    ("text.txt", "a header of lies"),
    ("rows.jsonl", "nothing"),
    ("SHA256SUMS", "nothing"),
    ("prompts.txt", "NaN"),
    ("prompts.txt", "a list"),
    ("settings.yaml", "NaN"),
    ("settings.yaml", "a number of 4,000 digits"),
    ("config.json", "a number of 4,000 digits"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", READ)
def test_a_hostile_file_is_one_sentence_and_nothing_goes_off(name, attack, tmp_path):
    went_off = tmp_path / "went off"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(ATTACKS[attack](went_off))
    try:
        READ[name](folder)
    except (ValueError, OSError) as error:
        assert str(error) and "\n\n" not in str(error) and len(str(error)) < 1500
    else:
        assert (name, attack) in FINE
    assert not went_off.exists()


@pytest.mark.parametrize("name", [name for name in READ if name != "adapter_model.bin"])
def test_a_pipe_in_a_files_place_does_not_hold_the_reader(name, tmp_path):
    os.mkfifo(tmp_path / name)
    ended = []

    def read():
        try:
            READ[name](tmp_path)
        except (ValueError, OSError) as error:
            ended.append(error)
        else:
            ended.append(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert ended


# YAML


@pytest.mark.parametrize(
    "text",
    [
        "training: !!python/object/apply:os.system ['touch went_off']",
        "training: !!python/name:os.system",
        "training: !!python/object/new:janusflow.training.recipes.Recipe {}",
        "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]",
        "a: &a {b: *a}",
        "training: " + "[" * 50_000,
        "training: {lr: .nan}",
        "training: {lr: .inf}",
        "training: {seed: -1}",
        "training: {seed: 1" + "0" * 30 + "}",
        "training: {batch: 1000000000000}",
        "training: {betas: [0.9]}",
        "training: {steps: 1e400}",
        "training: {mixture: {generation: .nan}}",
        "training: {mixture: 7}",
        "training: {2001-99-99: 1}",
        "training: 2001-99-99",
        "1: 2",
        "? [a, b]\n: 2",
        "training: {trains: " + "x" * 100_000 + "}",
        "- a list",
        "just a text",
        "data: {cache: [1, 2]}",
        "run: {trackers: [os.system]}",
        "adapter: {rank: 0}",
    ],
)
def test_a_hostile_settings_file_is_refused_at_once(text, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=r".") as caught:
        config.changed(config.of_stage(1), config.read(tmp_path / "s.yaml"))
    assert len(str(caught.value)) < 1500 and not Path("went_off").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -(10**30), "x", [[]], {"a": {}}])
def test_no_number_of_a_stage_takes_what_is_none(value):
    numbers = [f.name for f in fields(STAGES["1"]) if f.type in ("int", "float")]
    for name in numbers:
        with pytest.raises(ValueError):
            config.changed(config.of_stage(1), {f"training.{name}": value})


# What a checkpoint says of itself


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 10**9},
        {"hidden": 0},
        {"blocks": "6"},
        {"blocks": 10**6},
        {"steps": math.nan},
        {"vision_lr": [[1]]},
        {"latent_channels": 2.5},
        {"seed": None},
        {"nothing": 1},
        {"density_mean": -(10**6)},
    ],
    ids=str,
)
def test_an_absurd_recipe_in_a_checkpoint_is_refused(change):
    honest = json.loads(RECIPES["scenes-smoke"].to_json())
    assert Recipe.from_json(json.dumps(honest)) == RECIPES["scenes-smoke"]
    with pytest.raises(ValueError):
        Recipe.from_json(json.dumps(honest | change))


@pytest.mark.parametrize(
    "meta",
    [
        {"settings": DEEP.decode()},
        {"settings": "[]"},
        {"settings": '{"training": NaN}'},
        {"sharded": '["a"]'},
        {"sharded": "7"},
        {"sharded": DEEP.decode()},
    ],
    ids=lambda meta: str(meta)[:30],
)
def test_what_a_checkpoint_says_of_itself_is_not_believed(meta, tmp_path):
    from janusflow.utils import digests

    tensors = {"b": torch.zeros(2)}
    honest = meta | {"sha256": digests.of_tensors(tensors)}
    (tmp_path / "step-00000001.safetensors").write_bytes(save(tensors, honest))
    with pytest.raises(ValueError), pytest.warns(match="") if "sharded" in meta else _quiet():
        checkpoints.settings_of(checkpoints.latest(tmp_path)[2])


def _quiet():
    from contextlib import nullcontext

    return nullcontext()


def test_shards_of_two_numbers_of_processes_are_told_apart(tmp_path):
    """Four processes were killed while they wrote a step that two had to write again."""
    x = {"a": torch.arange(4.0)}
    names = {"sharded": '["a"]'}
    for rank in range(3):
        checkpoints.write(
            checkpoints.path_of(tmp_path, 5, rank, 4), {"a": x["a"][rank:][:1]}, names
        )
    assert checkpoints.complete(tmp_path) == []
    for rank in range(2):
        part = {"a": x["a"][2 * rank :][:2]}
        checkpoints.write(checkpoints.path_of(tmp_path, 5, rank, 2), part, names)
    assert torch.equal(checkpoints.latest(tmp_path)[1]["a"], x["a"])


def test_what_cannot_be_read_does_not_push_out_what_can(tmp_path):
    for step in (1, 2, 3):
        checkpoints.write(checkpoints.path_of(tmp_path, step), {"a": torch.zeros(2)}, {})
    for step in (2, 3):
        checkpoints.path_of(tmp_path, step).write_bytes(b"damaged")
    checkpoints.clean(tmp_path, keep=1, now=1)  # a run that went on from step 1 has saved it anew
    with pytest.warns(UserWarning, match="trying the checkpoint before"):
        assert checkpoints.latest(tmp_path)[0] == 1


@pytest.mark.parametrize(
    "rule", ["cfg:nan", "cfg_rescale:" + "9" * 5000, "cfg:" + "1," * 9000, "\0"]
)
def test_a_hostile_rule_of_guidance_is_refused(rule):
    with pytest.raises(ValueError) as caught:
        read_guidance(rule)
    assert len(str(caught.value)) < 1500
