"""The tasks `fid` and `kid`: the distance of a set of images from a reference folder."""

from collections.abc import Callable, Sequence
from functools import cache as once
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from janusflow.evaluation import features, provenance
from janusflow.evaluation.frechet import frechet
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import share, wait
from janusflow.evaluation.task import IMAGE_FIELDS, OFFICIAL_FIELDS, Sources, Task, register
from janusflow.evaluation.tasks import official
from janusflow.evaluation.tasks.official import Shot
from janusflow.utils import safe_io
from janusflow.utils.locked_dir import write

OURS, THEIRS = "features.safetensors", "reference.safetensors"
NETWORK = "network.json"
UNKNOWN = "unknown"  # what an image does not say
MANY = 4  # different values that are listed
SUBSET, SUBSETS = 1000, 100  # images of a subset of the KID, and how many are drawn


def inputs(paths: dict[str, str]) -> dict[str, str]:
    """Returns digests of the reference, and of the images or their prompts."""
    if "reference" not in paths:
        raise ValueError("--reference names no folder; give one of real images")
    if ("pictures" in paths) == ("prompts" in paths):
        raise ValueError("give either --images FOLDER, or --prompts FILE to generate them")
    found = {"reference": features.digest(Path(paths["reference"]), "reference")}
    if "pictures" in paths:
        found["pictures"] = features.digest(Path(paths["pictures"]), "pictures")
    else:
        found["prompts"] = provenance.fingerprint(dict(read_prompts(Path(paths["prompts"]))))
    return found | ({"features": paths["features"]} if "features" in paths else {})


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """Returns name and text of each prompt, from MJHQ-30k's meta_data.json or a text file."""
    if path.suffix != ".json":
        return [(f"{i:05d}", text) for i, text in enumerate(safe_io.read_prompts(path))]
    entries = safe_io.read_object(path, "prompts_bytes")
    if not entries or not all(isinstance(e, dict) and "prompt" in e for e in entries.values()):
        raise ValueError(
            f"{str(path)!r} is not a MJHQ meta_data.json, because a 'prompt' is missing; give "
            "MJHQ-30K's own file"
        )
    for name, entry in entries.items():
        safe_io.check_prompt(str(entry["prompt"]), f"prompt {name!r} of {path}")
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"{str(path)!r} names an image {name!r}; expected a plain file name")
    return [(name, str(entry["prompt"])) for name, entry in entries.items()]


def _shots(plan: Plan) -> list[Shot]:
    texts = dict(read_prompts(Path(plan.paths["prompts"])))
    place = lambda name, seed: Path("pictures", f"{name}-{seed}.png")  # noqa: E731
    return Shot.each("fid", texts, plan.seeds, place)


def make(load: Callable, plan: Plan, folder: Path, settings: dict) -> None:
    """Generates images of the prompts, if any, and computes the features of both folders."""
    if "prompts" in plan.paths:
        official.paint(load, plan, folder, settings, _shots(plan))
        wait()
    if share()[0] == 0:
        _measure(load, plan, folder)


def _measure(load: Callable, plan: Plan, folder: Path) -> None:
    """Computes both folders' features; those of the reference are cached for other evaluations."""
    graphics = torch.cuda.is_available() and not plan.device.startswith("cpu")
    device = torch.device("cuda" if graphics else "cpu")
    net = once(lambda: features.network(plan.paths.get("features", ""), load, device))
    print_of = features.fingerprint(net())
    _forget(folder, print_of)
    real = Path(plan.paths["reference"])
    known = features.cache() / f"{plan.digests['reference']}-{print_of}.safetensors"

    def of(place: Path, role: str) -> Tensor:
        return features.extract(net(), features.files(place, role), plan.batch, device)

    theirs = features.kept(known, lambda: of(real, "reference"))
    features.kept(folder / THEIRS, lambda: theirs)
    place = folder / "pictures" if "prompts" in plan.paths else Path(plan.paths["pictures"])
    if "prompts" in plan.paths:
        official.calls(plan, folder, _shots(plan))
    features.kept(folder / OURS, lambda: of(place, "pictures"))
    write(folder / NETWORK, f'{{"network": "{print_of}", "side": {net().side}}}\n')


def _forget(folder: Path, print_of: str) -> None:
    """Removes cached features of another network, or of fewer images."""
    here = folder / NETWORK
    if not here.is_file() or safe_io.read_object(here)["network"] != print_of:
        (folder / THEIRS).unlink(missing_ok=True)
        (folder / OURS).unlink(missing_ok=True)
    if (folder / "pictures").is_dir():
        (folder / OURS).unlink(missing_ok=True)


def _features(folder: Path) -> tuple[Tensor, Tensor]:
    for name in (OURS, THEIRS, NETWORK):
        if not (folder / name).is_file():
            raise ValueError(f"{str(folder)!r} lacks {name}; evaluate into it without --rescore")
    return load_file(folder / OURS)["features"], load_file(folder / THEIRS)["features"]


