"""Adapters: what is trained, what is written, and that a stranger's folder does no harm."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from smoke_runs import same

from janusflow import JanusFlowPipeline
from janusflow.cli import load_model
from janusflow.cli.shared_options import AdapterOptions
from janusflow.models import lora
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import checkpoints, job, loop
from janusflow.training import config as settings
from janusflow.training.config_stages import PARTS
from janusflow.training.ema import trained

peft = pytest.importorskip("peft")
SMALL = {"adapter.rank": 3, "adapter.alpha": 5, "training.lr": 0.05, "run.save_every": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    job.of_recipe("scenes-smoke", out, SMALL).run()
    return out


@pytest.fixture(scope="module")
def folder(run):
    loop.export(run, run / "adapter")
    return run / "adapter"


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def pipe(run):
    found = JanusFlowPipeline.from_pretrained(run / "base")
    found.set_progress_bar_config(disable=True)
    return found


def latents(pipe) -> torch.Tensor:
    seed = torch.Generator().manual_seed(0)
    out = pipe("a red circle", num_inference_steps=2, output_type="latent", generator=seed)
    return out.images


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# In training


@pytest.mark.parametrize("part", ["language_model", "vision_encoder", "generation", "linear"])
def test_only_the_adapters_of_the_parts_learn_and_each_gets_a_gradient(run, part):
    changes = {"training.trainable": part, "adapter.rank": 2, "alignment": "none"}
    plan = job.of_recipe("scenes-smoke", run, changes)
    engine = plan.trainer()
    model = engine.objective.model
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    learns = dict(trained(engine.module))
    prefixes = PARTS[part]
    assert learns and all(".lora_" in n and n[6:].startswith(prefixes) for n in learns)
    assert not any("lm_head" in n or "attn_pool" in n for n in learns)
    with torch.no_grad():  # what starts at zero hides what is before it
        for name, parameter in model.named_parameters():
            if not parameter.any() and "attn_pool" not in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    engine.gradients(0)
    assert all(p.grad.any() for p in learns.values())
    engine.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    for _ in range(2):
        engine.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert {f"model.{name}" for name in moved} == learns.keys()


def test_a_fresh_adapter_changes_nothing(run):
    plan = job.of_recipe("scenes-smoke", run, {"adapter.rank": 2})
    bare = job.of_recipe("scenes-smoke", run)
    losses = [p.trainer().step()["loss"] for p in (plan, bare)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_checkpoint_holds_what_learns_alone(run):
    found = checkpoints.latest(run)[1]
    stem = [n.removeprefix("ema.").removeprefix("optimizer.") for n in found]
    assert all(".lora_" in n or n.startswith("projector.") for n in stem)


def test_a_run_cut_off_and_taken_up_ends_in_the_same_bits(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    checkpoints.path_of(tmp_path / "run", 8).unlink()
    assert job.of_recipe("scenes-smoke", tmp_path / "run", SMALL).run().finished
    assert same(checkpoints.read(tmp_path / "run", 8)[0], checkpoints.read(run, 8)[0])


def test_modules_choose_the_layers(run):
    changes = {"adapter.rank": 2, "adapter.modules": "q_proj,v_proj"}
    engine = job.of_recipe("scenes-smoke", run, changes).trainer()
    own = [n for n, _ in trained(engine.module) if n.startswith("model.")]
    assert len(own) == 2 * 2 * 4 and all("q_proj" in n or "v_proj" in n for n in own)
    with pytest.raises(ValueError, match="gate_proj"):
        job.of_recipe("scenes-smoke", run, {"adapter.modules": "to_q"}).trainer()


def test_the_settings_of_an_adapter_survive_their_file(tmp_path):
    ours = settings.changed(settings.of_stage(3), settings.parse(["adapter.rank=4"]))
    (tmp_path / "settings.yaml").write_text(settings.dump(ours), encoding="utf-8")
    assert settings.load(tmp_path / "settings.yaml") == ours
    assert settings.changed(ours, {"adapter": "none"}).adapter is None
    for item, says in (("adapter.rank=0", "at least"), ("adapter.size=1", r"adapter\.alpha")):
        with pytest.raises(ValueError, match=says):
            settings.changed(ours, settings.parse([item]))


# In a pipeline


def test_what_was_trained_is_what_the_pipeline_computes(run, folder, pipe):
    """The averaged weights by hand, W + alpha / rank B A, against the loaded adapter."""
    tensors = load_file(folder / lora.WEIGHTS)
    averages = checkpoints.latest(run)[1]
    by_hand = JanusFlowModel.from_pretrained(run / "base").state_dict()
    for key, b in tensors.items():
        if ".lora_B." in key:
            layer = key.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
            a = tensors[key.replace("lora_B", "lora_A")]
            assert torch.equal(averages[f"ema.model.{layer}.lora_B.default.weight"], b)
            weight = by_hand[f"{layer}.weight"]
            weight += 5 / 3 * (b.flatten(1) @ a.flatten(1)).view(weight.shape)
    bare = latents(pipe)
    pipe.load_lora_weights(folder)
    adapted = latents(pipe)
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), bare)
    pipe.model.load_state_dict(by_hand)
    assert far(adapted, latents(pipe)) < 1e-5
    assert far(adapted, bare) > 1e-3


def test_named_adapters_are_fused_with_the_weights_that_they_have(folder, pipe):
    pipe.load_lora_weights(folder, adapter_name="mine")
    pipe.set_adapters("mine", 0.5)
    half = latents(pipe)
    with pytest.raises(ValueError, match=r"'mine' is loaded already; .*delete_adapters\('mine'\)"):
        pipe.load_lora_weights(folder, adapter_name="mine")
    pipe.load_lora_weights(folder, adapter_name="other")
    pipe.fuse_lora(adapter_names="mine")
    assert far(latents(pipe), half) < 1e-5 and pipe.get_active_adapters() == ["mine"]
    with pytest.raises(TypeError, match="components"):
        pipe.fuse_lora(components=["unet"])


def test_merged_and_unmerged_agree_and_the_weights_come_back(folder, pipe, tmp_path):
    weights = {k: v.clone() for k, v in pipe.model.state_dict().items()}
    bare = latents(pipe)
    pipe.load_lora_weights(folder, adapter_name="mine")
    adapted = latents(pipe)
    pipe.disable_lora()
    assert torch.equal(latents(pipe), bare) and not pipe.get_active_adapters()
    pipe.enable_lora()
    pipe.set_adapters("mine", 0.5)
    half = latents(pipe)
    pipe.set_adapters(["mine"], [1.0])
    pipe.fuse_lora(0.5)
    assert far(latents(pipe), half) < 1e-5
    pipe.unfuse_lora()
    assert far(latents(pipe), adapted) < 1e-5
    with pytest.raises(ValueError, match="fuse_lora"):
        pipe.save_pretrained(tmp_path / "no")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert far(latents(pipe), adapted) < 1e-5
    pipe.save_pretrained(tmp_path / "merged")
    again = JanusFlowPipeline.from_pretrained(tmp_path / "merged")
    again.set_progress_bar_config(disable=True)
    assert far(latents(again), adapted) < 1e-5
    assert again.model.state_dict().keys() == weights.keys()


def test_two_adapters_add_up_and_go_alone(folder, pipe):
    pipe.load_lora_weights(folder, adapter_name="a")
    alone = latents(pipe)
    pipe.load_lora_weights(folder, adapter_name="b")
    assert pipe.get_list_adapters() == ["a", "b"] and pipe.get_active_adapters() == ["b"]
    assert torch.equal(latents(pipe), alone)
    pipe.set_adapters(["a", "b"], [0.75, 0.25])
    assert far(latents(pipe), alone) < 1e-5
    with pytest.raises(ValueError, match="a, b"):
        pipe.set_adapters("c")
    with pytest.raises(ValueError, match="named 'a' is loaded already"):
        pipe.load_lora_weights(folder, adapter_name="a")


def test_peft_reads_the_folder_and_computes_the_same(folder, pipe):
    pipe.load_lora_weights(folder)
    ours = latents(pipe)
    pipe.unload_lora_weights()
    theirs = peft.PeftModel.from_pretrained(pipe.model, folder)
    pipe.model = theirs.merge_and_unload()
    assert far(latents(pipe), ours) < 1e-5


def test_an_adapter_that_peft_wrote_is_read(pipe, tmp_path):
    config = peft.LoraConfig(
        r=2,
        lora_alpha=3,
        target_modules=["q_proj", "fc1"],
        use_rslora=True,
        init_lora_weights=False,
    )
    model = peft.get_peft_model(pipe.model, config)
    model.save_pretrained(tmp_path)
    theirs = latents(pipe)  # the layers were put into it
    pipe.model = model.unload()
    pipe.load_lora_weights(tmp_path)
    assert far(latents(pipe), theirs) < 1e-6


def test_the_command_line_takes_an_adapter(run, folder, janusflow, tmp_path):
    base = ("generate", "a red circle", "--model", run / "base", "--steps", 2, "-o")
    assert janusflow(*base, tmp_path / "a.png")[0] == 0
    assert janusflow(*base, tmp_path / "b.png", "--lora", folder)[0] == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    code, _, said = janusflow(*base, tmp_path / "c.png", "--lora", tmp_path)
    assert code == 2 and "adapter_config.json" in said and said.count("\n") == 1


# What does not fit


def edit_config(folder, **changes):
    path = folder / lora.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def edit_tensors(folder, change):
    path = folder / lora.WEIGHTS
    save_file(change(load_file(path)), path)


def renamed(old: str, new: str):
    return lambda tensors: {k.replace(old, new): v for k, v in tensors.items()}


def first_changed(how):
    return lambda tensors: tensors | {k: how(v) for k, v in list(tensors.items())[:1]}


SPOILT = {
    "no config": (lambda f: (f / lora.CONFIG).unlink(), "lacks adapter_config"),
    "no weights": (lambda f: (f / lora.WEIGHTS).unlink(), "lacks adapter_model"),
    "pickle": (
        lambda f: (f / lora.WEIGHTS).rename(f / "adapter_model.bin"),
        "is a pickle, which is never read",
    ),
    "no json": (lambda f: (f / lora.CONFIG).write_text("{"), "not valid JSON"),
    "other method": (lambda f: edit_config(f, peft_type="LOHA"), "only LORA"),
    "dora": (lambda f: edit_config(f, use_dora=True), "use_dora"),
    "imports": (lambda f: edit_config(f, megatron_config={"a": 1}), "megatron_config"),
    "import": (lambda f: edit_config(f, megatron_core="os"), "megatron_core"),
    "other base": (lambda f: edit_config(f, init_lora_weights="pissa"), "pissa"),
    "saved": (lambda f: edit_config(f, modules_to_save=["lm_head"]), "modules_to_save"),
    "rank": (lambda f: edit_config(f, r=4), "pair of rank 4"),
    "rank text": (lambda f: edit_config(f, r="8"), "r '8'"),
    "huge rank": (lambda f: edit_config(f, r=10**9), "JANUSFLOW_MAX_WIDTH"),
    "other layers": (
        lambda f: edit_tensors(f, renamed("layers.0.", "layers.9.")),
        "another model: this one has no layer",
    ),
    "other sizes": (
        lambda f: edit_tensors(f, lambda t: {k: torch.cat([v, v], 1) if "_A" in k else v
                                             for k, v in t.items()}),
        "is for another model",
    ),
    "other tensors": (lambda f: edit_tensors(f, renamed("lora_A", "hada_w1")), "only tensors"),
    "half": (
        lambda f: edit_tensors(f, lambda t: {k: v for k, v in t.items() if "_A" in k}),
        "no finite pair",
    ),
    "nan": (lambda f: edit_tensors(f, first_changed(lambda v: v * torch.nan)), "no finite pair"),
    "whole numbers": (lambda f: edit_tensors(f, first_changed(torch.Tensor.int)), "finite pair"),
    "cut short": (
        lambda f: (f / lora.WEIGHTS).write_bytes((f / lora.WEIGHTS).read_bytes()[:-9]),
        "damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_a_wrong_adapter_is_one_sentence_and_changes_nothing(fault, copied, tiny_pipe):
    spoil, says = SPOILT[fault]
    spoil(copied)
    with pytest.raises(ValueError, match=says) as caught:
        tiny_pipe.load_lora_weights(copied)
    assert "\n" not in str(caught.value)
    assert not tiny_pipe.get_list_adapters()


def test_a_pickle_is_not_opened(copied, tmp_path, tiny_pipe):
    bomb = copied / "adapter_model.bin"
    bomb.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "harm").encode() + b"'\ntR.")
    (copied / lora.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="pickle"):
        tiny_pipe.load_lora_weights(copied)
    assert not (tmp_path / "harm").exists()


def test_an_adapter_that_has_not_all_its_layers_is_refused(run, copied):
    path = copied / lora.WEIGHTS
    whole = load_file(path)
    save_file(dict(list(whole.items())[:6]), path)
    with pytest.raises(ValueError, match=rf"has 3 of {len(whole) // 2} layers"):
        JanusFlowPipeline.from_pretrained(run / "base").load_lora_weights(copied)


def test_an_adapter_is_found_by_weight_name_subfolder_and_file(pipe, copied, tmp_path):
    (tmp_path / "adapter" / lora.WEIGHTS).rename(copied / "mine.safetensors")
    pipe.load_lora_weights(copied, adapter_name="named", weight_name="mine.safetensors")
    pipe.load_lora_weights(tmp_path, "inside", subfolder="adapter", weight_name="mine.safetensors")
    pipe.load_lora_weights(copied / "mine.safetensors", adapter_name="file")
    ends = []
    for name in ("named", "inside", "file"):
        pipe.set_adapters(name)
        ends.append(latents(pipe))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    for name, message in (
        ("a.bin", "expected a .safetensors file"),
        ("b.safetensors", "lacks b.s"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.load_lora_weights(copied, weight_name=name)
    with pytest.raises(
        TypeError, match="'adaptername', which is not an argument; did you mean 'adapter_n"
    ):
        pipe.load_lora_weights(copied, adaptername="x")


def test_an_adapters_file_in_the_current_folder_is_loaded_and_counts_in_the_fingerprint(
    pipe, run, copied, monkeypatch
):
    monkeypatch.chdir(copied)
    (copied / lora.WEIGHTS).rename("mine.safetensors")
    pipe.load_lora_weights("mine.safetensors", adapter_name="mine")
    options = AdapterOptions(model=str(run / "base"))
    assert "lora/mine.safetensors" in load_model.weights(options, "mine.safetensors")
    with pytest.raises(ValueError, match=r"'mine.safetensors' is a file; name the folder"):
        JanusFlowPipeline.from_pretrained("mine.safetensors")
