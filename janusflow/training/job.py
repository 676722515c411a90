"""A planned training: it can describe itself, and run."""

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from janusflow.data import dataset_report, readers
from janusflow.data.mixture import Mixture
from janusflow.data.prefetch import Ahead
from janusflow.data.read_options import Data
from janusflow.data.readers import open_data
from janusflow.data.samples import BrokenSample
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.latents import pixels_per_latent
from janusflow.training import beginning, cached_features, init_checkpoint, loop
from janusflow.training import config as settings
from janusflow.training.build import accelerator_of
from janusflow.training.config import Settings
from janusflow.training.ema import trained
from janusflow.training.encoding import Latents
from janusflow.training.held_out import HeldOut, of_world
from janusflow.training.preview import COUNT, Preview
from janusflow.training.recipe_data import World, world_of
from janusflow.training.schedules import learning_rate
from janusflow.training.trainer import Trainer
from janusflow.utils import locked_dir, processes
from janusflow.utils.keywords import old_names

MEASURED = 3  # steps of a dry run
KILOBYTES = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a MiB


@dataclass(frozen=True)
class TrainJob:
    """A training to be run. `trainer()` builds everything anew; checkpoints store `meta`."""

    settings: Settings
    trainer: Callable[[], Trainer]
    out: Path
    meta: dict[str, str]
    start: Path | None = None
    preview: Callable[[], Preview] | None = None  # None: no samples are drawn on the way
    held_out: Callable[[], HeldOut] | None = None  # None: nothing is evaluated on the way
    rehearsal: Callable[[], Trainer] | None = None  # for a dry run, where `trainer` trains before
    before: str | None = None  # what is trained first
    read: str = ""  # what was found of the data

    @property
    def engine(self) -> Callable[[], Trainer]:
        """The name of `trainer` in release 0.1."""
        told = "TrainJob.engine is now called TrainJob.trainer; please rename it"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return self.trainer

    def run(self) -> loop.RunEnd:
        """Trains to the end, or until SIGTERM or Ctrl-C, which save a checkpoint."""
        if processes.rank() == 0:
            told = [*self.read.splitlines(), *warnings_of(self.settings)]
            for said in told:
                print(f"janusflow: {said}", file=sys.stderr)
        with locked_dir.alone(self.out):
            trainer = self.trainer()
            preview = self.preview() if self.preview else None
            held_out = self.held_out() if self.held_out else None
            return loop.run(trainer, self.out, self.meta, self.start, preview, held_out)

    def describe(self) -> str:
        """Describes what is trained, its cost and, by a short measurement, its duration."""
        trainer, stage = (self.rehearsal or self.trainer)(), self.settings.training
        model = trainer.objective.model
        own = dict(trained(trainer.module))
        count = sum(p.numel() for p in own.values())
        total = sum(p.numel() for p in model.parameters())
        here, learns = _here(model.parameters()), _here(own.values())
        memory = 4 * (here + 4 * learns) / 2**20  # weights; gradient, two moments, average
        seconds = _seconds(trainer)
        lines = [
            *([self.read] if self.read else []),
            *([f"first       {self.before}"] if self.before else []),
            f"trains      {', '.join(stage.trainable)}: {len(own)} tensors, {count:,} parameters",
            *_adapter(self.settings),
            f"frozen      {total - sum(p.numel() for n, p in own.items() if n[:6] == 'model.'):,}",
            f"memory      {memory:,.0f} MiB a device in float32, without activations",
            f"batch       {stage.batch}: {_mixture(stage.counts(stage.opening_steps))}",
            f"optimizer   {stage.optimizer}, rate {stage.lr:g}, warm-up {stage.warmup} steps",
            f"measured    {_held(trainer):,.0f} MiB at most, with activations and the program",
            f"steps       {stage.steps:,}, {seconds:.2f} s each here",
            f"time        {_clock(seconds * stage.steps)} on {trainer.world} process(es)",
        ]
        return "\n".join([*lines, *(f"warning     {said}" for said in warnings_of(self.settings))])


def warnings_of(settings: Settings) -> list[str]:
    """Returns warnings about settings that are probably mistakes."""
    stage, steps = settings.training, settings.steps
    found = []
    if stage.warmup > steps:
        found.append(
            f"the warm-up of {stage.warmup:,} steps is longer than the run of {steps:,}, whose "
            f"rate ends at {learning_rate(stage, steps - 1):.3g} of {stage.lr:.3g}; set "
            f"training.warmup={max(1, steps // 10)}"
        )
    if stage.opening and stage.opening_steps >= steps:
        found.append(
            f"the opening mixture lasts {stage.opening_steps:,} steps, the whole run; set "
            "training.opening_steps"
        )
    align = settings.alignment
    if align is not None and align.until is not None and align.until >= steps:
        found.append(f"alignment.until is step {align.until:,}, after the run's end at {steps:,}")
    return found


