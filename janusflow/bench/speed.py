"""Measures seconds per image, alternating with the published sampler in the same run.

`janusflow bench speed` measures a model, `python -m janusflow.bench.speed` the 1.3B's widths with
fewer blocks.
"""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from tqdm import tqdm

import samplers
from janusflow.bench import reference_sampler
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines.guided_velocity import CachedTimes
from janusflow.pipelines.presets import QUALITIES
from janusflow.utils.cpu.onednn_linear import repeating, use_onednn
from janusflow.utils.flops import Counting, peak
from samplers import command_line

TRUTH = 128  # calls of rk4 that stand for the converged image


@torch.no_grad()
def of_pipeline(
    pipe,
    texts: Sequence[str],
    rounds: int = 5,
    seed: int = 0,
    compile: bool = False,
    model: str = "",
) -> dict:
    """Returns the seconds per image of every quality and of the published sampler, one noise per
    text.

    With `compile` it also measures "exact", "fast" and "draft" compiled by torch, without the time
    of compiling. "error" is the RMS distance in latents from the converged result of the same field
    with guidance 2 throughout. `model` is its name in the protocol.
    """
    noise = pipe.prepare_latents(len(texts), None, None, torch.Generator().manual_seed(seed), None)
    truth = samplers.sample(pipe.field(texts, 2.0), noise, TRUTH, "rk4")
    ways: dict[str, Callable[[], tuple[Tensor, int]]] = {
        "published": lambda: (reference_sampler.prompts(pipe, texts, noise), 60)
    }
    for name in QUALITIES:
        ways[name] = lambda name=name: _made(pipe, texts, noise, name)
    if compile:
        graphs = type(pipe)(pipe.model, pipe.processor, pipe.vae).compile()
        graphs.set_progress_bar_config(disable=True)
        for name in ("exact", "fast", "draft"):
            ways[f"{name}, compiled"] = lambda name=name: _made(graphs, texts, noise, name)
    ends = {name: way() for name, way in ways.items()}  # also warms up
    seconds = _in_turns({n: w for n, w in ways.items()}, rounds)
    rows = {
        name: {
            "calls": ends[name][1],
            "seconds": [s / len(texts) for s in seconds[name]],
            "error": float((ends[name][0].float() - truth).square().mean().sqrt()),
        }
        for name in ways
    }
    return _report(rows, dict(model=model, images=len(texts), seed=seed))


def _made(pipe, texts, noise: Tensor, quality: str) -> tuple[Tensor, int]:
    out = pipe(list(texts), quality=quality, latents=noise, output_type="latent")
    return out.images, out.calls


@torch.no_grad()
def of_network(
    blocks: int = 2, prompt: int = 20, images: int = 1, steps: int = 30, rounds: int = 3
) -> dict:
    """Times Euler at the 1.3B's widths with fewer blocks, random weights, float32.

    It compares this package with the published algorithm, with torch's own matrix products and with
    this package's.
    """
    model = wide(blocks)
    ids = torch.randint(5, 4000, (1, prompt), generator=torch.Generator().manual_seed(0))
    side = 2 * int(model.config.vision.tokens**0.5)
    noise = torch.randn(images, 4, side, side, generator=torch.Generator().manual_seed(1))
    rows = ids.repeat(images, 1)

    def theirs() -> Tensor:
        return reference_sampler.sample(
            model, rows, torch.ones_like(rows), noise, steps=steps, state=torch.float32
        )

    def plainly() -> Tensor:
        use_onednn(model, undo=True)
        try:
            return theirs()
        finally:
            use_onednn(model)

    def ours() -> Tensor:
        return samplers.sample(_guided(model, ids, images, steps), noise, steps, "euler")

    def repeated() -> Tensor:
        with repeating():
            return theirs()

    ways = {"published": plainly, "published, oneDNN": repeated, "ours": ours}
    seconds = _in_turns(ways, rounds)
    ends = {name: way() for name, way in ways.items()}
    with Counting() as counted:
        _guided(model, ids, images, steps)(noise, torch.tensor(0.5))
    error = float((ends["ours"] - ends["published"]).abs().max() / ends["published"].abs().max())
    found = {
        name: {"calls": 2 * steps, "seconds": [s / images for s in taken]}
        for name, taken in seconds.items()
    }
    report = _report(found, dict(blocks=blocks, prompt=prompt, images=images, steps=steps))
    rate = counted.total * steps / median(seconds["ours"])
    most = peak(torch.device("cpu"), torch.float32, torch.get_num_threads())
    return report | dict(difference=error, flops_a_second=rate, peak=most, fraction=rate / most)