def protocol(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns the distances and their protocol, without items: these scores are of whole sets."""
    ours, theirs = _features(folder)
    net = safe_io.read_object(folder / NETWORK)
    made = {"images": len(ours), "reference_images": len(theirs), "channels": ours.shape[1]}
    name = plan.paths.get("features") or "the model's own vision encoder, tokens averaged"
    made |= {"features": name, "network": net["network"], "resized_to": net["side"]}
    if "prompts" in plan.paths:
        made |= official.calls(plan, folder, _shots(plan))
    else:
        made |= given(Path(plan.paths["pictures"]))
    if plan.task == "fid" and (fewer := min(len(ours), len(theirs))) <= ours.shape[1]:
        made["caution"] = (
            f"FID OF {fewer} IMAGES IN {ours.shape[1]} CHANNELS: the covariance is singular, the "
            "score is biased upwards; take more images than channels, or kid"
        )
    return {}, made | {"torchmetrics": provenance.version("torchmetrics")}


def given(folder: Path) -> dict:
    """Returns what the report may say about images that the plan's model did not generate."""
    told = origins(features.files(folder, "pictures"), ("model", *IMAGE_FIELDS))
    return told | {"weights": {}, "fingerprint": UNKNOWN, "seeds": UNKNOWN}


def origins(paths: Sequence[Path], names: Sequence[str]) -> dict[str, str]:
    """Returns for each name the value in the images' metadata: one, several, or "unknown".

    `janusflow generate` and `evaluate` write this metadata. An image without it counts as unknown.
    """
    texts = [_text(path) for path in paths]
    return {name: _joint([text.get(name, UNKNOWN) for text in texts]) for name in names}


def _text(path: Path) -> dict[str, str]:
    """Returns the text chunks of a PNG; none for other formats and for unreadable files."""
    try:
        with Image.open(path) as image:
            found = getattr(image, "text", {})
    except (OSError, SyntaxError, ValueError):
        return {}
    return {str(name): str(value)[:200] for name, value in found.items()}


def _joint(values: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(values))
    if len(kinds) == 1:
        return kinds[0]
    shown = ", ".join(kinds[:MANY])
    return f"{len(kinds)} different: {shown}{', ...' if len(kinds) > MANY else ''}"


class Given(nn.Module):
    """Passes features through, where torchmetrics expects a network."""

    def __init__(self, width: int):
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def statistics(ours: Tensor, theirs: Tensor) -> list[tuple]:
    """Returns mean and unbiased covariance of both sets in float64, as torchmetrics does."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Given(ours.shape[1])).set_dtype(torch.float64)
    found = []
    for rows, name in ((ours, "fake"), (theirs, "real")):
        metric.update(rows.double(), real=name == "real")
        total, squares, n = (
            getattr(metric, f"{name}_features_{part}").double()
            for part in ("sum", "cov_sum", "num_samples")
        )
        mean = total / n
        found.append((mean.numpy(), ((squares - n * torch.outer(mean, mean)) / (n - 1)).numpy()))
    return found


def fid(plan: Plan, folder: Path) -> dict:
    (mean, covariance), (mean2, covariance2) = statistics(*_features(folder))
    return _scores({"fid": {"score": frechet(mean, covariance, mean2, covariance2)}}, plan, folder)


def kernel(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Mean and deviation over subsets of the unbiased squared MMD with kernel (x.y / D + 1)^3.

    The subsets are drawn with seed 0; their size is that of the smaller set, at most 1,000.
    Binkowski et al. 2018.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET, len(ours), len(theirs))
    metric = KernelInceptionDistance(
        feature=Given(ours.shape[1]), subsets=SUBSETS, subset_size=size
    )
    metric.update(ours, real=False)
    metric.update(theirs, real=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def kid(plan: Plan, folder: Path) -> dict:
    mean, deviation = kernel(*_features(folder))
    entry = {"score": 1000 * mean, "deviation_of_subsets": 1000 * deviation}
    return _scores({"kid x 1000": entry}, plan, folder)


def _scores(found: dict, plan: Plan, folder: Path) -> dict:
    ours, _ = _features(folder)
    whole = {"scores": found, "beside": {}, "extra": {}, "items": len(ours)}
    return {Path(plan.paths["reference"]).name: {"overall": whole, "groups": {}}}


NOTE = (
    "This is a distance between two sets of images, so it has no interval. It falls as the "
    "number of images (n) grows. It can only be compared with a distance to the same "
    "reference, by the same network, from as many images."
)
register("fid", Task(make, protocol, OFFICIAL_FIELDS, note=NOTE, inputs=inputs, whole=fid))
register("kid", Task(make, protocol, OFFICIAL_FIELDS, note=NOTE, inputs=inputs, whole=kid))
