"""Every reader of a stranger's bytes as a function of these bytes, with honest examples."""

import io
import json
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from janusflow.data import readers, shards
from janusflow.data.feature_cache import Cache, CacheError
from janusflow.data.samples import BrokenSample
from janusflow.evaluation import plan as plans
from janusflow.models import lora
from janusflow.training import checkpoints
from janusflow.training import config as settings
from janusflow.utils import images, safe_io
from janusflow.utils.checkpoint_files import check_settings, stored
from samplers.search.pilot import PilotGrid
from samplers.solvers import linear_multistep

HOME = Path(__file__).parent.parent.parent
SCENES = HOME / "janusflow" / "weights" / "scenes"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a file per input: not on a disk
SCRATCH = Path(tempfile.mkdtemp(prefix="janusflow-fuzz-", dir=MEMORY))


def prompts(data: bytes) -> None:
    lines = safe_io.split_prompts(data, "prompts.txt")
    assert lines and all(line.strip() and "\0" not in line for line in lines)


def picture(data: bytes) -> None:
    image = images.decode(data, "picture")
    assert image.mode == "RGB" and 0 < image.width * image.height <= 100_000_000


def learned(data: bytes) -> None:
    (SCRATCH / "rule.json").write_bytes(data)
    rule = linear_multistep.learned(SCRATCH / "rule.json")
    assert rule.weights.isfinite().all() and rule.nodes[0] == 0


def pilot(data: bytes) -> None:
    (SCRATCH / "grid.json").write_bytes(data)
    grid = PilotGrid.load(SCRATCH / "grid.json")
    assert len(grid.ts) >= 2 and grid.ts.isfinite().all()


def configuration(data: bytes) -> None:
    from transformers import LlamaConfig

    from janusflow.models.janusflow.configuration import JanusFlowConfig

    content = safe_io.parse_object(data.decode("utf-8"), Path("config.json"))
    check_settings(content, JanusFlowConfig, {"model_type", "language_config"}, "config.json")
    if isinstance(content.get("language_config"), dict):
        check_settings(content["language_config"], LlamaConfig, {"model_type"}, "language_config")
    config = JanusFlowConfig(**content)
    assert config.parameters is None or 0 < config.parameters


def processor(data: bytes) -> None:
    """Reads processor_config.json and preprocessor_config.json, one line each."""
    from janusflow.models.janusflow.image_processing import JanusFlowImageProcessor
    from janusflow.models.janusflow.processing import Tags

    first, _, second = data.partition(b"\n")
    Tags.from_dict(safe_io.parse_object(first.decode("utf-8"), Path("processor_config.json")))
    numbers = safe_io.parse_object(second.decode("utf-8"), Path("preprocessor_config.json"))
    JanusFlowImageProcessor.from_dict(numbers)


def weights(data: bytes) -> None:
    """Reads the header of a safetensors file."""
    (SCRATCH / "weights").mkdir(exist_ok=True)
    (SCRATCH / "weights" / "model.safetensors").write_bytes(data)
    assert stored(SCRATCH / "weights") <= 16 * len(data)


def index(data: bytes) -> None:
    (SCRATCH / "index").mkdir(exist_ok=True)
    (SCRATCH / "index" / "model.safetensors.index.json").write_bytes(data)
    stored(SCRATCH / "index")


def guidance(data: bytes) -> None:
    """Reads a rule of the command line."""
    import torch

    from samplers.guidance import parse

    rule = parse(data.decode("utf-8"))
    pair = torch.ones(2, 3), torch.zeros(2, 3)
    rule(*pair, torch.tensor(0.5, dtype=torch.float64))


def chat(data: bytes) -> None:
    """Reads a conversation in JSON."""
    from janusflow.models.janusflow.chat_format import read_turns, render

    turns = json.loads(data.decode("utf-8"))
    if isinstance(turns, list):
        render(read_turns(turns, "<image>"), ("User", "Assistant"), eos="<eos>")


def place(name: str, data: bytes) -> Path:
    """Yields a folder that holds this one file."""
    folder = SCRATCH / name.replace(".", "-")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


def tar(data: bytes) -> None:
    """Reads a WebDataset shard, sample by sample."""
    path = place("rows.tar", data) / "rows.tar"
    for _, found in shards.open_shards([path]).sources:
        assert len(found) <= 1 + len(data) // 512
        for i in range(len(found)):
            _whole_or_broken(found, i)


def rows(data: bytes) -> None:
    """Reads lines of JSON as training does."""
    for _, found in readers.find(place("rows.jsonl", data)):
        for i in range(len(found)):
            _whole_or_broken(found, i)


def _whole_or_broken(records, index: int) -> None:
    try:
        record = records[index]
    except BrokenSample as error:
        assert str(error)
    else:
        assert record.text or record.messages


def yaml(data: bytes) -> None:
    """Reads a file of settings."""
    path = place("settings.yaml", data) / "settings.yaml"
    settings.load(path)


