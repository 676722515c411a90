"""The trainer, on accelerate. Samples and random numbers of a step are functions of (seed, step).

So an interrupted run ends with the same bits as an uninterrupted one.
"""

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from janusflow.data.drawing import share
from janusflow.data.samples import KINDS, Sample
from janusflow.training import checkpoints, config, losses, resume_checks
from janusflow.training import sharded_checkpoints as shards
from janusflow.training.alignment import repa
from janusflow.training.config import Settings
from janusflow.training.ema import State, average, fill_gradients, load, tensors
from janusflow.training.loss_module import Batch, LossModule, draw
from janusflow.training.objectives.objective import KEPT
from janusflow.training.schedules import learning_rate
from janusflow.utils.cpu.onednn_linear import repeating
from janusflow.utils.keywords import old_names
from samplers.fields import widest

BINS = 10
AFTER = "no weight was changed."
COUNTED = 2 * BINS + 5  # a step's sums beside its losses, in these places from the end
BY_TIME, PRODUCTS, TOKENS, STOPPED = slice(-COUNTED, -5), slice(-5, -2), -2, -1


class BatchSource(Protocol):
    """The source of samples, a pure function of its arguments.

    `counts` are the samples of each kind in the step's global batch, `start` those of all earlier
    steps.
    """

    def draw(
        self, step: int, rank: int, world: int, counts: dict[str, int], start: dict[str, int]
    ) -> list[Sample]: ...


