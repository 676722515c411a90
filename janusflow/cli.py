"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="janusflow",
    help="Pictures from text and answers about pictures, from one rectified-flow model.",
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="Packaged model, folder or hub id.")]
Vae = Annotated[str | None, typer.Option(help="Autoencoder, if the model's folder has no vae/.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Steps = Annotated[int, typer.Option(help="Steps of the sampler.")]
Guidance = Annotated[str, typer.Option(help="A weight, 1 for none, or a rule: within:4,0.1,0.9")]
Sampler = Annotated[str, typer.Option(help="A solver of `samplers`.")]
DEFAULT = "janusflow/scenes"


@app.command()
def generate(
    prompt: Annotated[list[str] | None, typer.Argument(help="One text or several.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .png (several make a grid) or a folder.")
    ] = Path("out.png"),
    prompts: Annotated[Path | None, typer.Option(help="File with one prompt a line.")] = None,
    model: Model = DEFAULT,
    vae: Vae = None,
    steps: Steps = 30,
    guidance: Guidance = "2",
    sampler: Sampler = "euler",
    grid: Annotated[str | None, typer.Option(help="A time grid of `samplers`.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first picture; then seed + 1, ...")] = 0,
    count: Annotated[int, typer.Option(help="Pictures per prompt.")] = 1,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures at once.")] = 16,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Makes pictures from text."""
    from janusflow import pictures

    texts = [*(prompt or []), *(pictures.read_prompts(prompts) if prompts else [])]
    rows = [text for text in texts for _ in range(count)]
    pictures.check_output(out)
    settings = dict(
        num_inference_steps=steps,
        guidance_scale=_guidance(guidance),
        sampler=sampler,
        grid=grid,
        negative_prompt=negative,
        height=height,
        width=width,
    )
    pictures.check(rows, seed, count, batch, **settings)
    pipe = pictures.load(model, vae, device, dtype)
    about = dict(model=model, sampler=sampler, steps=steps, guidance=guidance, grid=grid or "")
    images, notes = pictures.make(pipe, rows, seed, batch, settings, about)
    for path in pictures.write(images, notes, out):
        print(path)


@app.command()
def chat(
    picture: Annotated[Path, typer.Argument(help="A picture to talk about.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Model = DEFAULT,
    vae: Vae = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Answers a question about a picture."""
    from janusflow import pictures

    if not question.strip():
        raise ValueError("the question is empty; ask something about the picture")
    image = pictures.read(picture)
    pipe = pictures.load(model, vae, device, dtype)
    pieces = pipe.chat(question, [image], stream=True, max_new_tokens=max_new_tokens)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


@app.command()
def evaluate(
    task: Annotated[str, typer.Option(help="scenes or scenes-vqa.")] = "scenes",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; by default evaluation/TASK.")
    ] = None,
    split: Annotated[
        list[str], typer.Option(help="test, pairs, counts, relations, long, paraphrases; or all.")
    ] = ["test"],  # noqa: B006 (typer copies it)
    prompts: Annotated[int, typer.Option(help="Per category; questions per template.")] = 100,
    seeds: Annotated[int, typer.Option(help="Pictures per prompt.")] = 4,
    rescore: Annotated[Path | None, typer.Option(help="Score this folder's answers anew.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two report.json: paired tests.")
    ] = None,
    draw: Annotated[bool, typer.Option(help="Also draw bars and failures.")] = False,
    model: Model = DEFAULT,
    vae: Vae = None,
    steps: Steps = 30,
    guidance: Guidance = "2",
    sampler: Sampler = "euler",
    grid: Annotated[str | None, typer.Option(help="A time grid of `samplers`.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures or questions at once.")] = 16,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Scores a model on the small world, or two reports against each other."""
    from janusflow import measure

    if compare:
        return print(measure.compare(*compare))
    if rescore:
        return measure.publish(measure.rescore(rescore), rescore, draw)
    plan = measure.plan(
        task, split, model, vae, device, dtype, sampler, grid,
        prompts=prompts, seeds=seeds, steps=steps, guidance=guidance, batch=batch,
    )  # fmt: skip
    rule, out = _guidance(guidance), out or Path("evaluation", task)
    measure.publish(measure.run(plan, out, vae, device, dtype, rule), out, draw)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")] = DEFAULT,
) -> None:
    """Shows a model's configuration, its parameters by part, and the memory they need."""
    from janusflow import inspection

    print(inspection.describe(model))


def _guidance(text: str):
    """A number, or a rule of `samplers.guidance` by name."""
    from samplers import guidance

    try:
        return guidance.cfg(float(text))
    except ValueError:
        if text.split(":")[0] in guidance.RULES:
            return guidance.parse(text)
    raise ValueError(
        f"guidance {text!r} is not a finite number or a rule; choose 1 for none, or one of "
        f"{', '.join(guidance.RULES)}, as in within:4,0.1,0.9"
    )


def main() -> None:
    """Runs a command; what the user can mend is one sentence on stderr and exit code 2."""
    if len(sys.argv) < 2:
        sys.argv.append("--help")
    try:
        app(standalone_mode=False)
    except (ValueError, TypeError, OSError, FloatingPointError, ImportError) as error:
        _leave(str(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # of the parser's own exceptions
            raise
        _leave(error.format_message())


def _leave(message: str) -> None:
    print(f"janusflow: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