def _guided(model: JanusFlowModel, ids: Tensor, images: int, steps: int):
    cond, uncond = model.encode_prompt(ids), model.encode_prompt(ids, unconditional=True)
    both = PromptCache.cat([cond[[0] * images], uncond[[0] * images]])
    at = CachedTimes(model, samplers.GRIDS["uniform"](steps).float())
    pair = samplers.guidance.batched_pair(lambda x, t: model.velocity(x, at(t, x), both))
    return samplers.guide(pair, 2.0)


def wide(blocks: int) -> JanusFlowModel:
    """Returns a model with the 1.3B's widths, `blocks` random float32 blocks and 4,096 words."""
    language = dict(JanusFlowConfig().language_config.to_dict(), num_hidden_layers=blocks)
    language["vocab_size"] = 4096  # of which speed does not know
    tower = dict(model_type="vision_und_enc", cls="CLIPVisionTower")
    small = dict(image_size=384, model_name="siglip_tiny", select_feature="same", select_layer=-1)
    torch.manual_seed(0)
    config = JanusFlowConfig(
        language_config=language, vision_und_enc_config=tower | dict(params=small)
    )
    return fresh(JanusFlowModel(config))


@torch.no_grad()
def fresh(model: JanusFlowModel) -> JanusFlowModel:
    """Returns the model with random numbers for initial zeros, so that all of it computes."""
    for name, weight in model.named_parameters():
        if any(part in name for part in ("cond_embeds_mapper", "unpatch_conv", "channelwise_norm")):
            torch.nn.init.normal_(weight, std=0.02)
    return model.eval()


def finish() -> None:
    """Waits until a GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def _in_turns(ways: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc="rounds", disable=None):
        for name, way in ways.items():
            finish()
            started = time.perf_counter()
            way()
            finish()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _report(rows: dict, about: dict) -> dict:
    from importlib.metadata import version

    base = rows["published"]["seconds"]
    for row in rows.values():
        ratios = [b / s for b, s in zip(base, row["seconds"], strict=True)]  # of one round
        row["faster"] = median(ratios)
        row["spread"] = [min(ratios), max(ratios)]
    packages = {name: version(name) for name in ("torch", "transformers", "diffusers")}
    machine = f"{processor()}, {torch.get_num_threads()} threads"
    about |= {"machine": machine, "packages": packages, "commit": commit()}
    return {"ways": rows, "protocol": about}


def commit() -> str:
    """Returns the source's git commit, "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor() -> str:
    """Returns the CPU's name as Linux reports it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def table(report: dict) -> str:
    """Formats the report as a table of 80 columns."""
    lines = [f"{'way':<20}{'calls':>6}{'s an image':>13}{'faster':>9}{'spread':>15}{'error':>9}"]
    for name, row in report["ways"].items():
        spread = "{:.2f} to {:.2f}".format(*row["spread"])
        error = f"{row['error']:.3f}" if "error" in row else ""
        seconds = f"{median(row['seconds']):.3f}"
        lines.append(
            f"{name:<20}{row['calls']:>6}{seconds:>13}{row['faster']:>9.2f}{spread:>15}{error:>9}"
        )
    lines += [f"{k}: {v}" for k, v in report["protocol"].items()]
    if "fraction" in report:
        lines.append(
            f"ours: {report['flops_a_second'] / 1e9:.0f} GFLOP/s, {report['fraction']:.0%} of the "
            f"measured peak; ends {report['difference']:.1e} from the published way (relative)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = command_line.parser(__doc__)
    for names, value, told in (
        (("--blocks",), 2, "Sets the number of blocks of the language model."),
        (("--prompt",), 20, "Sets the number of tokens of the prompt."),
        (("--steps",), 30, "Sets the number of Euler steps."),
        (("--images", "--pictures"), 1, "Generates this many images at once."),
        (("--rounds",), 3, "Measures each way this many times."),
    ):
        parser.add_argument(*names, type=int, default=value, help=told)
    parser.add_argument("--out", type=Path, help="Writes the report to this .json file.")
    asked = vars(parser.parse_args())
    out = asked.pop("out")
    report = of_network(**asked)
    print(table(report))
    if out:
        out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
