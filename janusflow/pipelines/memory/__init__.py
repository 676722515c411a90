"""A pipeline's memory: forecast before it is built, and limited while images are decoded."""

from janusflow.pipelines.memory.available import check_room, free, of_program
from janusflow.pipelines.memory.forecasts import (
    Forecast,
    Living,
    check_sides,
    decoding,
    factor,
    forecast,
    held,
    of_folder,
    sampling,
    unbuilt,
)
from janusflow.pipelines.memory.tiles import DecodingPolicy, decode, fitting, tiled

__all__ = [
    "DecodingPolicy",
    "Forecast",
    "Living",
    "check_room",
    "check_sides",
    "decode",
    "decoding",
    "factor",
    "fitting",
    "forecast",
    "free",
    "held",
    "of_folder",
    "of_program",
    "sampling",
    "tiled",
    "unbuilt",
]
