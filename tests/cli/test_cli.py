"""The command line, as a person meets it."""

import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file


def test_help_answers_at_once_and_names_the_commands():
    command = [sys.executable, "-X", "importtime", "-m", "janusflow", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in result.stdout for name in ("generate", "chat", "info"))
    heavy = {"torch", "transformers", "diffusers", "numpy"}
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert not heavy & imported


KEYS = ("prompt", "seed", "sampler", "num_inference_steps", "guidance_scale", "calls")


def test_an_image_tells_how_it_was_generated(janusflow, tiny_folder, tmp_path):
    out = tmp_path / "a.png"
    words = ["a red circle", "-o", out, "--model", tiny_folder, "--steps", 2, "--seed", 7]
    code, shown, err = janusflow("generate", *words, "--device", "cpu")
    assert (code, shown.strip(), err) == (0, str(out), "")
    image = Image.open(out)
    assert image.size == (96, 96)
    told = {k: image.text[k] for k in KEYS}
    assert told == dict(
        prompt="a red circle",
        seed="7",
        sampler="euler",
        num_inference_steps="2",
        guidance_scale="2",
        calls="4",
    )


def test_several_pictures_make_a_grid_or_fill_a_folder_and_batches_change_nothing(
    janusflow, tiny_folder, tmp_path
):
    file = tmp_path / "prompts.txt"
    file.write_text("a star\n\na pink ring\n", encoding="utf-8")
    common = ["--prompts", file, "--num-images", 2, "--model", tiny_folder, "--steps", 1]
    assert janusflow("generate", *common, "-o", tmp_path / "grid.png")[0] == 0
    assert Image.open(tmp_path / "grid.png").size == (196, 196)
    many, few = tmp_path / "many", tmp_path / "few"
    for folder, batch in ((many, 16), (few, 1)):
        folder.mkdir()
        assert janusflow("generate", *common, "-o", folder, "--batch-size", batch)[0] == 0
        assert len(list(folder.glob("*.png"))) == 4
    for a, b in zip(sorted(many.iterdir()), sorted(few.iterdir()), strict=True):
        pixels = zip(Image.open(a).tobytes(), Image.open(b).tobytes(), strict=True)
        assert max(abs(x - y) for x, y in pixels) <= 1


def test_chat_prints_an_answer(janusflow, tiny_folder, tmp_path):
    Image.new("RGB", (50, 40), "blue").save(tmp_path / "p.png")
    words = [tmp_path / "p.png", "how many shapes are there?", "--max-new-tokens", 3]
    code, _, err = janusflow("chat", *words, "--model", tiny_folder)
    assert code == 0 and "cut after 3 tokens" in err


def test_info_counts_parameters_by_part_within_80_columns(janusflow, tiny_folder):
    code, out, _ = janusflow("info", tiny_folder)
    assert code == 0 and all(len(line) <= 80 for line in out.splitlines()[1:])
    total = sum(v.numel() for v in load_file(tiny_folder / "model.safetensors").values())
    assert f"{total:,}" in out and "language model" in out


def picture(tmp_path):
    path = tmp_path / "p.png"
    Image.radial_gradient("L").save(path)
    return path