@dataclass
class Trainer:
    """A training in progress. `step()` advances `state`; `save` and `restore` store it in `out`."""

    settings: Settings
    accelerator: Accelerator
    module: nn.Module  # the prepared LossModule
    state: State
    optimizer: torch.optim.Optimizer  # the prepared one
    data: BatchSource
    now: Settings | None = None  # in force at this step
    base: str = ""  # fingerprint of the model that the run begins with
    skipped: list[int] = field(default_factory=list)  # steps whose loss was not finite
    settled: bool = True  # False while the weights move
    changes: dict = field(default_factory=dict)  # of settings, where the run was resumed
    _latest: list = field(default_factory=list)  # micro-batches of this step and their losses

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def objective(self) -> LossModule:
        return self.accelerator.unwrap_model(self.module, keep_torch_compile=False)

    # One step

    def step(self, stop: bool = False) -> dict:
        """Performs one update and returns means over all processes.

        They are each loss unweighted, their weighted sum "loss", sums and counts of the flow loss
        by t, tokens, the gradient norm, and whether any process was asked to stop. Raises
        FloatingPointError if the loss is not finite.
        """
        number = self.state.step
        totals = self.gradients(number)
        totals[STOPPED] = stop
        found = self._means(self.accelerator.reduce(totals, "sum"), number)
        fill_gradients(self.state)
        stage = self.now.training
        parameters = list(self.state.parameters.values())
        norm = float(_whole(self.accelerator.clip_grad_norm_(parameters, stage.max_grad_norm)))
        if not math.isfinite(norm):  # the same on all processes, and before the weights move
            raise FloatingPointError(
                f"the gradient{self._bad_gradient(number)} is not finite at step {number}; {AFTER}"
            )
        rate = learning_rate(stage, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        self.settled = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self._latest.clear()
        average(self.state, stage.ema)
        main = self.objective.main
        main.updated(self.state.step)
        self.settled = True
        return found | {"grad_norm": norm, "lr": rate, "measured": main.measured()}

    def skip(self) -> None:
        """Skips the current step: no weight changes, and the next step uses the next batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped.append(self.state.step)
        self.state.step += 1
        self._latest.clear()

    def _enter(self, number: int) -> None:
        """Applies the settings of this step, if they change during the run."""
        if self.now is None or number in self.settings.later:
            self.now = self.settings.at(number)
            self.objective.enter(self.now.training, self.now.alignment)
            stage = self.now.training
            for group in self.optimizer.param_groups:
                own = {"weight_decay": stage.weight_decay * group.get("decays", True)}
                own |= {"betas": stage.betas}
                group.update({key: value for key, value in own.items() if key in group})

    def _follow(self) -> None:
        """Tells the batch source how many samples each step needs, so that it can prepare them."""
        if hasattr(self.data, "follow"):
            self.data.follow(self.settings.schedule, self.settings.steps)

    @repeating()
    def gradients(self, number: int) -> Tensor:
        """Computes the gradient of a step into the parameters; returns this process's sums."""
        self._enter(number)
        schedule = self.settings.schedule
        counts, start = schedule.counts(number), schedule.start(number)
        samples = self.data.draw(number, self.rank, self.world, counts, start)
        rows = share(counts.get("generation", 0), self.rank, self.world)
        samples = self.objective.main.prepare(samples, rows, number)
        counts, rows = self._multiplied(counts, rows)
        torch.manual_seed(self.now.training.seed * 1_000_003 + number * self.world + self.rank)
        parts = self.settings.run.accumulation
        size, place = len(self.objective.names) + COUNTED, self.accelerator.device
        totals = torch.zeros(size, dtype=widest(place), device=place)
        self._latest.clear()
        for part in range(parts):
            chosen, mine = _micro(samples, rows, part, parts)
            with self.accelerator.accumulate(self.module):
                total, sums = self._forward(chosen, number, mine, counts)
                # accelerate divides by the micro-batches, DDP and FSDP by the processes
                self.accelerator.backward(total * parts * self.world)
            totals += sums
        return totals

    def _multiplied(self, counts: dict[str, int], rows: range) -> tuple[dict[str, int], range]:
        """Returns counts and rows after an objective multiplied the generation samples."""
        times = self.objective.main.factor
        made = counts.get("generation", 0) * times
        rows = range(rows.start * times, rows.stop * times)
        return counts | ({"generation": made} if made else {}), rows

    def _forward(self, samples, number: int, rows, counts) -> tuple[Tensor, Tensor]:
        """Returns this micro-batch's part of the global loss, and the sums for the log."""
        whole = counts.get("generation", 0)
        stage, device = self.now.training, self.accelerator.device
        batch = draw(stage, samples, number, rows, whole, device)
        with self._watched(number) as states:
            parts = self.module(batch)
        self._latest.append((batch, {name: x.detach() for name, x in parts.items()}))
        touch = parts.pop("touch", 0.0)
        answers = sum(count for kind, count in counts.items() if kind != "generation")
        weights, total = self.objective.weights(number), torch.zeros((), device=device)
        names = self.objective.names
        sums = torch.zeros(len(names) + COUNTED, dtype=widest(device), device=device)
        for name, values in parts.items():
            whose = answers if self.objective.rows_of(name) == "answers" else whole
            mean = values.sum() / whose
            total = total + weights[name] * mean
            sums[names.index(name)] = mean.detach()
        if names[0] in parts and len(parts[names[0]]) == len(batch.t):
            by_time = losses.by_time(parts[names[0]], batch.t, BINS)
            sums[BY_TIME] = torch.cat(by_time).to(device)
        if states:
            sums[PRODUCTS] = self._products(parts, weights, states[0])
        sums[TOKENS] = self.objective.tokens(samples)
        return total + touch, sums

    def _watched(self, number: int) -> AbstractContextManager[list[Tensor]]:
        """Records the aligned block's output in steps in which gradients are compared."""
        every, aligner = self.settings.run.watch_every, self.objective.aligner
        due = every and (number + 1) % every == 0 and aligner is not None
        if not due or not aligner.protocol.strength(number):
            return nullcontext([])
        return repa.watching(self.objective.model, aligner.tap)

    def _products(self, parts: dict[str, Tensor], weights: dict[str, float], state: Tensor):
        first = self.objective.names[0]
        pulls = [weights[n] * x for n, x in parts.items() if n not in (first, "next_token")]
        if not pulls or not state.requires_grad:  # nothing before the block learns
            return torch.zeros(3)
        return repa.gradient_products(parts[first], sum(pulls), state)

    def _means(self, totals: Tensor, number: int) -> dict:
        values = totals.tolist()
        weights, names = self.objective.weights(number), self.objective.names
        found = {n: v for n, v in zip(names, values, strict=False) if weights.get(n) and v}
        loss = sum(weights[name] * value for name, value in found.items())
        if not torch.isfinite(torch.tensor(loss)):
            named = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            raise FloatingPointError(
                f"the loss is not finite at step {number}: {named}; {self._blame()}; {AFTER}"
            )
        pulls = totals[PRODUCTS]
        cosine = {"gradient_cosine": float(repa.cosine(pulls))} if pulls[1] else {}
        return {
            "parts": found,
            "weights": {name: weights[name] for name in found},
            "loss": loss,
            "by_time": (values[BY_TIME][:BINS], values[BY_TIME][BINS:]),
            "tokens": int(values[TOKENS]),
            "stop": values[STOPPED] > 0,
        } | cosine

    def _blame(self) -> str:
        """Returns the first sample of this process whose loss is not finite, with its time."""
        for batch, parts in self._latest:
            for name, values in parts.items():
                for i in (~values.reshape(-1).isfinite()).nonzero()[:1, 0].tolist():
                    return _culprit(batch, name, i)
        return "the sample is another process's"

    def _bad_gradient(self, number: int) -> str:
        """Returns the weight with the bad gradient, computed again, as clipping has spread it."""
        self.optimizer.zero_grad(set_to_none=True)
        self.gradients(number)
        for name, parameter in self.state.parameters.items():
            if parameter.grad is not None and not bool(_whole(parameter.grad).isfinite().all()):
                return f" of {name!r}"
        return "'s norm"

    # Checkpoints

    def save(self, out: Path, meta: dict[str, str], keep: int | None = None) -> None:
        """Writes a checkpoint of this step into `out` and keeps the newest `keep` (default
        `run.keep`).

        All processes must call it.
        """
        run, step, world = self.settings.run, self.state.step, self.world
        named = tensors(self.state) | self.objective.state_tensors()
        sharded = [name for name, x in named.items() if hasattr(x, "to_local")]
        meta = meta | {"step": str(step), "settings": json.dumps(self.settings.as_dict())}
        meta["skipped"] = json.dumps(self.skipped)
        if sharded and run.sharded:
            folder, wait = shards.path_of(out, step), self.accelerator.wait_for_everyone
            shards.write(folder, named, meta, self.rank, world, wait)
        else:
            named = {name: _whole(x) for name, x in named.items()}
            if self.rank == 0:
                checkpoints.write(checkpoints.path_of(out, step), named, meta)
        self.accelerator.wait_for_everyone()
        if self.rank == 0:
            checkpoints.clean(out, keep or run.keep, run.milestone_every, step)

    def restore(self, out: Path, meta: dict[str, str] | None = None) -> bool:
        """Resumes from the newest complete checkpoint in `out`; returns False if there is none.

        `meta` describes the current data and initial model. Settings that may change do so from
        here on. Raises ValueError for a change that is not allowed.
        """
        for step in checkpoints.complete(out):
            try:
                found, theirs = self._read(out, step)
            except ValueError as error:
                checkpoints.passed_over(error)
                continue
            before = config.from_dict(checkpoints.settings_of(theirs))
            resume_checks.guard(meta or {}, theirs, self.settings.run.allow, out)
            self.settings, self.changes = resume_checks.continued(self.settings, before, step, out)
            if found is None:
                folder = shards.path_of(out, step)
                shards.load(self.state, folder, step)
                found = shards.read(folder, lambda name: name.startswith(KEPT))
            else:
                load(self.state, found, step)
            self.objective.load_tensors(found)
            self.skipped = [int(number) for number in json.loads(theirs.get("skipped", "[]"))]
            self.now = None
            self._follow()
            return True
        return False

    def _read(self, out: Path, step: int) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        """Returns a checkpoint's tensors and metadata; for sharded ones None, as each process loads
        its own.

        Raises ValueError if it is damaged.
        """
        split = any(hasattr(x, "to_local") for x in self.state.ema.values())
        if not (split and checkpoints.is_sharded(out, step)):
            return checkpoints.read(out, step)
        folder, error = shards.path_of(out, step), None
        try:
            shards.check(folder, self.rank, self.world)
        except ValueError as own:
            error = own
        whole = torch.tensor(float(error is None), device=self.accelerator.device)
        if float(self.accelerator.reduce(whole, "sum")) < self.world:  # the same for all processes
            raise error or ValueError(f"a file of {folder} does not match its checksum")
        return None, shards.read_meta(folder)


def _culprit(batch: Batch, loss: str, index: int) -> str:
    """Describes the sample whose loss has this index."""
    made = loss != "next_token"
    own = [s for s in batch.samples if (s.kind == "generation") == made]
    if index >= len(own):
        return f"its {loss} is the batch's, not one sample's"
    named = f"{loss} of sample {own[index].name or index!r}"
    if not made:
        return named
    if not bool(batch.data[index].isfinite().all()):
        return f"{named}, whose latents hold NaN or infinity"
    return f"{named} at t = {float(batch.t[index]):.4g}"


def _micro(samples: list[Sample], rows: range, part: int, parts: int):
    """Returns the samples of one of `parts` micro-batches, and the rows of its generation samples.

    Each kind of sample is divided evenly. Raises ValueError for a micro-batch without samples.
    """
    chosen, mine = [], []
    for kind in KINDS:
        own = [s for s in samples if s.kind == kind]
        here = share(len(own), part, parts)
        chosen += [own[i] for i in here]
        if kind == "generation":
            mine = [rows[i] for i in here]
    if not chosen:
        raise ValueError(
            f"micro-batch {part + 1} of {parts} got no samples; lower run.accumulation or raise "
            "training.batch"
        )
    return chosen, mine


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


__getattr__ = old_names(__name__, {"Engine": "Trainer", "Draws": "BatchSource"})
