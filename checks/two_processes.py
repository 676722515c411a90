"""Trains a tiny model up to a step, in one process or in several, and prints the losses.

torchrun --nproc_per_node 2 -m checks.two_processes OUT STEPS [ALIGNMENT]
"""

import json
from pathlib import Path

from janusflow.training import job
from samplers import command_line


def main(out: Path, steps: int, alignment: str) -> None:
    changes = {"run.sharded": True, "alignment": alignment}
    plan = job.of_recipe("scenes-smoke", out, changes)
    trainer = plan.trainer()
    trainer.restore(out)
    losses = [trainer.step()["loss"] for _ in range(steps - trainer.state.step)]
    trainer.save(out, plan.meta)
    if trainer.rank == 0:
        print(json.dumps({"losses": losses, "world": trainer.world}))


if __name__ == "__main__":
    main(
        **command_line.positionals(
            __doc__,
            out=(Path, ..., "Stores the run in this folder."),
            steps=(int, ..., "Ends after this step."),
            alignment=(str, "janusflow", "Trains with this preset. The default is janusflow."),
        )
    )
