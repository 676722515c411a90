"""What people's hands expect of a command line: names, places, hints, and a clean terminal."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from janusflow.cli import terminal
from janusflow.cli.commands import bench
from janusflow.cli.commands.generate import warn_of_a_file
from janusflow.cli.old_names import ALSO, OLD, renamed
from janusflow.cli.save_images import check_seed, output
from janusflow.cli.terminal import warn_of_loose_words
from janusflow.pipelines import image_io
from janusflow.utils import devices, images

PLUGIN = """
import samplers
from itertools import pairwise

@samplers.solver(order=1, calls=1)
def my_euler(v, x, ts):
    for t, s in pairwise(ts):
        x = x + (s - t) * v(x, t)
        yield x
"""


def test_a_solver_of_ones_own_generates_by_its_name(janusflow, tiny_folder, tmp_path, monkeypatch):
    import samplers

    monkeypatch.setattr(samplers.solver_registry, "SOLVERS", samplers.SOLVERS)
    (tmp_path / "mine.py").write_text(PLUGIN)
    words = ["--steps", 1, "--model", tiny_folder, "-o", tmp_path / "a.png"]
    plugin = ["--plugin", tmp_path / "mine.py", "--sampler", "my_euler"]
    try:
        assert janusflow("generate", "a star", *words, *plugin)[0] == 0
        assert Image.open(tmp_path / "a.png").text["sampler"] == "my_euler"
    finally:
        samplers.SOLVERS.pop("my_euler", None)
        sys.modules.pop("mine", None)


def test_a_dash_reads_prompts_and_questions_from_standard_input(tiny_folder, tmp_path):
    def typed(*words, lines):
        command = [sys.executable, "-m", "janusflow", *map(str, words)]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    model = ("--model", tiny_folder, "--device", "cpu")
    code, out, err = typed("generate", "-", *model, "--steps", 1, "-o", "o/", lines="red\nblue\n")
    assert code == 0 and out.count("\n") == 2, err
    assert [Image.open(tmp_path / f"o/0000{i}.png").text["prompt"] for i in (0, 1)] == [
        "red",
        "blue",
    ]
    short = ("--max-new-tokens", 2)
    assert typed("chat", "o/00000.png", "-", *model, *short, lines="a?\n")[0] == 0
    code, out, err = typed("generate", "--prompts", "-", *model, lines="")
    assert (code, out) == (2, "") and "/dev/stdin holds no prompts" in err


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["generate", "-h"], ["bench", "-h"]])
def test_version_and_help_end_well(words, janusflow):
    code, out, err = janusflow(*words)
    assert code == 0 and out and err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generat", "x"], "Did you mean 'generate'?"),
        (["generate", "x", "--samplr", "abm"], "did you mean --sampler?"),
        (["evaluate", "--best-of", "0"], "best_of is 0; expected a whole number of at least 1"),
        (["evaluate", "--verifier", "caption"], "there is one; give --best-of above 1"),
        (["generate", "x", "--verifier", "captoin", "--best-of", "2"], "did you mean 'caption'"),
        (
            ["generate", "x", "--guidance-scale", "guidance_intervl:4"],
            "did you mean 'guidance_interval'?",
        ),
        (["generate", "x", "--dtype", "bflaot16"], "did you mean 'bfloat16'?"),
        (["generate", "x", "--sampler", "EULER"], "did you mean 'euler'?"),
        (["generate", "x", "--dtype", "BF16"], "did you mean 'bfloat16'?"),
        (["generate", "x", "--seed", 2**63], f"expected 0 to {2**63 - 1}"),
        (["generate", "x", "-o", ""], "--out is empty"),
        (["generate", "x", "-o", "a.gif"], "ends in .png, .jpg, .jpeg, .webp"),
        (["edit", "a.png", "x", "-o", " "], "--out is empty"),
        (["bench", "samplers", "--nfe", "99999999999"], "at most 100000"),
        (["bench", "samplers", "--nfe", "9" * 5000], "at most 100000"),
        (["train", "--out", "", "--recipe", "scenes-smoke"], "name a file or a folder"),
        (["samplers", "--plugin", "no_such_module"], "neither a module"),
    ],
    ids=lambda value: " ".join(map(str, value))[:50] if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_sentence_with_what_was_meant(
    words, said, janusflow, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = janusflow(*words)
    assert code == 2 and said in err and err.count("\n") == 1 and len(err) < 400


@pytest.mark.parametrize("out", ["00000.png", ".", "link.png", "mask.png"])
def test_an_edit_does_not_replace_the_image_or_mask_that_it_reads(
    out, janusflow, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("00000.png", "mask.png"):
        Image.new("RGB", (96, 96), "white").save(name)
    Path("link.png").symlink_to("00000.png")
    words = ["edit", "00000.png", "a star", "--mask-image", "mask.png", "-o", out]
    code, _, err = janusflow(*words)
    assert code == 2 and "--out would replace" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pilot", "--out", "config.json"], "exists and holds no time grid"),
        (["bench", "samplers", "--plot", "a.gif"], "--plot is 'a.gif'; expected a file that ends"),
        (["bench", "samplers", "--csv", "."], "is not a file that can be replaced"),
        (["serve", "--allow-host", "*"], "the allowed host is '*'; expected one name"),
        (["serve", "--allow-origin", "example.org"], "the allowed origin is 'example.org'"),
        (["demo", "--host", "999.1.1.1"], "999.1.1.1:0 cannot be listened at"),
        (["demo", "--host", "x" * 300], "cannot be listened at"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused_before_the_work(
    words, said, janusflow, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text('{"model_type": "multi_modality"}')
    code, _, err = janusflow(*words)
    assert code == 2 and said in err and err.count("\n") == 1
    assert Path("config.json").read_text() == '{"model_type": "multi_modality"}'


def test_a_mask_with_a_transparent_hole_is_refused_as_in_python(janusflow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 96)).save("a.png")
    mask = Image.new("RGBA", (96, 96), "white")
    mask.paste((255, 255, 255, 0), (0, 0, 48, 96))
    mask.save("mask.png")
    code, _, err = janusflow("edit", "a.png", "a star", "--mask-image", "mask.png")
    assert code == 2 and "the mask is transparent in places" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["samplers", "grids", "rules", "models"])
def test_names_are_listed_within_80_columns(command, janusflow):
    code, out, _ = janusflow(command)
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert json.loads(janusflow(command, "--json")[1])[command]


def test_a_listed_description_is_a_complete_sentence(janusflow):
    found = json.loads(janusflow("samplers", "--json")[1])["samplers"]
    cut = [name for name, row in found.items() if re.search(r" (eq|Alg|al)$", row["about"])]
    assert not cut and "Alg. 1" in found["heun"]["about"]


def test_old_options_still_work_and_name_the_new_ones(capsys):
    known = {*OLD.values(), *ALSO.values(), "--calls"}
    given = ["--guidance", "3", "--count=2", "--calls", "8", "--", "--negative"]
    assert renamed(given, known) == ["--guidance-scale", "3", "--num-images=2", *given[3:]]
    err = capsys.readouterr().err
    assert "--guidance is now --guidance-scale" in err and err.count("\n") == 2
    assert renamed(["--num-inference-steps", "3"], known) == ["--steps", "3"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["samplers"]),
        (["--speed", "--seed", "3"], ["speed", "--seed", "3"]),
        (["--model", "janusflow/scenes-pro"], ["transformers", "--model", "janusflow/scenes-pro"]),
        (["speed"], ["speed"]),
        (["-h"], ["-h"]),
    ],
)
def test_bench_without_a_command_does_what_it_did(given, meant):
    assert bench._chosen(given) == meant


@pytest.mark.parametrize(
    ("texts", "warned"),
    [
        (["a", "red", "circle"], True),
        (["a red circle", "two stars"], False),
        (["star"], False),
        ([], False),
    ],
)
def test_words_without_quotes_are_noticed(texts, warned, capsys):
    warn_of_loose_words(texts, "prompts", "janusflow generate")
    assert ("in quotes" in capsys.readouterr().err) == warned


def test_questions_without_quotes_are_noticed_and_urls_are_no_files(janusflow):
    code, _, err = janusflow("chat", "https://example.org/a.png", "what", "is", "it")
    assert code == 2 and "3 questions of one word each" in err
    assert "URLs are not downloaded, so save the image and give its file" in err


def test_a_new_folder_is_made_once_it_is_filled(tmp_path):
    place = output(f"{tmp_path}/a/b/")
    assert place.folder and not (tmp_path / "a").exists()
    told = place.write([Image.new("RGB", (4, 4))] * 2, [{"prompt": "x"}] * 2)
    assert [path.name for path in told["files"]] == ["00000.png", "00001.png"]


@pytest.mark.parametrize("ending", image_io.FORMATS)
def test_every_format_keeps_the_story(ending, tmp_path):
    note = {"prompt": "a “red” circle\nand 円", "seed": 3}
    path = image_io.save(Image.new("RGB", (8, 8), "red"), note, tmp_path / f"a{ending}")
    told = image_io.story(Image.open(path))
    assert {"prompt": note["prompt"], "seed": "3"}.items() <= told.items()
    huge = {f"key{i}": "x" * 20_000 for i in range(8)}
    image_io.save(Image.new("RGB", (8, 8)), huge, path)
    assert image_io.story(Image.open(path))["key7"].startswith("xxx")


def test_an_image_of_another_origin_has_no_story(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0hello"
    for name, more in (("a.jpg", {}), ("b.jpg", {"exif": exif.tobytes()})):
        Image.new("RGB", (8, 8)).save(tmp_path / name, **more)
        assert image_io.story(Image.open(tmp_path / name)) == {}


def test_links_stay_and_what_is_read_only_is_refused(tmp_path):
    target, link, locked = (tmp_path / name for name in ("t.png", "link.png", "locked.png"))
    target.write_bytes(b"old")
    link.symlink_to(target)
    output(str(link)).write([Image.new("RGB", (4, 4))], [{}])
    assert link.is_symlink() and Image.open(target).size == (4, 4)
    locked.write_bytes(b"old")
    locked.chmod(0o444)
    with pytest.raises(ValueError, match="read-only"):
        output(str(locked))
    (tmp_path / "folder.png").mkdir()
    assert output(str(tmp_path / "folder.png")).folder


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (2**63, 1), (2**63 - 1, 2)])
def test_seeds_are_those_that_torch_takes(first, count):
    with pytest.raises(ValueError, match="--seed is"):
        check_seed(first, count)
    check_seed(2**63 - 1)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")]
)
def test_short_names_of_formats_are_known(name, dtype):
    import torch

    assert devices.pick_dtype(name, torch.device("cpu")) == getattr(torch, dtype)


def test_a_card_without_bfloat16_gets_float16(monkeypatch):
    import torch

    class There:
        def __init__(self, *_):
            pass

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(torch.cuda, "device", There)
    for native, dtype in ((False, torch.float16), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda native=native, **_: native)
        assert devices.pick_dtype("auto", torch.device("cuda")) == dtype


class Latin(io.StringIO):
    encoding = "latin-1"


def test_escape_sequences_do_not_reach_the_terminal():
    stream = io.StringIO()
    plain = terminal.Plain(stream, longest=2000)
    print("a\x1b[2Jb\x9b31m \u202ec 円", file=plain)
    assert stream.getvalue() == "a\\x1b[2Jb\\x9b31m \\u202ec 円\n"
    print("x" * 10**6, file=plain)
    assert len(stream.getvalue()) < 400
    plain.write("\r\x1b[A")  # a progress bar's own
    assert stream.getvalue().endswith("\r\x1b[A")
    latin = Latin()
    print("円 \ud800 é", file=terminal.Plain(latin))
    assert latin.getvalue() == "\\u5186 \\ud800 é\n"


@pytest.mark.slow
def test_json_is_whole_on_a_terminal_without_its_letters(tmp_path):
    code = "from janusflow.cli.command import write; write({'prompt': '円', 'x': float('nan')})"
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": root}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, cwd=tmp_path)
    assert json.loads(run.stdout.decode("latin-1")) == {"prompt": "円", "x": None}


def test_warnings_are_one_line_without_their_source(janusflow, tiny_folder, tmp_path):
    words = ["x", "--steps", 1, "--height", 64, "--width", 64, "-o", tmp_path / "a.png"]
    code, _, err = janusflow("generate", *words, "--model", tiny_folder)
    assert code == 0 and err.startswith("janusflow: warning: the model was trained for 96 x 96")
    assert err.count("\n") == 1


def test_a_folder_of_other_weights_is_generated_anew(janusflow, tiny_folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    model, out = tmp_path / "m", tmp_path / "o"
    shutil.copytree(tiny_folder, model)
    words = ["generate", "a star", "--steps", 1, "--model", model, "-o", f"{out}/"]
    assert janusflow(*words)[0] == 0
    first = (out / "00000.png").read_bytes()
    assert janusflow(*words)[0] == 0 and (out / "00000.png").read_bytes() == first
    tensors = load_file(model / "model.safetensors")
    tensors["vision_gen_dec_aligner.weight"] *= 2
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    assert janusflow(*words)[0] == 0 and (out / "00000.png").read_bytes() != first
    before = (out / "00000.png").read_bytes()
    assert janusflow(*words, "--vae", model / "vae")[0] == 0
    assert (out / "00000.png").read_bytes() != before  # its story names the autoencoder


def test_an_answer_that_is_cut_says_so(janusflow, tiny_folder, tmp_path):
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "p.png")
    words = ["chat", tmp_path / "p.png", "how many shapes are there?", "--model", tiny_folder]
    code, _, err = janusflow(*words, "--max-new-tokens", 1)
    assert code == 0 and "cut after 1 tokens" in err and err.count("\n") == 1


def test_generating_without_an_autoencoder_is_refused_and_chat_needs_none(
    janusflow, tiny_folder, tmp_path
):
    import shutil

    model = shutil.copytree(tiny_folder, tmp_path / "m")
    shutil.rmtree(model / "vae")
    code, _, err = janusflow("generate", "x", "--model", model, "-o", tmp_path / "a.png")
    assert code == 2 and "autoencoder" in err and err.count("\n") == 1
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "p.png")
    words = ["chat", tmp_path / "p.png", "what?", "--model", model, "--max-new-tokens", 4]
    assert janusflow(*words)[0] == 0


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), None]
)
def test_a_full_memory_is_one_sentence(error):
    import torch

    from janusflow.cli.command import advice

    assert "memory is full" in advice(error or torch.OutOfMemoryError("CUDA out of memory"))
    assert advice(RuntimeError("of a developer")) is None


def test_a_prompt_that_is_a_file_s_name_is_warned_of(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    warn_of_a_file(["p.txt", "a red circle"])
    assert capsys.readouterr().err == ""
    (tmp_path / "p.txt").write_text("a red circle")
    warn_of_a_file(["p.txt"])
    assert "'p.txt' is the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["data:image/png;base64,AA", "file:///a.png", "http://a/b.png"])
def test_an_address_is_no_image_and_no_mask(given):
    for read in (images.read, images.read_mask):
        for path in (given, Path(given)):
            with pytest.raises(ValueError, match="URLs are not downloaded"):
                read(path)
