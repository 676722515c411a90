"""Nothing in a stranger's folder is run, obeyed or believed."""

import ast
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from checks.hostile import LIES, bomb, zipped
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.utils import images, limits, safe_io

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(p for part in ("janusflow", "samplers") for p in (ROOT / part).rglob("*.py"))


# Nothing is run


def test_no_source_can_run_what_a_file_says():
    for path in SOURCES:
        assert not list(runs_files(ast.parse(path.read_text(encoding="utf-8")))), path


def runs_files(tree: ast.AST):
    """Where code unpickles, evaluates, unpacks archives, or trusts code from the hub."""
    modules = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and {a.name for a in node.names} & modules:
            yield node.lineno, "imports a pickle"
        names = {a.name for a in node.names} if isinstance(node, ast.ImportFrom) else set()
        if names - {"UnpicklingError"} and node.module in modules:
            yield node.lineno, "imports a pickle"
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            if getattr(node.value, "value", True) is not False:
                yield node.lineno, node.arg
        if isinstance(node, ast.Call):
            yield from ((node.lineno, why) for why in dangers(node))


def dangers(call: ast.Call):
    name = ast.unparse(call.func)
    given = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
    if name in ("eval", "exec", "compile", "__import__", "os.system"):
        yield name
    if name == "torch.load" and given.get("weights_only") is not True:
        yield "torch.load without weights_only"
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        yield name
    if name.endswith(".extractall") and given.get("filter") != "data":
        yield "extractall without a filter"
    if given.get("shell") is True:
        yield "a shell"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f, Loader)",
        "eval(x)",
        "tar.extractall(out)",
        "np.load(f, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_search_for_dangers_finds_them(code):
    assert list(runs_files(ast.parse(code)))


PLACES = [
    "pytorch_model.bin",
    "model.safetensors",
    "model.ckpt",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "adapter_model.bin",
    "adapter_config.json",
    "model.safetensors.index.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.bin",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors.index.json",
]


@pytest.mark.parametrize("make", [bomb, zipped])
@pytest.mark.parametrize("place", PLACES)
def test_a_pickle_in_any_place_of_a_models_folder_does_not_go_off(
    place, make, tiny_folder, tmp_path
):
    folder, went_off = copied(tiny_folder, tmp_path), tmp_path / "went off"
    if place.endswith(".bin"):  # as if there were nothing else to read
        for path in (folder / place).parent.glob("*.safetensors"):
            path.unlink()
    (folder / place).write_bytes(make(went_off))
    try:
        JanusFlowPipeline.from_pretrained(folder)
    except (ValueError, OSError) as error:
        assert "\n\n" not in str(error)
    else:  # files that nobody reads
        assert place in ("model.ckpt", "generation_config.json", "adapter_model.bin")
    assert not went_off.exists()


def test_the_bombs_are_real(tmp_path):
    import pickle

    pickle.loads(bomb(tmp_path / "1"))
    (tmp_path / "x.bin").write_bytes(zipped(tmp_path / "2"))
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "1").exists() and (tmp_path / "2").exists()


@pytest.mark.parametrize("make", [bomb, zipped])
def test_a_pickle_in_any_other_file_that_is_read_does_not_go_off(make, tmp_path):
    import samplers
    from janusflow.training import checkpoints
    from samplers.search.pilot import PilotGrid

    went_off, path = tmp_path / "went off", tmp_path / "step-00000001.safetensors"
    path.write_bytes(make(went_off))
    readers = [samplers.learned, PilotGrid.load, images.read, safe_io.read_prompts]
    readers += [lambda _: checkpoints.latest(tmp_path), lambda p: safe_io.read_object(p)]
    for read in readers:
        with pytest.raises(ValueError):
            read(path)
    assert not went_off.exists()


# Nothing is obeyed