def adapter(data: bytes) -> None:
    """Reads adapter_config.json up to a line with a NUL, then the weights."""
    config, _, tensors = data.partition(b"\0\n")
    folder = place(lora.CONFIG, config)
    (folder / lora.WEIGHTS).write_bytes(tensors)
    assert lora.read(folder).layers


def cache(data: bytes) -> None:
    """Reads a shard of latents."""
    folder = place("0.safetensors", data)
    try:
        found = Cache(folder, {})
        for key in found.places:
            found.get(key, ["latents"])
    except CacheError as error:
        raise ValueError(str(error)) from error


def checkpoint(data: bytes) -> None:
    folder = place("step-00000001.safetensors", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoints.settings_of(checkpoints.latest(folder)[2])


def plan(data: bytes) -> None:
    """Reads protocol.json of an evaluation."""
    assert plans.read(place("protocol.json", data)).prompts > 0


def pictures() -> Iterator[bytes]:
    image = Image.linear_gradient("L").resize((12, 9))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for kind in images.FORMATS:
        file = io.BytesIO()
        colours = image.convert("P" if kind == "GIF" else "RGB")
        extra = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
        colours.save(file, kind, **extra)
        yield file.getvalue()


def rules() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted((HOME / "samplers").glob("*.json")))
    small = {"times": [0.0, 0.5], "weights": [[1.0], [1.0, 0.5], [1.0, 0.1, 0.9]]}
    content = {"format": linear_multistep.FORMAT, "name": "x", **small, "protocol": {}}
    yield json.dumps(content | {"fingerprint": linear_multistep.fingerprint(small)}).encode()


def grids() -> Iterator[bytes]:
    path = SCRATCH / "example.json"
    PilotGrid((0.0, 0.4, 1.0), "auto", 8, 100, 0.1, 0.2, {}).save(path)
    yield path.read_bytes()


def headers() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    yield save({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, {"step": "3"})


def indices() -> Iterator[bytes]:
    yield json.dumps(
        {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}
    ).encode()


def configured() -> Iterator[bytes]:
    yield (SCENES / "config.json").read_bytes()


def tags() -> Iterator[bytes]:
    names = ("processor_config.json", "preprocessor_config.json")
    yield b"\n".join(json.dumps(json.loads((SCENES / name).read_text())).encode() for name in names)


def texts() -> Iterator[bytes]:
    yield from (b"a red circle\ntwo squares\n", "ein grüner Stern\r\n".encode(), b"\xef\xbb\xbfx")


def spelt() -> Iterator[bytes]:
    yield from (
        b"cfg:2",
        b"guidance_interval:4,0.1,0.9",
        b"rescaled:3,0.7",
        b"projected:2,0,1",
        b"cfg++:0.5,9",
    )


def turns() -> Iterator[bytes]:
    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    yield json.dumps([{"role": "user", "content": parts}]).encode()
    yield json.dumps([{"role": "User", "content": "x", "images": []}]).encode()


def tars() -> Iterator[bytes]:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as made:
            for name, content in (
                ("a/1.json", b'{"text": "x"}'),
                ("b" * 60 + "/" + "c" * 60 + ".txt", b"two"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
        yield file.getvalue()[:4096]


def lines() -> Iterator[bytes]:
    yield b'{"text": "a"}\n{"text": "b"}\n'
    yield b'{"question": "q", "answer": "a"}\n'
    yield b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'


def yamls() -> Iterator[bytes]:
    yield settings.dump(settings.of_stage(2)).encode()


def adapted() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    name = "base_model.model.language_model.q_proj.lora_{}.weight"
    pair = {name.format("A"): torch.ones(2, 3), name.format("B"): torch.ones(3, 2)}
    yield json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).encode() + b"\0\n" + save(pair)


def shelved() -> Iterator[bytes]:
    import torch

    folder = SCRATCH / "shelf"
    folder.mkdir(exist_ok=True)
    Cache(folder, {}).add({"00": {"latents": torch.ones(2)}})
    yield (folder / "00.safetensors").read_bytes()


def saved() -> Iterator[bytes]:
    import torch

    path = SCRATCH / "step-00000002.safetensors"
    checkpoints.write(path, {"a": torch.ones(2)}, {"settings": "{}", "step": "2"})
    yield path.read_bytes()


def plans_made() -> Iterator[bytes]:
    weights = {"model.safetensors": "0" * 64}
    made = plans.Plan(task="scenes", model="m", weights=weights, dtype="float32", side=96)
    yield json.dumps(asdict(made)).encode()


# name: (reader, honest examples)
READERS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "prompts": (prompts, texts),
    "picture": (picture, pictures),
    "learned": (learned, rules),
    "pilot": (pilot, grids),
    "weights": (weights, headers),
    "index": (index, indices),
    "configuration": (configuration, configured),
    "processor": (processor, tags),
    "guidance": (guidance, spelt),
    "chat": (chat, turns),
    "tar": (tar, tars),
    "rows": (rows, lines),
    "yaml": (yaml, yamls),
    "adapter": (adapter, adapted),
    "cache": (cache, shelved),
    "checkpoint": (checkpoint, saved),
    "plan": (plan, plans_made),
}
