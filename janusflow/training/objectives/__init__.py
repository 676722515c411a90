"""Training objectives by name; `objective` defines what an objective is."""

# ruff: noqa: F401 (importing a file registers its objective)
from janusflow.training.objectives import (
    dmd,
    flow,
    flow_map,
    grpo,
    maps,
    matching,
    nft,
    reca,
    retain,
)
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import (
    FLOW,
    OBJECTIVES,
    Context,
    Objective,
    find,
    make,
    objective,
    settled,
)

__all__ = [
    "FLOW",
    "OBJECTIVES",
    "Batch",
    "Context",
    "Network",
    "Objective",
    "find",
    "make",
    "objective",
    "settled",
]
