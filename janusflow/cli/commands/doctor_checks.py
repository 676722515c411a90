"""The checks of `janusflow doctor`, from the cheapest to the one that loads the model.

Each check is a function that yields findings. An exception becomes a finding too, so that one
broken file does not hide other faults.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from janusflow.cli.commands.info_janusflow import count_parameters
from janusflow.models.family import FLOW, family
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.processor_checks import Finding, examine
from janusflow.utils.checkpoint_files import stored
from janusflow.utils.devices import describe, pick_device, pick_dtype, written
from janusflow.utils.hub import locate
from janusflow.utils.text import printable

STEPS, PROMPT = 30, "a red circle left of a blue square"


Check = Callable[[], Iterable[Finding]]


def run(options) -> Iterator[Finding]:
    """Yields the findings of all checks that the files allow."""
    folder = locate(options.model)
    kind = family(options.model)
    yield Finding("family", "ok", kind, {"family": kind})
    flow = kind == FLOW
    vae = locate(options.vae) if options.vae else None
    if vae and not flow:
        raise ValueError("Janus-Pro brings its own VQ model; leave --vae out")
    checks: list[tuple[str, Check]] = [
        ("files", lambda: files(folder, vae)),
        ("device", lambda: device(options)),
    ]
    drawable = not flow or vae or (folder / "vae").is_dir()
    if flow:
        checks.insert(1, ("weights", lambda: weights(folder)))
    if flow and drawable:
        checks.insert(1, ("autoencoder", lambda: autoencoder(folder, vae)))
        checks.append(("memory", lambda: memory(folder, options)))
    wrong: set[str] = set()
    for name, check in checks:
        if name == "memory" and wrong & {"autoencoder", "vae weights"}:
            yield Finding(name, "warning", "not computed; correct the autoencoder first")
            continue
        for finding in _guarded(name, check):
            if finding.state == "problem":
                wrong.add(finding.name)
            yield finding
    if options.speed and not drawable:
        yield Finding("speed", "warning", "not measured without an autoencoder; name one by --vae")
    elif options.speed and not wrong:
        yield from _guarded("speed", lambda: speed(options))
    elif options.speed:
        yield Finding("speed", "warning", "not measured; correct the problems above first")


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        yield Finding(name, "problem", printable(error))
    except (RuntimeError, KeyError, IndexError, AttributeError) as error:
        yield Finding(name, "problem", printable(f"{type(error).__name__}: {error}"))


def files(folder: Path, vae: Path | None) -> Iterator[Finding]:
    """Checks tokens, tags, sizes and the autoencoder from the folder's files, without weights."""
    yield from examine(folder, vae)


def weights(folder: Path) -> Iterator[Finding]:
    """Compares how many numbers a JanusFlow's weight files hold with its configuration."""
    needed = sum(count_parameters(JanusFlowConfig.from_pretrained(folder)).values())
    held = stored(folder)
    said = f"{held:,} numbers in the weight files, {needed:,} in the network"
    if held < needed:
        yield Finding("weights", "problem", f"{said}; download the weights again")
    else:
        yield Finding("weights", "ok", said, {"stored": held, "parameters": needed})


def autoencoder(folder: Path, vae: Path | None) -> Iterator[Finding]:
    """Reports scaling factor and dtype of a JanusFlow's autoencoder; its channels are checked in
    `files`.
    """
    from janusflow.models.autoencoder_loading import described_vae
    from janusflow.pipelines.memory import factor

    found = described_vae(folder, vae)
    stored = _dtype_on_disk(vae or folder / "vae")
    said = f"{type(found).__name__}, {factor(found)} pixels a latent, {stored or 'no weights'}"
    numbers = dict(factor=factor(found), dtype=stored, channels=found.config.latent_channels)
    yield Finding("vae weights", "ok" if stored else "problem", said, numbers)


def _dtype_on_disk(source: Path) -> str | None:
    """Returns the dtype of the first weight; None without weights."""
    from safetensors import safe_open

    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():
                return str(weights.get_slice(key).get_dtype())
    return None


