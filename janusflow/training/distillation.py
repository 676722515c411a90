"""Sets up distillation to one, two and four evaluations for a model of the world of scenes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.packed_attention import use_packed_attention
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.processor_files import tokenizer_in
from janusflow.training import config as settings
from janusflow.training import export, init_checkpoint, loop, objectives
from janusflow.training.beginning import flow_folder
from janusflow.training.build import accelerator_of
from janusflow.training.config_stages import ALL_BUT_VISION, Stage
from janusflow.training.encoding import weights_of
from janusflow.training.job import TrainJob
from janusflow.training.pairs import Pairs, PairSettings, make
from janusflow.training.rewards.prompts import SHARES, Prompts
from janusflow.training.trainer import Trainer
from janusflow.utils.atomic_io import write_text
from janusflow.utils.hub import FLOW_MAP, REFLOW
from janusflow.utils.safe_io import parse_object, read_prompts, read_text
from janusflow.utils.text import explained

STAGE = Stage(  # 48 prompts a step, and a third as many conversations
    trainable=ALL_BUT_VISION,
    lr=4e-4,
    warmup=10,
    steps=320,
    batch=64,
    mixture={"generation": 48, "understanding": 16},
    schedule="linear",
    decay_from=0.5,
    ema=0.98,
    cond_dropout=0.0,
)


def plan(
    model: str,
    out: Path,
    changes: Mapping[str, object] | None = None,
    start: Path | None = None,
    categories: Sequence[float] = SHARES,
    made: Path | None = None,
    student: str | None = None,
) -> TrainJob:
    """Sets up the training of `student` (default: `model`) to follow `model`'s guided trajectories
    in few evaluations.

    `categories` are the shares of prompts of SPLITS["train"]. The teacher samples on its grid of
    the quality "fast" with that quality's guidance, unless `changes` (those of `--set`) say
    otherwise. The export contains the times for `pipe.flow_map`. With `made`, a folder of pairs,
    the training is reflow instead, and its export counts the rounds. Raises ValueError for a
    student with another tokenizer, latents or autoencoder than the teacher.
    """
    folder = flow_folder(model)
    if student is None and start is not None and export.is_model(start):
        student, start = str(start), None
    if made is not None:
        return _reflow(flow_folder(student) if student else folder, out, changes, start, made)
    if student is not None and start is not None:
        raise ValueError(
            f"the student begins with the weights of --student {student} or of --init-from "
            f"{start}; give one of them"
        )
    changes = dict(changes or {})
    draws = objectives.find(name := _objective(changes)).draws
    own = init_checkpoint.of_objective(STAGE, folder, name, 20, sampled=draws, guided=True)
    chosen = settings.changed(own, changes)
    vae = init_checkpoint.autoencoder_of(folder)
    prompts = Prompts(init_checkpoint.batches(folder, seed=chosen.training.seed), 1, categories)
    scenes = replace(prompts.batches, categories=tuple(categories))
    data = prompts if draws and not chosen.objective.get("adversarial", 0) else scenes
    first, meta = folder, prompts.told()
    if student is not None:
        first = flow_folder(student)
        _check_student(folder, first, vae)
        meta["teacher"] = weights_of(_teacher(folder))

    def trainer() -> Trainer:
        made = loop.trainer_of(chosen, first, data, accelerator_of(chosen, out), vae)
        main = made.objective.main
        if not hasattr(main, "jumps"):
            raise ValueError(f"the objective {name!r} trains no flow map; choose flow_map")
        if student is not None:
            teacher = _teacher(folder).to(made.accelerator.device)
            if chosen.run.packed:
                use_packed_attention(teacher)
            main.teach(teacher)
        if getattr(main, "reward", None) or getattr(main, "answers", 0):
            main.processor = JanusFlowProcessor.from_pretrained(first)
        out.mkdir(parents=True, exist_ok=True)
        told = main.jumps() | {"guidance": chosen.objective["guidance"]}
        write_text(out / FLOW_MAP, json.dumps(told))
        return made

    return TrainJob(chosen, trainer, out, {"model": str(first)} | meta, start)


def _teacher(folder: Path) -> JanusFlowModel:
    return JanusFlowModel.from_pretrained(folder, dtype=torch.float32)


def _check_student(teacher: Path, student: Path, vae: torch.nn.Module) -> None:
    """Raises ValueError if student and teacher have different tokenizers or latents."""
    for name, alike in {
        "tokenizer": _words(teacher) == _words(student),
        "autoencoder": weights_of(vae) == weights_of(load_vae(student, None)),
    }.items():
        if not alike:
            raise ValueError(
                f"the student {student} has another {name} than its teacher {teacher}; choose a "
                "student that was trained from the same model"
            )


def _words(folder: Path) -> dict[str, int]:
    return tokenizer_in(folder).get_vocab()


def _reflow(folder: Path, out: Path, changes, start: Path | None, made: Path) -> TrainJob:
    own = init_checkpoint.of_objective(STAGE, folder, "reflow", 20, sampled=False, guided=False)
    ends = {"training.density": "u_shaped"}  # Lee et al. 2024, arXiv 2405.20320
    chosen = settings.changed(own, ends | dict(changes or {}))
    seed = chosen.training.seed
    data = Pairs(made, init_checkpoint.batches(folder, seed=seed), seed)
    told = data.settings()

    def trainer() -> Trainer:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / REFLOW, json.dumps({"round": told["round"]}))
        return loop.trainer_of(chosen, folder, data, accelerator_of(chosen, out))

    return TrainJob(chosen, trainer, out, {"model": str(folder)}, start)


def pairs(
    model: str,
    out: Path,
    count: int,
    prompts: Path | None = None,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    **how,
) -> dict[str, float]:
    """Makes noise-data pairs of `model`'s flow for the prompts of a file or the training prompts of
    the scenes.

    See `training.pairs.make`.
    """
    folder = flow_folder(model)
    vae = init_checkpoint.autoencoder_of(folder)
    network = JanusFlowModel.from_pretrained(folder, dtype=torch.float32).eval()
    source = Prompts(init_checkpoint.batches(folder), 1)
    if prompts is None:
        samples = [source.one(i) for i in range(count)]
    else:
        samples = [source.text(line) for line in read_prompts(prompts)]
    rounds = folder / REFLOW
    before = parse_object(read_text(rounds, "config_bytes"), rounds) if rounds.is_file() else {}
    with explained(f"{rounds} holds no number of rounds", "run janusflow distill --pairs again"):
        done = int(before.get("round", 0))
    told = PairSettings(
        model=str(model),
        weights=weights_of(network),
        count=count,
        seed=seed,
        round=done + 1,
        **how,
    )
    return make(network, vae, samples, told, out, part)


def _objective(changes: Mapping[str, object]) -> str:
    """Returns the objective's name in the changes, or "flow_map"."""
    whole = changes.get("objective")
    named = whole.get("name") if isinstance(whole, Mapping) else whole
    return str(changes.get("objective.name", named or "flow_map"))
