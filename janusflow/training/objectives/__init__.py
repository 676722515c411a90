"""Training objectives by name; `objective` defines what an objective is."""

from janusflow.training.objectives import dmd as dmd
from janusflow.training.objectives import flow as flow
from janusflow.training.objectives import flow_map as flow_map
from janusflow.training.objectives import grpo as grpo
from janusflow.training.objectives import maps as maps
from janusflow.training.objectives import matching as matching
from janusflow.training.objectives import nft as nft
from janusflow.training.objectives import reca as reca
from janusflow.training.objectives import retain as retain
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