def device(options) -> Iterator[Finding]:
    """Reports the device and dtype with which the model would run."""
    place = pick_device(options.device)
    dtype = pick_dtype(options.dtype, place)
    said = f"{describe(place)} in {written(dtype, options.dtype)}"
    slow = place.type == "cpu" and dtype != torch.float32
    note = "; a CPU computes faster in float32" if slow else ""
    yield Finding("device", "warning" if slow else "ok", said + note, {"device": str(place)})


def memory(folder: Path, options) -> Iterator[Finding]:
    """Compares the memory that one image needs with what is free."""
    from janusflow.pipelines import memory as forecasts

    place = pick_device(options.device)
    dtype = pick_dtype(options.dtype, place)
    setting = dict(dtype=dtype, eight_bit=options.dtype == "int8", device=place.type)
    peak = forecasts.of_folder(folder, options.vae, **setting).told()["peak"]
    free = forecasts.free(place)
    numbers = {"needed_bytes": peak, "free_bytes": free}
    said = f"an image takes {peak / 2**30:.2f} GiB with the weights"
    if free is None:
        yield Finding("memory", "ok", said, numbers)
        return
    said += f", {free / 2**30:.2f} GiB are free"
    if peak <= free:
        yield Finding("memory", "ok", said, numbers)
    else:
        said += "; take --dtype bfloat16 or int8, smaller images, or another device"
        yield Finding("memory", "problem", said, numbers)


def speed(options) -> Iterator[Finding]:
    """Loads the model and measures a few steps and one answer."""
    from janusflow.cli import load_model

    started = time.perf_counter()
    pipe = load_model.load(options)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter() - started
    yield Finding("loading", "ok", f"{loaded:.1f} s", {"seconds": loaded})
    yield from _few_steps(pipe)
    yield _generated(pipe, options.steps if hasattr(pipe, "vae") else None)
    yield _answered(pipe)


def _few_steps(pipe) -> Iterator[Finding]:
    """Reports the qualities that a few-step model generates, and those whose model is missing."""
    for quality, few in getattr(pipe, "few_step", {}).items():
        name = f"{quality} images"
        try:
            few.weights.beside(pipe.model, pipe.device)
            yield Finding(name, "ok", f"by {few.model} in {few.evaluations} evaluations")
        except (OSError, ValueError) as error:
            yield Finding(name, "problem", f"by {few.model}, which does not load: {error}")


def _generated(pipe, steps: int | None) -> Finding:
    """Returns the seconds per image, extrapolated from so many steps, or from all tokens."""
    make = _of_flow if steps else _of_tokens
    seconds, how, image = make(pipe, steps)
    low, high = image.getextrema() if image.mode == "L" else zip(*image.getextrema(), strict=True)
    flat = low == high
    said = f"{seconds:.2f} s an image ({how})"
    if flat:
        return Finding("generation", "problem", f"{said}, of one colour only; check the weights")
    return Finding("generation", "ok", said, {"seconds": seconds})


def _of_flow(pipe, steps: int):
    def timed(count: int) -> tuple[float, object]:
        started = time.perf_counter()
        out = pipe(PROMPT, num_inference_steps=count, generator=torch.Generator().manual_seed(0))
        return time.perf_counter() - started, out.images[0]  # PIL: the device is done

    timed(1)  # allocations and kernels
    once, _ = timed(1)
    more, image = timed(1 + steps)
    each = max((more - once) / steps, 0.0)
    return once + (STEPS - 1) * each, f"{STEPS} Euler steps, {steps} of them timed", image


def _of_tokens(pipe, _steps: None):
    started = time.perf_counter()
    out = pipe(PROMPT, generator=torch.Generator().manual_seed(0))
    return time.perf_counter() - started, f"{out.tokens.shape[1]} tokens, timed", out.images[0]


def _answered(pipe) -> Finding:
    """Returns the seconds per token of an answer."""
    from PIL import Image

    image = Image.new("RGB", (96, 96), "white")
    started = time.perf_counter()
    pipe.chat("what is it?", [image], max_new_tokens=1)
    first = time.perf_counter() - started
    started = time.perf_counter()
    pipe.chat("what is it?", [image], max_new_tokens=9)
    each = max(time.perf_counter() - started - first, 0.0) / 8
    return Finding(
        "answers",
        "ok",
        f"{first:.2f} s to the first token, at most {each:.3f} s for each further one",
        {"first_seconds": first, "token_seconds": each},
    )
