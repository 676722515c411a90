"""Trains up to a step and prints each loss: started alone, and by torchrun in two processes.

torchrun --nproc_per_node 2 -m checks.two_processes OUT STEPS
"""

import json
import sys
from pathlib import Path

from janusflow.training import job


def main(out: str, steps: str) -> None:
    plan = job.of_recipe("scenes-smoke", Path(out), {"run.sharded": True})
    engine = plan.engine()
    engine.restore(Path(out))
    losses = [engine.step()["loss"] for _ in range(int(steps) - engine.state.step)]
    engine.save(Path(out), plan.meta)
    if engine.rank == 0:
        print(json.dumps({"losses": losses, "world": engine.world}))


if __name__ == "__main__":
    main(*sys.argv[1:])
