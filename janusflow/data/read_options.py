"""Settings of how a training reads its data files."""

from dataclasses import dataclass

from janusflow.data.image_sizes import MIN_SIDE
from janusflow.utils import limits
from janusflow.utils.keywords import choice

CROPS = ("random", "center")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Settings that, together with the files, determine the samples of each step."""

    crop: str | None = None  # of images to be generated; None: random, or center where cached
    cache: str | None = None  # folder that `janusflow precompute` wrote
    held_out: str | None = None  # a file or folder that evaluations see and training does not
    weights: tuple[float, ...] = ()  # one for each --data; by the number of samples unless told
    streaming: bool = False  # parquet in its order, shuffled in a buffer, instead of memory-mapped
    buffer: int = 1000  # rows of that buffer
    buckets: str = ""  # aspect ratios that images may keep, as "1:1 4:3 3:4"; none: square
    ignore: tuple[str, ...] = ()  # keys of rows that may stand there without being read
    min_side: int = MIN_SIDE  # pixels; images with a shorter side are skipped as broken

    def __post_init__(self):
        if self.crop is not None:
            choice("data.crop is", self.crop, CROPS)
        if self.cache is not None and self.crop == "random":
            raise ValueError(
                "data.crop is random, but a cache holds one crop of each image; set it to center "
                "or leave out the cache"
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"data.weights is {self.weights}; expected numbers above 0")
        if self.buckets and (self.cache is not None or self.streaming):
            other = "data.cache" if self.cache is not None else "data.streaming"
            raise ValueError(f"data.buckets does not go with {other}; leave one of them out")
        limits.within("data.min_side", self.min_side, 1)
        limits.within("data.buffer", self.buffer, 1)

    @property
    def centered(self) -> bool:
        return self.crop == "center" or self.cache is not None