def _adapter(settings: Settings) -> list[str]:
    own = settings.adapter
    return [f"adapter     rank {own.rank}, alpha {own.alpha:g}"] if own else []


def _seconds(trainer: Trainer) -> float:
    """Returns the seconds of a step, the fastest of a few that fit into half a minute, or of one.

    The trainer is discarded afterwards.
    """
    times = []
    while len(times) < MEASURED and sum(times) < 30:
        started = time.perf_counter()
        trainer.step()
        times.append(time.perf_counter() - started)
    return min(times)


def _here(parameters: Iterable[torch.nn.Parameter]) -> int:
    """Returns the numbers stored on this device; for sharded weights these are a part."""
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in parameters)


def _held(trainer: Trainer) -> float:
    """Returns the peak memory so far in MiB, of the GPU or of this process."""
    device = trainer.accelerator.device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES


def _mixture(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _clock(seconds: float) -> str:
    minutes = int(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes + 1} min"


def of_recipe(
    name: str,
    out: Path,
    changes: dict | None = None,
    start: str | Path | None = None,
    data: Sequence[Path] = (),
) -> TrainJob:
    """Plans the training of a small model on the world of scenes or a collection's folder, from
    nothing or from the run or model in `start`.

    A `start` gives the network, the tokenizer, the autoencoder and the vision encoder; the recipe
    gives the data, their shares and the optimizer. Raises ValueError for an unknown recipe, and for
    a `start` that cannot be trained on these data.
    """
    _check_out(out)
    begun = None if start is None else beginning.of_recipe(start, out)
    recipe, rest = beginning.recipe_of(name, changes or {}, begun)
    chosen = settings.changed(init_checkpoint.of_recipe(recipe), rest)
    if chosen.data != Data():
        raise ValueError(
            "a recipe brings its own samples, and a setting of data. was given; leave it out, or "
            "train by --stage"
        )
    world, base, run = world_of(recipe, data), out / "base", chosen.run
    if begun is not None:
        world.check(begun.under)
    meta = {"recipe": recipe.to_json()} | ({"init_from": begun.name} if begun else {})

    def trainer() -> Trainer:
        accelerator = accelerator_of(chosen, out)
        out.mkdir(parents=True, exist_ok=True)
        with accelerator.main_process_first():  # transformers saves on the first rank alone
            if begun is None:
                world.first_model(base, run.workers)
            elif accelerator.is_main_process:
                begun.write()
        source = world.batches(base)
        source = Ahead(source, run.workers) if run.workers else source
        made = loop.trainer_of(chosen, base, source, accelerator)
        if begun is not None:
            begun.lend_heads(made.state)
        return made

    def preview() -> Preview:
        processor = JanusFlowProcessor.from_pretrained(base)
        prompts = run.sample_prompts or world.prompts(COUNT)
        return Preview(processor, load_vae(base, None), prompts, chosen.training.seed)

    return TrainJob(
        chosen,
        trainer,
        out,
        meta,
        preview=preview if run.sample_every else None,
        held_out=partial(world.held_out, base, run.evaluate_count) if run.evaluate_every else None,
        rehearsal=partial(_rehearsal, chosen, world, begun),
        before=None if begun or (base / "model.safetensors").exists() else world.before or None,
    )


def _rehearsal(chosen: Settings, world: World, begun: beginning.Beginning | None) -> Trainer:
    """Returns a trainer that is discarded; a vision encoder is not trained for it."""
    if begun is not None:
        return loop.trainer_of(chosen, begun.under, world.batches(begun.under))
    with tempfile.TemporaryDirectory() as folder:
        world.untrained(Path(folder))
        return loop.trainer_of(chosen, Path(folder), world.batches(Path(folder)))


def of_stage(
    stage: int | str,
    model: str | None,
    data: Path | Sequence[Path] | None,
    out: Path,
    changes: dict | None = None,
    start: str | Path | None = None,
    vae: str | None = None,
) -> TrainJob:
    """Plans a stage of the paper, or "tune", on data files, starting from a model or from another
    run.

    `start` is that run's folder; its averaged weights over its own initial model (or `model`) are
    written into `out` in float32 and trained from there. It may be a model folder too. Kinds of
    sample that the data does not have are removed from the mixture. Raises ValueError if none is
    left.
    """
    chosen = settings.changed(settings.of_stage(stage), changes or {})
    _check_out(out)
    _check_data(chosen, data)
    begun = beginning.of_stage(model, start, out)
    processor = beginning.processor_of(begun.under)
    encode = Latents(init_checkpoint.autoencoder_of(begun.under, vae))
    kept = chosen.data.cache
    cached = cached_features.find(chosen, data, encode.vae, processor) if kept else None
    mixture = _opened(chosen, data, out, begun.under, encode, processor, cached)
    ahead = chosen.run.workers
    chosen = replace(chosen, training=with_kinds(chosen.training, set(mixture.sources)))

    def built(folder: Path, accelerator) -> Trainer:
        encode.vae.to(accelerator.device)
        source = Ahead(mixture, ahead, encode) if ahead else mixture
        made = loop.trainer_of(chosen, folder, source, accelerator, encode.vae)
        if cached is not None:
            cached_features.teach(made, cached)
        return made

    def trainer() -> Trainer:
        accelerator = accelerator_of(chosen, out)
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                begun.write()
        return built(begun.folder, accelerator)

    def preview() -> Preview:
        prompts = chosen.run.sample_prompts or captions(mixture)
        return Preview(processor, encode.vae, prompts, chosen.training.seed)

    held_out = partial(_held_out, chosen, begun.under, processor, encode)
    return TrainJob(
        chosen,
        trainer,
        out,
        {"model": begun.name} | dataset_report.meta(mixture),
        preview=preview if chosen.run.sample_every else None,
        held_out=held_out if chosen.run.evaluate_every else None,
        rehearsal=lambda: built(begun.under, accelerator_of(chosen, out)),
        read=dataset_report.describe(mixture),
    )


def _check_out(out: Path) -> None:
    """Raises ValueError if the run's folder is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {str(out)!r} is a file; name a folder for the run")


def _opened(
    chosen: Settings, data, out: Path, model: Path, encode: Latents, processor, cached
) -> Mixture:
    """Opens the data of a stage; loader processes leave the encoding of latents to this one."""
    reader = None if chosen.run.workers else encode
    read = chosen.training.seed, chosen.run.max_bad_samples
    unit = pixels_per_latent(encode.vae) * JanusFlowConfig.from_pretrained(model).generation.patch
    return open_data(data, processor, reader, *read, chosen.data, cached, [out], unit)


def _held_out(chosen: Settings, folder: Path, processor, encode: Latents) -> HeldOut:
    """Returns the first samples of `data.held_out`, and prompts for the scorer if requested."""
    count, samples, requests = chosen.run.evaluate_count, [], ()
    if chosen.data.held_out is not None:
        options = _of_held_out(chosen)
        mixture = open_data(Path(chosen.data.held_out), processor, encode, options=options)
        samples = mixture.draw(0, counts={"generation": count})
    if chosen.run.evaluate_scorer:
        known = of_world(folder, count)
        samples, requests = samples or known.samples, known.requests
    return HeldOut(samples, requests, encode.vae)


def _of_held_out(chosen: Settings) -> Data:
    return replace(chosen.data, crop="center", cache=None, weights=(), buckets="")


def _check_data(chosen: Settings, data) -> None:
    """Raises ValueError, before anything is trained, for a stage or an evaluation without data, and
    for held-out data that cannot be used or that nothing looks at.
    """
    if not data:
        raise ValueError(
            "a stage needs data and --data is missing; name a folder, or a file that ends in "
            ".jsonl, .json, .parquet, .tar or .txt"
        )
    folder, every = chosen.data.held_out, chosen.run.evaluate_every
    if every and folder is None and not chosen.run.evaluate_scorer:
        raise ValueError(
            "run.evaluate_every needs something to evaluate on: set data.held_out to a folder that "
            "is not trained on, or run.evaluate_scorer=true for a model of scenes"
        )
    if folder is None:
        return
    if not every:
        raise ValueError(
            f"data.held_out is {folder!r}, and nothing evaluates on it; set run.evaluate_every to "
            "the steps between two evaluations"
        )
    kinds = [kind for kind, _ in readers.scan(Path(folder), _of_held_out(chosen)).sources]
    if "generation" not in kinds:
        raise ValueError(
            f"data.held_out {folder!r} has no images with captions; name a folder that has"
        )


def captions(mixture: Mixture) -> list[str]:
    """Returns the first readable texts of generation samples. Raises ValueError without any."""
    found = []
    sources = mixture.sources["generation"].sources if "generation" in mixture.sources else []
    for records in (source.records for source in sources):
        for index in range(min(COUNT, len(records))):
            try:
                found.append(records[index].text)
            except BrokenSample:
                continue
    if not found:
        raise ValueError(
            "the data has no captions to generate previews from; set run.sample_prompts"
        )
    return found[:COUNT]


def with_kinds(stage, kinds: set[str]):
    """Returns the stage with a mixture of only the kinds that the data has."""

    def kept(shares: dict | None) -> dict | None:
        return shares and {kind: share for kind, share in shares.items() if kind in kinds}

    if not sum(kept(stage.mixture).values()):
        raise ValueError(
            f"the data has only {', '.join(kinds)}, and the stage trains on "
            f"{', '.join(stage.mixture)}; give such data by --data"
        )
    return replace(stage, mixture=kept(stage.mixture), opening=kept(stage.opening))


__getattr__ = old_names(__name__, {"Plan": "TrainJob"})