def copied(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "somebody/evil-kernel"},
        {"_attn_implementation": "somebody/evil-kernel"},
        {"_attn_implementation_internal": "somebody/evil-kernel"},
        {"experts_implementation": "somebody/evil-kernel"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"transformers_weights": "../other/model.safetensors"},
        {"fusion_config": {"module": "os"}},
        {"per_layer_config": {"0": {"hidden_size": 10**9}}},
        {"to_dict": "os.system"},
        {"vision": 7},
        {"__class__": "os"},
        {"sub_configs": {"language_config": "os"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("block", [None, "language_config"])
def test_a_configuration_cannot_name_code_files_or_methods(block, change, tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    if block:
        content = json.loads((folder / "config.json").read_text())
        change = {block: content[block] | change}
    edit(folder / "config.json", **change)
    if block and "vision" in change[block]:
        return  # no method of a language model's configuration
    with pytest.raises(ValueError, match="is not taken from a file"):
        JanusFlowModel.from_pretrained(folder)


def test_code_named_in_a_configuration_is_not_imported(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    (folder / "evil.py").write_text("open('imported', 'w')\nclass Model: pass\n")
    named = {"AutoModel": "evil.Model", "AutoConfig": "evil.Model", "AutoProcessor": "evil.Model"}
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        edit(folder / name, auto_map=named, custom_pipelines=named)
    edit(folder / "vae" / "config.json", auto_map=named)
    JanusFlowPipeline.from_pretrained(folder)
    assert "evil" not in sys.modules and not Path("imported").exists()


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors", ""]
)
def test_an_index_names_only_safetensors_of_its_own_folder(name, tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    shutil.move(folder / "model.safetensors", tmp_path / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": {"beg_of_und_embed": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="expected safetensors files of its folder"):
        JanusFlowModel.from_pretrained(folder)


def test_an_adapter_in_a_models_folder_is_refused(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    content = {"peft_type": "LORA", "base_model_name_or_path": "somebody/else"}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds an adapter"):
        JanusFlowModel.from_pretrained(folder)


# Nothing is believed


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("place", ["model", "vae/diffusion_pytorch_model"])
def test_a_lying_header_is_found_out(lie, place, tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    (folder / f"{place}.safetensors").write_bytes(LIES[lie])
    with pytest.raises(ValueError, match=r"damaged weight file|bear|hold|lacks") as caught:
        JanusFlowPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [0, -1, 1e9, 10**9, 10**30, 0.5, "2", True, None, [], {}])
@pytest.mark.parametrize(
    "key",
    [
        "language_config.num_hidden_layers",
        "language_config.hidden_size",
        "language_config.num_key_value_heads",
        "language_config.head_dim",
        "language_config.vocab_size",
        "language_config.rms_norm_eps",
        "vision_und_enc_config.params.image_size",
        "vision_und_enc_config.params.layers",
        "vision_gen_enc_config.params.norm_eps",
        "vision_gen_enc_config.params.stride",
        "vision_gen_dec_config.params.layers_in_middle",
    ],
)
def test_absurd_numbers_are_refused_before_memory_is_taken(key, number, tiny_folder):
    content = json.loads((tiny_folder / "config.json").read_text())
    *path, last = key.split(".")
    block = content
    for part in path:
        block = block[part]
    block[last] = number
    if (number is None and last in ("num_key_value_heads", "head_dim")) or (
        number == 0.5 and "eps" in last
    ):
        pytest.skip("a fine value")
    with pytest.raises(ValueError, match=r"expected|at most|multiple|divide|empty") as caught:
        JanusFlowConfig(**content)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_the_estimate_of_parameters_is_close(tiny_folder):
    manifest = json.loads(
        (ROOT / "tests/models/published/janusflow-1.3b-manifest.json").read_text()
    )
    assert JanusFlowConfig(**manifest["config"]).parameters == pytest.approx(
        2_046_367_504, rel=0.02
    )
    model = JanusFlowModel.from_pretrained(tiny_folder)
    true = sum(p.numel() for p in model.parameters())
    assert model.config.parameters == pytest.approx(true, rel=0.1)


def test_a_network_far_beyond_its_weights_is_refused(tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    content = json.loads((folder / "config.json").read_text())
    content["language_config"] |= {"num_hidden_layers": 400, "intermediate_size": 50_000}
    (folder / "config.json").write_text(json.dumps(content))
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"describes [\d,]+ parameters, its weight files hold"):
        JanusFlowModel.from_pretrained(folder)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    "change",
    [
        {"latent_channels": 10**9},
        {"latent_channels": -1},
        {"patch_size": 60_000},
        {"latent_channels": "16"},
        {"_class_name": "os.system"},
        {"_class_name": ["PatchAutoencoder"]},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"_class_name": "AutoencoderKL", "block_out_channels": [60_000] * 4},
        {"_class_name": "AutoencoderKL", "block_out_channels": [64], "layers_per_block": 10**6},
        {"_class_name": "AutoencoderKL", "down_block_types": ["os.system"]},
        {"_class_name": "AutoencoderKL", "norm_num_groups": 7},
    ],
    ids=str,
)
def test_an_absurd_autoencoder_is_refused(change, tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    edit(folder / "vae" / "config.json", **change)
    begun = time.perf_counter()
    with pytest.raises(ValueError) as caught:
        JanusFlowPipeline.from_pretrained(folder)
    assert time.perf_counter() - begun < 10 and "\n" not in str(caught.value)


# Limits


def test_every_limit_can_be_raised_and_lowered_by_its_variable(monkeypatch):
    for name, (value, unit) in limits.LIMITS.items():
        assert limits.most(name) == value > 0 and unit
        monkeypatch.setenv(f"JANUSFLOW_MAX_{name.upper()}", str(2 * value))
        assert limits.most(name) == 2 * value


def test_every_limit_is_in_the_documents_and_in_use():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    code = "".join(p.read_text(encoding="utf-8") for p in SOURCES if p.name != "limits.py")
    for name, (value, unit) in limits.LIMITS.items():
        assert f"| {name.upper()} | {value:,} | {unit} |" in page
        assert f'"{name}"' in code


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "lots", "9" * 40, "٣"])
def test_a_limit_that_is_no_number_is_named(monkeypatch, text):
    monkeypatch.setenv("JANUSFLOW_MAX_PROMPT", text)
    with pytest.raises(ValueError, match="JANUSFLOW_MAX_PROMPT is"):
        limits.most("prompt")


def test_a_raised_limit_lets_a_longer_prompt_in(tmp_path, monkeypatch):
    path = tmp_path / "p.txt"
    path.write_text("x" * 5000)
    with pytest.raises(ValueError, match="more than 4000 characters"):
        safe_io.read_prompts(path)
    monkeypatch.setenv("JANUSFLOW_MAX_PROMPT", "6000")
    assert safe_io.read_prompts(path) == ["x" * 5000]


# Weights that are not there, or no such numbers


def reindexed(folder: Path, weight_map: dict) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no .safetensors file"),
        (lambda f: reindexed(f, {"a": "model-9.safetensors"}), "lacks model-9.safetensors, which"),
        (lambda f: reindexed(f, {}), "no weight_map"),
        (lambda f: edit(f / "config.json", dtype=[1, 2]), "expected a name such as"),
        (lambda f: edit(f / "config.json", dtype="save"), "expected a name such as"),
    ],
    ids=["no file", "a file too few", "an empty index", "a dtype that is none", "another name"],
)
def test_weights_that_are_not_there_are_told_in_a_sentence(change, match, tiny_folder, tmp_path):
    folder = copied(tiny_folder, tmp_path)
    change(folder)
    with pytest.raises(ValueError, match=match) as caught:
        JanusFlowPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["model", "vae/diffusion_pytorch_model"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_not_rounded(
    dtype, place, tiny_folder, tmp_path
):
    path = copied(tiny_folder, tmp_path) / f"{place}.safetensors"
    tensors = load_file(path)
    name = min(tensors)
    save_file(tensors | {name: tensors[name].to(dtype)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"^{name} in .* expected floating-point numbers"):
        JanusFlowPipeline.from_pretrained(tmp_path / "model")


def test_an_autoencoder_that_lacks_a_tensor_is_not_filled_with_noise(tiny_folder, tmp_path):
    path = copied(tiny_folder, tmp_path) / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.Weight"] = tensors.pop("decoder.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 'decoder\.weight'"):
        JanusFlowPipeline.from_pretrained(tmp_path / "model")
