"""Trains up to a step and prints each loss: started alone, and by torchrun in two processes.

torchrun --nproc_per_node 2 -m checks.two_processes OUT STEPS [ALIGNMENT]
"""

import json
import sys
from pathlib import Path

from janusflow.training import job


def main(out: str, steps: str, alignment: str = "janusflow") -> None:
    changes = {"run.sharded": True, "alignment": alignment}
    plan = job.of_recipe("scenes-smoke", Path(out), changes)
    trainer = plan.trainer()
    trainer.restore(Path(out))
    losses = [trainer.step()["loss"] for _ in range(int(steps) - trainer.state.step)]
    trainer.save(Path(out), plan.meta)
    if trainer.rank == 0:
        print(json.dumps({"losses": losses, "world": trainer.world}))


if __name__ == "__main__":
    main(*sys.argv[1:])
