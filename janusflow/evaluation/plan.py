"""The plan of an evaluation, everything that determines its result, stored with its answers."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from janusflow.evaluation import provenance
from janusflow.scenes.world import SPLITS
from janusflow.utils.keywords import choice
from janusflow.utils.limits import hold, whole
from janusflow.utils.locked_dir import write
from janusflow.utils.safe_io import check_file
from janusflow.utils.text import printable
from janusflow.utils.typed import built

FILE = "protocol.json"
GROWS = ("splits", "prompts", "seeds")  # more of them can be added to what a folder holds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything on which a report depends except the versions of the libraries."""

    task: str
    model: str  # as the user named it
    weights: dict[str, str]  # sha256 of each file
    lora: str = ""  # an adapter, as the user named it; its files are among the weights
    dtype: str
    device: str = "cpu"
    side: int  # pixels of an image
    splits: tuple[str, ...] = ("test",)
    prompts: int = 100  # per category, or questions per template
    seeds: int = 4  # images per prompt
    sampler: str = "euler"
    grid: str = "uniform"
    steps: int = 30
    guidance: str = "2"
    generated_by: str = ""  # the few-step model whose weights generate images, or the model's own
    reuse: float | None = None  # tolerance
    best_of: int = 1  # candidates an image, of which the verifier keeps one
    verifier: str = "own"
    tokenizer: str = "own"  # or a fault of a sweep, see evaluation/reproduction/settings.py
    cycles: int = 3  # of `telephone`: captions that become images
    batch: int = 16
    paths: dict[str, str] = field(default_factory=dict)  # what a task reads, by its role
    digests: dict[str, str] = field(default_factory=dict)  # of what lies there

    def __post_init__(self):
        for name in ("prompts", "seeds", "steps", "batch", "side", "cycles", "best_of"):
            whole(getattr(self, name), name, "number")
        hold("items", self.prompts * self.seeds, f"{self.prompts} prompts with {self.seeds} seeds")
        for split in self.splits or ("",):
            choice("no split to evaluate named", split, [n for n in SPLITS if n != "train"])

    @property
    def fingerprint(self) -> str:
        return provenance.fingerprint(self.weights)

    def only(self, names: Iterable[str]) -> dict:
        return {name: getattr(self, name) for name in names}


def claim(plan: Plan, folder: Path, fields: Iterable[str]) -> None:
    """Writes the plan into a folder, or checks that the folder's plan has the same values of
    `fields`.

    Raises ValueError if they differ, and for a folder with other contents.
    """
    check_folder(folder)
    if (folder / FILE).exists():
        names = ("task", "fingerprint", *(name for name in fields if name not in GROWS))
        old, new = read(folder).only(names), plan.only(names)
        for name in names:
            if old[name] != new[name]:
                raise ValueError(
                    f"{str(folder)!r} holds answers with {name} {old[name]}, not {new[name]}; "
                    "choose another --out"
                )
    write(folder / FILE, json.dumps(asdict(plan), indent=1) + "\n")


def check_folder(folder: Path) -> None:
    """Raises ValueError unless the folder is new, empty or an evaluation."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is a file; choose a folder for --out")
    if folder.exists() and not (folder / FILE).exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(
                f"{str(folder)!r} holds files but no {FILE}; choose an empty folder for --out"
            )


def read(folder: Path) -> Plan:
    """Returns the plan in a folder. Raises ValueError if there is none or it is damaged."""
    path = folder / FILE
    try:
        values = json.loads(check_file(path).read_text(encoding="utf-8"))
        return built(Plan, values, str(path))
    except OSError as error:
        raise ValueError(
            f"{str(folder)!r} holds no {FILE} ({error.strerror}); name a folder that "
            "`janusflow evaluate` filled"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = printable(error, 160)
        raise ValueError(f"{path} is damaged ({reason}); evaluate into another folder") from error
