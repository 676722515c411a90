"""`janusflow generate`: generates images from prompts."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.save_images import Out, Output, Seed, check_seed, output
from janusflow.cli.shared_options import OUTPUT, SAMPLING, argument
from janusflow.cli.terminal import importing, tell, warn_of_loose_words, with_stdin


@dataclass(frozen=True, kw_only=True)
class Options(o.AdapterOptions):
    """The options of `janusflow generate`."""

    prompt: list[str] | None = argument(
        "Describes the image to generate; several texts, each in quotes, give several images, and "
        "- reads one per line from standard input.",
        default=None,
        show_default=False,
    )
    prompts: Path | None = OUTPUT.path("Reads the prompts from this text file, one per line.")
    out: Out = "out.png"
    num_images: int = OUTPUT.option(
        "Generates this many images for each prompt; --num-images-per-prompt is the same option.",
        default=1,
    )
    seed: Seed = 0
    batch_size: int | None = OUTPUT.option(
        "Computes this many images at once. The default is as many as fit into memory, at most "
        "16, or 64 on CUDA."
    )
    memory: float | None = OUTPUT.option(
        "Limits the memory of weights and images to this many gigabytes. The default is the "
        "free memory."
    )
    quality: o.Quality = None
    num_inference_steps: o.Steps = None
    sampler: o.Sampler = None
    grid: o.Grid = None
    guidance_scale: o.GuidanceScale = None
    negative_prompt: o.NegativePrompt = None
    height: o.Height = None
    width: o.Width = None
    first_block_cache: o.FirstBlockCache = None
    best_of: o.BestOf = None
    verifier: o.Verifier = None
    temperature: float | None = SAMPLING.option(
        "For Janus-Pro: samples tokens at this temperature; 0 takes the likeliest token. The "
        "default is 1."
    )
    top_k: int | None = SAMPLING.option(
        "For Janus-Pro: samples from this many likeliest tokens only (top-k). It is off by default."
    )
    top_p: float | None = SAMPLING.option(
        "For Janus-Pro: samples from the likeliest tokens with this total probability only, "
        "from 0 to 1 (top-p). It is off by default."
    )
    compile: o.Compile = False


@command("generate", panel="Images and answers", plugins=True)
def generate(options: Options) -> dict:
    """Generates images from prompts."""
    with importing():
        from janusflow.cli import batch, load_model, model_families

    kind = model_families.check(options)
    rows = _rows(options)
    place = output(options.out)
    request = model_families.request(kind, options)
    if options.memory is not None and not 0 < options.memory < 1e6:
        raise ValueError(f"--memory is {options.memory}; expected gigabytes, more than 0")
    pipe = load_model.load(options, options.lora)
    if options.compile:
        pipe.compile()
    size = batch.size(pipe, rows, options)
    if place.folder:
        return _fill(pipe, rows, size, options, request, place)
    images, notes = batch.make(pipe, rows, options.seed, size, request)
    return place.write(images, notes)


def _fill(pipe, rows: list[str], size: int, options: Options, request, place: Output) -> dict:
    """Generates the images that the folder lacks."""
    from janusflow.cli import batch, load_model

    place.prepare()
    about = request.about | {"weights": load_model.fingerprint(options, options.lora, request.few)}
    about |= {"vae": options.vae} if options.vae else {}
    files = batch.fill(pipe, rows, options.seed, size, request.settings, about, place.path)
    print(*files, sep="\n")
    return dict(files=files)


def _rows(options: Options) -> list[str]:
    """Returns one prompt per image, in order. Raises ValueError for prompts that give no image."""
    from janusflow.utils import limits, safe_io

    limits.whole(options.num_images, "--num-images", "number")
    limits.whole(options.batch_size, "--batch-size", "number", optional=True)
    warn_of_loose_words(options.prompt or [], "prompts", "janusflow generate")
    texts = with_stdin(options.prompt or [])
    warn_of_a_file(texts)
    texts += safe_io.read_prompts(options.prompts) if options.prompts else []
    for text in texts:
        safe_io.check_prompt(text, "a prompt")
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("the prompt is missing or empty; give a text such as 'a red circle'")
    check_seed(options.seed, len(texts) * options.num_images)
    return [text for text in texts for _ in range(options.num_images)]


def warn_of_a_file(texts: list[str]) -> None:
    """Warns about a prompt that is the name of a text file, which is an image of that word."""
    for text in texts:
        if text.endswith((".txt", ".json", ".jsonl", ".csv")) and Path(text).is_file():
            tell(
                f"warning: {text!r:.120} is the name of a file and is drawn as it stands; its "
                "lines are read by --prompts"
            )