BAD = {
    "unknown model": (["generate", "x", "--model", "nobody/nothing"], "nobody/nothing"),
    "no such folder": (["generate", "x", "--model", "./not here"], "not here"),
    "unknown sampler": (
        ["generate", "x", "--sampler", "runge"],
        "no solver named 'runge'; choose one of",
    ),
    "unknown grid": (["generate", "x", "--grid", "spiral"], "no grid named 'spiral'"),
    "unknown device": (["generate", "x", "--device", "abacus"], "no device 'abacus'"),
    "meta device": (["generate", "x", "--device", "meta"], "holds no numbers"),
    "unknown dtype": (["generate", "x", "--dtype", "int3"], "no dtype named 'int3'"),
    "no prompt": (["generate"], "prompt is missing"),
    "empty prompt": (["generate", " "], "missing or empty"),
    "negative steps": (["generate", "x", "--steps", "-4"], "--steps is -4"),
    "steps that are no number": (["generate", "x", "--steps", "many"], "valid integer"),
    "guidance that is no number": (["generate", "x", "--guidance-scale", "strong"], "'strong'"),
    "guidance that is NaN": (["generate", "x", "--guidance-scale", "nan"], "finite"),
    "infinite guidance": (["generate", "x", "--guidance-scale", "inf"], "finite"),
    "odd size": (["generate", "x", "--height", "90"], "multiples of 16"),
    "negative size": (["generate", "x", "--height", "-96"], "--height is -96"),
    "negative seed": (["generate", "x", "--seed", "-1"], "--seed is -1"),
    "steps beyond memory": (["generate", "x", "--steps", "99999999999"], "at most 100000"),
    "images beyond memory": (["generate", "x", "--width", "160000"], "at most 8192"),
    "count beyond memory": (["generate", "x", "--num-images", "9999999999"], "at most 100000"),
    "endless prompt": (["generate", "x" * 5000], "more than 4000 characters"),
    "NUL in a prompt": (["generate", "a\0b"], "holds a NUL"),
    "zero count": (["generate", "x", "--num-images", "0"], "--num-images is 0"),
    "no such folder for out": (["generate", "x", "-o", "{tmp}/no/a.png"], "does not exist"),
    "no image's name": (["generate", "x", "-o", "{tmp}/a.txt"], "ends in .png, .jpg"),
    "missing prompt file": (["generate", "--prompts", "{tmp}/no.txt"], "cannot be opened"),
    "missing image": (["chat", "{tmp}/no.png", "what?"], "cannot be opened"),
    "folder as image": (["chat", "{tmp}", "what?"], "cannot be opened"),
    "empty question": (["chat", "{tmp}/p.png", " "], "question is empty"),
    "unknown option": (["generate", "x", "--fast"], "--fast"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_one_sentence_and_code_2(case, janusflow, tiny_folder, tmp_path):
    picture(tmp_path)
    words, message = BAD[case]
    words = [word.format(tmp=tmp_path) for word in words]
    if words[0] != "info" and "--model" not in words:
        words += ["--model", tiny_folder]
    if words[0] == "generate" and "-o" not in words:
        words += ["-o", tmp_path / "out.png"]
    before = sorted(tmp_path.iterdir())
    code, out, err = janusflow(*words)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"no image", "cut", b"a\x00b"])
def test_a_broken_picture_is_named(content, janusflow, tiny_folder, tmp_path):
    path = picture(tmp_path)
    path.write_bytes(path.read_bytes()[:200] if content == "cut" else content)
    code, _, err = janusflow("chat", path, "what?", "--model", tiny_folder)
    assert code == 2 and "not a complete image" in err and err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00", b"a\x00b", b"x" * 5000])
