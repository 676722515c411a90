"""A pipeline's memory: forecast before it is built, and limited while images are decoded."""

# ruff: noqa: F401 (names of `memory`, as its users have them)
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
