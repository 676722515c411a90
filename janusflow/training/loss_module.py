"""The computation of a training step as one module, from samples to named losses.

DDP and FSDP therefore see a single forward pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.models.janusflow.packing import length
from janusflow.training import objectives
from janusflow.training.alignment.repa import Aligner
from janusflow.training.config_stages import Stage
from janusflow.training.objectives.flow import AlignmentLosses, NextToken
from janusflow.training.objectives.network import Batch, Network, draw
from janusflow.training.objectives.objective import KEPT

__all__ = ["Batch", "LossModule", "draw"]


class LossModule(nn.Module):
    """The model with what training adds to it: it maps a batch to losses, one value per sample.

    `choice` names the objective of the generation samples and its options; the losses of alignment
    and of the next token are added to it.
    """

    def __init__(
        self,
        model: nn.Module,
        aligner: Aligner | None,
        stage: Stage,
        packed: bool,
        choice: Mapping[str, object] | None = None,
        vae: nn.Module | None = None,
    ):
        super().__init__()
        self.model, self.aligner = model, aligner
        self.stage, self.packed = stage, packed
        # FSDP may cut only where every process passes in every step
        self._no_split_modules = ["LlamaDecoderLayer"]
        self.touched = False  # True with several processes
        context = objectives.Context(model=model, stage=stage, vae=vae)
        self.main = objectives.make(choice or {}, context)
        aligned = [AlignmentLosses(context, aligner)] if aligner is not None else []
        self.objectives = (self.main, *aligned, NextToken(context))

    def enter(self, stage: Stage, protocol) -> None:
        """Applies a stage and alignment settings from this step on."""
        self.stage = stage
        for one in self.objectives:
            one.context = replace(one.context, stage=stage)
        if self.aligner is not None:
            self.aligner.protocol = protocol

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all losses of a step, in the order in which processes sum them."""
        return tuple(dict.fromkeys(name for one in self.objectives for name in one.losses))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the losses of the batch: generation losses (G,), answer losses (A,)."""
        net, parts = self._network(batch), {}
        for one in self._at_work(batch):
            parts |= one(net, batch)
        if self.touched:
            parts["touch"] = self._touch()
        return parts

    def _at_work(self, batch: Batch) -> Iterator[objectives.Objective]:
        made, answers = batch.data is not None, len(batch.made) < len(batch.samples)
        return (one for one in self.objectives if (answers if one.rows == "answers" else made))

    def _network(self, batch: Batch) -> Network:
        align, how = self.aligner, dict(packed=self.packed, capacity=self.stage.capacity)
        reads_x = any(one.at_t for one in self.objectives if one.rows != "answers")
        tap = align.tap if align is not None and align.needs_hidden(batch.step) else None
        attend = align.blocks if tap is not None else ()
        return Network(self.model, batch, reads_x=reads_x, tap=tap, attend=attend, **how)

    def tokens(self, samples: Sequence[Sample]) -> int:
        """Returns how many tokens the language model reads for these samples, without padding."""
        return sum(length(s, self.model.config.generation.patch) for s in samples)

    def _touch(self) -> Tensor:
        """Returns 0 as a function of all weights outside the blocks, which not every process's
        samples use.

        So all processes exchange gradients of the same weights.
        """
        own = [p for n, p in self.named_parameters() if p.requires_grad and ".layers." not in n]
        return sum(p.reshape(-1)[0] * 0 for p in own)

    def weights(self, step: int) -> dict[str, float]:
        """Returns the weight of each loss's mean in the total loss."""
        return {name: w for one in self.objectives for name, w in one.weights(step).items()}

    def rows_of(self, name: str) -> str:
        """Returns over which samples a loss is averaged: "generation" or "answers"."""
        return next(one.rows for one in self.objectives if name in one.losses)

    def state_tensors(self) -> dict[str, Tensor]:
        """Returns what the objectives store in a checkpoint, named objective.NAME."""
        return {f"{KEPT}{name}": x for name, x in self.main.state().items()}

    def load_tensors(self, found: Mapping[str, Tensor]) -> None:
        self.main.load({n.removeprefix(KEPT): x for n, x in found.items() if n.startswith(KEPT)})


Objective = LossModule  # its name of one release ago