def test_a_broken_prompt_file_is_named(content, janusflow, tiny_folder, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    words = ["--prompts", path, "-o", tmp_path / "o.png", "--model", tiny_folder]
    code, _, err = janusflow("generate", *words)
    assert code == 2 and str(path) in err and err.count("\n") == 1


def _drop(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["beg_of_und_embed"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


DAMAGE = {
    "lacks 1 tensors": _drop,
    "model.safetensors": lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64),
    "truncated": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:5000]
    ),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "config.json": lambda f: (f / "config.json").write_text("{"),
    "tokenizer.json": lambda f: (f / "tokenizer.json").unlink(),
    "vae": lambda f: (f / "vae" / "config.json").unlink(),
    "vae weights": lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_gets_one_sentence(case, janusflow, tiny_folder, tmp_path):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "m")
    DAMAGE[case](tmp_path / "m")
    out = tmp_path / "o.png"
    code, _, err = janusflow("generate", "x", "--model", tmp_path / "m", "-o", out)
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_is_named(janusflow, tiny_folder, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    words = ["a star", "--steps", 1, "--model", tiny_folder, "-o", tmp_path / "a.png"]
    code, _, err = janusflow("generate", *words)
    assert code == 2 and "cannot be written (No space left on device)" in err
    assert not list(tmp_path.iterdir())


def test_training_without_its_extra_says_what_to_install(janusflow, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for name in [name for name in sys.modules if name.startswith("janusflow.training")]:
        monkeypatch.delitem(sys.modules, name)
    words = ["train", "--recipe", "scenes-smoke", "--out", tmp_path]
    assert "pip install 'janusflow[train]'" in janusflow(*words)[2]


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_threads_that_no_machine_has_are_refused_before_openmp_ends_the_process(
    janusflow, tmp_path, count
):
    code, _, said = janusflow("train", "--recipe", "x", "--out", tmp_path, "--threads", count)
    assert (code == 2 and "threads is" in said and "of at least 1" in said) or "at most" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["generate", "a star", "--negative-prompt", "x" * 5000],
            "--negative-prompt has more than 4000 characters",
        ),
        (["generate", "a star", "--steps", 1, "--height", 0], "--height is 0"),
        (
            ["generate", "a star", "--model", "x" * 5000],
            "is neither a folder nor the form of a hub",
        ),
        (["chat", "none.png", "what?", "--max-new-tokens", 0], "whole number of at least 1"),
        (["chat", "none.png", "what?", "--max-new-tokens", 10**9], "JANUSFLOW_MAX_NUMBER"),
        (["generate", "x", "--lora", ""], "--lora is empty"),
        (["generate", "x", "--quality", " "], "--quality is empty"),
        (["generate", "x", "--model", ""], "--model is empty"),
        (["info", ""], "--model is empty"),
        (["generate", "x", "-o", "n" * 300 + ".png"], "the file system refuses this name"),
        (["generate", "x", "--grid", "1 0.5 0"], "the grid runs from 1 to 0"),
        (["generate", "x", "--sampler", "eulr"], "did you mean 'euler'"),
        (
            ["edit", "none.png", "a star", "--negative-prompt", "a\0b"],
            "--negative-prompt holds a NUL",
        ),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, list) else None,
)
def test_what_a_stranger_wrote_wrong_is_one_short_sentence(
    janusflow, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    code, _, err = janusflow(*words)
    line = err.strip().splitlines()[-1]
    assert code == 2 and said in line and line.startswith("janusflow: ") and len(line) < 500
    assert not list(tmp_path.iterdir())


def test_a_pilots_grid_lies_beside_the_weights_and_its_quality_uses_it(
    janusflow, tiny_folder, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    few = ["--samples", 3, "--max-trials", 3, "--device", "cpu"]
    code, shown, _ = janusflow("pilot", "--model", folder, "--quality", "draft", *few)
    assert code == 0 and "pilot-draft.json" in shown
    common = ["a star", "--model", folder, "--quality", "draft", "-o", tmp_path / "a.png"]
    assert janusflow("generate", *common)[0] == 0
    placed = json.loads((folder / "pilot-draft.json").read_text())["times"]
    told = Image.open(tmp_path / "a.png").text["grid"].split()
    assert [float(t) for t in told] == pytest.approx(placed)
    assert janusflow("generate", *common, "--grid", "cosine")[0] == 0
    assert Image.open(tmp_path / "a.png").text["grid"] == "cosine"


@pytest.mark.parametrize(
    "words, said",
    [
        (["--quality", "best"], "no quality named 'best'"),
        (["--samples", 1], "--samples is 1; expected 3 to"),
        (["-o", "grid.txt"], "expected a file that ends in .json"),
        ([], "name a .json file by --out"),
        (["--model", "janusflow/scenes-pro"], "of a flow, and Janus-Pro has no flow"),
    ],
)
def test_a_pilot_that_cannot_fly_says_so_before_it_loads_a_model(janusflow, words, said):
    code, _, err = janusflow("pilot", *words)
    assert code == 2 and said in err and err.count("\n") == 1
