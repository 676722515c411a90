"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli.assemble import assemble
from janusflow.cli.convert import convert
from janusflow.cli.data import data
from janusflow.cli.demo import demo
from janusflow.cli.distill import distill
from janusflow.cli.evaluate import evaluate
from janusflow.cli.options import (
    DEFAULT,
    Device,
    Dtype,
    Grid,
    Guidance,
    Lora,
    Model,
    OwnSampler,
    OwnSteps,
    Quality,
    Reuse,
    Sampler,
    Steps,
    Vae,
)
from janusflow.cli.options import guidance as parse_guidance
from janusflow.cli.output import scripted
from janusflow.cli.pairs import pairs
from janusflow.cli.pilot import pilot
from janusflow.cli.precompute import precompute
from janusflow.cli.reward import reward
from janusflow.cli.serve import serve
from janusflow.cli.train import train
from janusflow.utils import locked_dir

# both speak at the import of torchao, where it is installed, of what nobody here can mend
NOISY = ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")

app = typer.Typer(
    name="janusflow",
    help="Pictures from text and answers about pictures, from one rectified-flow model.",
    pretty_exceptions_enable=False,
)


@app.command()
@scripted
def generate(
    ctx: typer.Context,
    prompt: Annotated[list[str] | None, typer.Argument(help="One text or several.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .png (several make a grid) or a folder.")
    ] = Path("out.png"),
    prompts: Annotated[Path | None, typer.Option(help="File with one prompt a line.")] = None,
    model: Model = DEFAULT,
    lora: Lora = None,
    vae: Vae = None,
    quality: Quality = "exact",
    steps: OwnSteps = None,
    guidance: Guidance = "2",
    sampler: OwnSampler = None,
    grid: Grid = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; then seed + 1, ...")] = 0,
    count: Annotated[int, typer.Option(help="Pictures per prompt.")] = 1,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    temperature: Annotated[float, typer.Option(help="Janus-Pro: 0 takes the likeliest.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Janus-Pro: among so many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Janus-Pro: among this share.")] = None,
    reuse: Reuse = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network first.")] = False,
    batch: Annotated[
        int | None, typer.Option(help="Pictures at once; what memory holds, up to 16, 64 on CUDA.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GB that weights and pictures may take; what is free.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """Makes pictures from text."""
    from janusflow.cli import families
    from janusflow.cli.batch import at_once, fill
    from janusflow.pipelines import auto
    from janusflow.pipelines import image_io as pictures
    from janusflow.pipelines.presets import read_grid, read_grids, resolve
    from janusflow.utils import limits, safe_io
    from janusflow.utils.hub import locate

    kind, written = auto.family(model), families.given(ctx)
    families.check(kind, written)
    guidance = families.guidance(kind, guidance, written)
    safe_io.check_prompt(negative or "", "--negative")
    texts = [*(prompt or []), *(safe_io.read_prompts(prompts) if prompts else [])]
    rows = [text for text in texts for _ in range(min(count, limits.most("number") + 1))]
    pictures.check_output(out)
    times = read_grid(grid)
    chosen = resolve(quality, read_grids(locate(model)), sampler=sampler, steps=steps, grid=times)
    settings = dict(
        num_inference_steps=chosen.steps,
        guidance_scale=parse_guidance(guidance),
        sampler=chosen.sampler,
        grid=chosen.grid,
        negative_prompt=negative,
        height=height,
        width=width,
        reuse=reuse,
    )
    pictures.check(rows, seed, count, 1 if batch is None else batch, **settings)
    if memory is not None and not 0 < memory < 1e6:
        raise ValueError(f"--memory is {memory}; expected gigabytes, more than 0")
    settings["guidance_scale"] = chosen.rule(settings["guidance_scale"])
    about = dict(model=model, guidance=guidance, **chosen.told(), negative=negative or "")
    about |= dict(height=height or "", width=width or "", dtype=dtype)
    if kind == auto.PRO:
        own = dict(temperature=temperature, top_k=top_k, top_p=top_p)
        settings = own | {k: settings[k] for k in ("guidance_scale", "negative_prompt")}
        about = dict(model=model, guidance=guidance, dtype=dtype, **own)
    about |= {"lora": lora} if lora else {}
    about |= {} if reuse is None else {"reuse": reuse}
    pipe = pictures.load(model, vae, device, dtype, lora)
    if compile:
        pipe.compile()
    if batch is None or memory is not None:
        most = at_once(pipe, rows, memory, height, width)
        batch = min(most, batch or most)
    if out.is_dir():
        files = fill(pipe, rows, seed, batch, settings, about, out)
        print(*files, sep="\n")
        return dict(files=files)
    images, notes = pictures.make(pipe, rows, seed, batch, settings, about)
    return _written(images, notes, out)


@app.command()
@scripted
def chat(
    picture: Annotated[Path, typer.Argument(help="A picture to talk about.")],
    question: Annotated[list[str], typer.Argument(help="What to ask, one after the other.")],
    model: Model = DEFAULT,
    lora: Lora = None,
    vae: Vae = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """Answers questions about a picture, each with what was said before in mind."""
    from janusflow.pipelines import image_io as pictures
    from janusflow.utils import limits

    if not all(text.strip() for text in question):
        raise ValueError("the question is empty; ask something about the picture")
    if max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {max_new_tokens}; expected at least 1")
    limits.hold("number", max_new_tokens, f"--max-new-tokens is {max_new_tokens}")
    from janusflow.utils import images

    image = images.read(picture)
    pipe = pictures.load(model, vae, device, dtype, lora)
    talk, answers = pipe.conversation([image]), []
    for text in question:
        answers.append("")
        for piece in talk.stream(text, max_new_tokens=max_new_tokens):
            print(piece, end="", flush=True)
            answers[-1] += piece
        print()
    said = dict(question=question, answer=answers)
    if len(question) == 1:
        said = dict(question=question[0], answer=answers[0])
    return said | dict(picture=picture, model=model)


@app.command()
@scripted
def edit(
    picture: Annotated[Path, typer.Argument(help="The picture to change.")],
    prompt: Annotated[str, typer.Argument(help="What it should become.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png or a folder.")] = Path("out.png"),
    strength: Annotated[float, typer.Option(help="Above 0, a little; 1, everything.")] = 0.6,
    mask: Annotated[Path | None, typer.Option(help="Picture: white changes, black stays.")] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Start from its own noise.")] = False,
    source: Annotated[str | None, typer.Option(help="What it shows now, for --invert.")] = None,
    model: Model = DEFAULT,
    lora: Lora = None,
    vae: Vae = None,
    steps: Steps = 30,
    guidance: Guidance = "2",
    sampler: Sampler = "euler",
    grid: Annotated[str | None, typer.Option(help="A time grid of `samplers`.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise, without --invert; 0.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """Changes a picture: part of the way to noise and back, by inversion, or inside a mask."""
    import torch

    from janusflow.pipelines import auto, editing
    from janusflow.pipelines import image_io as pictures
    from janusflow.utils import safe_io

    if auto.family(model) == auto.PRO:
        raise ValueError("edit goes along a flow, which Janus-Pro has not; choose a JanusFlow")
    safe_io.check_prompt(negative or "", "--negative")
    seed = 0 if seed is None and not invert else seed
    settings = dict(num_inference_steps=steps, sampler=sampler, grid=grid)
    pictures.check([prompt], seed or 0, 1, 1, **settings)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    pictures.check_output(out)
    editing.check_edit(strength, invert, source, generator)
    from janusflow.utils import images

    rule, image = parse_guidance(guidance), images.read(picture)
    area = images.read(mask) if mask else None
    pipe = pictures.load(model, vae, device, dtype, lora)
    made = pipe.edit(
        image,
        prompt,
        strength=strength,
        mask_image=area,
        invert=invert,
        source_prompt=source,
        negative_prompt=negative,
        guidance_scale=rule,
        height=height,
        width=width,
        generator=generator,
        **settings,
    )
    note = dict(prompt=prompt, picture=picture, strength=strength, mask=mask, invert=invert)
    note |= dict(source=source, seed=seed, model=model, sampler=sampler, steps=steps)
    note |= dict(guidance=guidance, grid=grid, negative=negative, calls=made.calls, lora=lora)
    told = {key: value for key, value in note.items() if value is not None}
    return _written(made.images, [told], out)


@app.command()
@scripted
def bench(
    ctx: typer.Context,
    model: Model = DEFAULT,
    speed: Annotated[bool, typer.Option("--speed", help="Time the qualities instead.")] = False,
    compile: Annotated[bool, typer.Option("--compile", help="With --speed: graphs too.")] = False,
    prompt: Annotated[list[str] | None, typer.Option(help="Repeat for several.")] = None,
    solvers: Annotated[str | None, typer.Option(help="Names with commas; all if left out.")] = None,
    calls: Annotated[str, typer.Option(help="Calls with commas.")] = "4,8,16,32",
    guidance: Guidance = "2",
    samples: Annotated[int, typer.Option(help="Noises per prompt.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    reference: Annotated[int, typer.Option(help="Calls of rk4 that stand for the truth.")] = 256,
    peers: Annotated[bool, typer.Option(help="Run other libraries' solvers too.")] = True,
    pilot: Annotated[bool, typer.Option(help="Also place the times by a pilot.")] = False,
    csv: Annotated[Path | None, typer.Option(help="File for the rows.")] = None,
    save: Annotated[Path | None, typer.Option(help="JSON file: rows and protocol.")] = None,
    plot: Annotated[Path | None, typer.Option(help=".png, .svg or .pdf")] = None,
    vae: Vae = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """JanusFlow: samplers, error against network calls. Janus-Pro: time beside transformers'."""
    from janusflow.bench import solvers as bench
    from janusflow.cli import families
    from janusflow.pipelines import auto
    from janusflow.pipelines import image_io as pictures
    from samplers.core import find

    if auto.family(model) == auto.PRO:
        return _bench_pro(model, prompt, guidance, device, dtype, families.given(ctx))
    if speed:
        return _bench_speed(model, vae, device, dtype, prompt, seed, save, compile)
    if compile:
        raise ValueError("--compile times graphs, so it goes with --speed; add it")
    budgets = _numbers(calls)
    chosen = [find(name.strip()) for name in solvers.split(",")] if solvers else None
    rule = parse_guidance(guidance)
    for path in (csv, save, plot):
        if path is not None:
            pictures.check_folder(path.parent)
    pipe = pictures.load(model, vae, device, dtype)
    report = bench.run(
        pipe,
        prompt or ["a red circle left of a blue square"],
        rule,
        samples=samples,
        seed=seed,
        reference=reference,
        pilot=pilot,
        calls=budgets,
        solvers=chosen,
        others=peers,
        name=str(model),
    )
    print(report)
    print(f"\nreference: {report.protocol['reference']} (RMS)")
    print(f"each call: {report.protocol['network_evaluations_per_call']:g} network evaluations")
    for path, write in ((csv, report.to_csv), (save, report.to_json), (plot, report.plot)):
        if path is not None:
            write(path)
    return report.content()


def _bench_speed(model, vae, device, dtype, prompt, seed: int, save, compile: bool) -> dict:
    import json

    from janusflow.bench import speed
    from janusflow.pipelines import image_io as pictures

    pipe = pictures.load(model, vae, device, dtype)
    texts = prompt or ["a red circle left of a blue square"]
    report = speed.of_pipeline(pipe, texts, seed=seed, compile=compile, model=str(model))
    print(speed.table(report))
    if save:
        locked_dir.write(save, json.dumps(report, indent=1))
    return report


def _bench_pro(model, prompt, guidance, device, dtype, written: set[str]) -> dict:
    from janusflow.bench import janus_pro as bench
    from janusflow.cli import families
    from janusflow.pipelines import auto
    from janusflow.pipelines import image_io as pictures

    wrong = sorted(written - {"model", "prompt", "guidance", "device", "dtype", "as_json"})
    if wrong:
        raise ValueError(f"--{wrong[0]} compares samplers, which Janus-Pro has not; leave it out")
    texts = prompt or ["a red circle left of a blue square"]
    weight = families.guidance(auto.PRO, guidance, written)
    try:
        weight = float(weight)
    except ValueError:
        raise ValueError(f"--guidance is {weight!r}; transformers takes a number only") from None
    pipe = pictures.load(model, None, device, dtype)
    result = bench.compare(pipe, texts, guidance=weight)
    print(bench.table(result, len(texts)))
    return result


def _written(images: list, notes: list[dict], out: Path) -> dict:
    """Writes the pictures and says where; several in one file are a grid."""
    from janusflow.pipelines import image_io as pictures

    files = list(pictures.write(images, notes, out))
    print(*files, sep="\n")
    return dict(files=files, pictures=notes)


def _numbers(text: str) -> list[int]:
    if not all(part.strip().isdecimal() and int(part) > 0 for part in text.split(",")):
        raise ValueError(f"--calls is {text!r}; expected numbers of at least 1, as in 4,8,16")
    return [int(part) for part in text.split(",")]


@app.command()
@scripted
def info(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")] = DEFAULT,
    vae: Vae = None,
    pictures: Annotated[int, typer.Option(help="Made at once.")] = 1,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    tokens: Annotated[int, typer.Option(help="Of a prompt.")] = 20,
) -> dict:
    """Shows a model's parts, and the memory that making pictures takes."""
    from janusflow.pipelines import auto
    from janusflow.utils import limits

    numbers = {"--pictures": pictures, "--height": height, "--width": width, "--tokens": tokens}
    for name, number in numbers.items():
        kind = "side" if name in ("--height", "--width") else "number"
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")
        limits.hold(kind, number or 1, f"{name} is {number}")
    if auto.family(model) == auto.PRO:
        from janusflow.cli import info_janus_pro

        print(info_janus_pro.describe(model))
        return info_janus_pro.facts(model)
    from janusflow.cli import info as model_info
    from janusflow.pipelines import image_io  # noqa: F401 (whose memory is told)

    print(model_info.describe(model))
    setting = dict(pictures=pictures, height=height, width=width, tokens=tokens)
    needed = model_info.needed(model, vae, **setting)
    print(model_info.memory_table(needed, pictures))
    return model_info.facts(model) | {"memory": needed}


app.command()(scripted(convert))
app.command()(scripted(assemble))
app.command()(demo)
app.command()(serve)
app.command()(scripted(evaluate))
app.command()(scripted(train))
app.command()(scripted(precompute))
app.command()(scripted(data))
app.command()(scripted(reward))
app.command()(scripted(distill))
app.command()(scripted(pairs))
app.command()(scripted(pilot))


def main() -> None:
    """Runs a command; what the user can mend is one sentence on stderr and exit code 2."""
    if len(sys.argv) < 2:
        sys.argv.append("--help")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        app(standalone_mode=False)
    except OSError as error:
        _leave(locked_dir.advised(error))
    except (ValueError, TypeError, FloatingPointError, ImportError, MemoryError) as error:
        _leave(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "SafetensorError":  # what its library says of a full disk too
            _leave(f"weights cannot be written or read ({error}); {locked_dir.AGAIN}")
        if not hasattr(error, "format_message"):  # of the parser's own exceptions
            raise
        _leave(error.format_message())
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(message: str) -> None:
    print(f"janusflow: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
