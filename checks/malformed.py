"""Damages model folders at random and counts how loading them fails.

    python -m checks.malformed [SEED]

A tiny JanusFlow and a tiny Janus-Pro, complete and in shards, in the published and in transformers'
layout, are copied, damaged in one of WAYS, and loaded. What loads generates an image and an answer.
Counted are refusals that are no sentence, other exceptions, and more than SLOWEST seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import janusflow
from samplers import command_line

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
SLOWEST = 10
VALUES = [0, -1, 10**9, 10**30, 1e300, 0.5, "x", None, True, [], {}, [1, 2]]
WAYS = {}


def way(times: int = 1):
    """Registers (folder, rng) -> what was done, or None where there is nothing to break."""
    return lambda change: WAYS.setdefault(change.__name__, (change, times))[0]


def weights(folder: Path, rng: random.Random) -> Path:
    return rng.choice([*sorted(folder.rglob("*.safetensors")), *sorted(folder.glob("*.bin"))])


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True) if path.suffix == ".bin" else load_file(path)


def write(path: Path, tensors: dict) -> None:
    if path.suffix == ".bin":
        return torch.save(tensors, path)
    save_file({n: x.contiguous() for n, x in tensors.items()}, path, metadata={"format": "pt"})


def _dtype(tensors: dict, name: str, rng: random.Random) -> None:
    tensors[name] = tensors[name].to(rng.choice([torch.int64, torch.bool, torch.complex64]))


def _number(tensors: dict, name: str, rng: random.Random) -> None:
    values = tensors[name] = tensors[name].clone()
    values.view(-1)[rng.randrange(values.numel())] = rng.choice([float("nan"), float("inf")])


TENSORS = {
    "number": _number,
    "dtype": _dtype,
    "missing": lambda tensors, name, _: tensors.pop(name),
    "renamed": lambda tensors, name, _: tensors.update({name.upper(): tensors.pop(name)}),
    "unknown": lambda tensors, name, _: tensors.update({f"other.{name}": torch.ones(2)}),
    "rank": lambda tensors, name, _: tensors.update({name: tensors[name][None]}),
    "empty": lambda tensors, name, _: tensors.update({name: tensors[name][:0]}),
    "shape": lambda tensors, name, _: tensors.update({name: tensors[name].repeat_interleave(2, 0)}),
}


@way(16)
def tensor(folder: Path, rng: random.Random) -> str:
    path = weights(folder, rng)
    tensors = {n: x.clone() for n, x in read(path).items()}
    idle = ("codebook_used", "attn_pool")  # nothing reads them
    name = rng.choice([n for n in sorted(tensors) if not any(word in n for word in idle)])
    kind = rng.choice(sorted(TENSORS))
    TENSORS[kind](tensors, name, rng)
    write(path, tensors)
    return f"{kind} of {name}"


@way(6)
def content(folder: Path, rng: random.Random) -> str:
    path = weights(folder, rng)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[rng.randrange(200)] ^= 1 << rng.randrange(8)
    changes = [b"", b"version https://git-lfs.github.com/spec/v1\n", bytes(flipped)]
    path.write_bytes(rng.choice([*changes, *[whole[: rng.randrange(len(whole))]] * 2]))
    return path.name


@way(4)
def header(folder: Path, rng: random.Random) -> str | None:
    path = weights(folder, rng)
    if path.suffix == ".bin":
        return None
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    table = json.loads(whole[8 : 8 + size])
    entry = table[rng.choice([name for name in table if name != "__metadata__"])]
    lies = [
        {"shape": [2**40, 2**40]},
        {"data_offsets": [0, 10**12]},
        {"dtype": "F128"},
        {"dtype": 7},
    ]
    entry |= (lie := rng.choice(lies))
    text = json.dumps(table).encode()
    size = rng.choice([len(text), 2**62, 1])
    path.write_bytes(struct.pack("<Q", size) + text + whole[8 + len(text) :])
    return f"{lie}, {size}"


@way(3)
def place(folder: Path, rng: random.Random) -> str:
    path = weights(folder, rng)
    path.unlink()
    kind = rng.choice(["nothing", "folder", "pipe"])
    if kind != "nothing":
        (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    return f"{path.name} is a {kind}"


@way(8)
def index(folder: Path, rng: random.Random) -> str:
    own = next(folder.glob("*.index.json"), None)
    if own is None:
        path = next(folder.glob("*.safetensors"), None) or next(folder.glob("*.bin"))
        names, own = read(path), folder / f"{path.name}.index.json"
        path = path.rename(folder / f"part{path.suffix}")
        table = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, path.name)}
    else:
        table = json.loads(own.read_text())
    values = ["model-99.safetensors", "../model.safetensors", 7, None, [], ""]
    files = table["weight_map"] | {rng.choice(sorted(table["weight_map"])): rng.choice(values)}
    maps = [{}, [1], None, *[files] * 4]
    texts = ["[" * 50_000, "[1]", *[json.dumps(table | {"weight_map": rng.choice(maps)})] * 4]
    own.write_text(text := rng.choice(texts))
    return text[-80:]


@way(25)
def setting(folder: Path, rng: random.Random) -> str:
    table = json.loads((folder / "config.json").read_text())
    block, names = table, []
    while True:
        names.append(rng.choice(sorted(block)))
        if not isinstance(block[names[-1]], dict) or not block[names[-1]] or rng.random() < 0.1:
            break
        block = block[names[-1]]
    block[names[-1]] = rng.choice(VALUES)
    (folder / "config.json").write_text(json.dumps(table))
    return f"{'.'.join(names)} = {block[names[-1]]!r}"


@way(10)
def text(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.rglob("*.json")))
    whole = path.read_bytes()
    half, wide = whole[: len(whole) // 2], whole.decode().encode("utf-16")
    others = [b"[1]", b'{"a":' * 9000, bytes(100), b'{"a": "\xff"}', b'{"a": NaN}', half, wide]
    path.write_bytes(other := rng.choice(others))
    return f"{path.name}: {other[:20]!r}"


def bases(root: Path) -> list[Path]:
    """Returns the five complete folders."""
    import tiny_pro

    from janusflow.models.autoencoder import PatchAutoencoder
    from janusflow.models.janusflow.modeling import JanusFlowModel
    from janusflow.models.janusflow.tokenizer import build_tokenizer
    from janusflow.scenes.questions import vocabulary
    from janusflow.training.recipes import RECIPES

    recipe = RECIPES["scenes-smoke"]
    for name, size in (("flow", "5GB"), ("flow in shards", "600KB")):
        build_tokenizer(root / name, [*vocabulary(), "User", "Assistant"], system_prompt="")
        JanusFlowModel(recipe.config(vocab_size=600)).save_pretrained(
            root / name, max_shard_size=size
        )
        PatchAutoencoder(recipe.latent_channels).save_pretrained(root / name / "vae")
    (root / "published").mkdir()
    tiny_pro.write_published(root / "published", tiny_pro.model())
    pipe = janusflow.load(root / "published")
    pipe.save_pretrained(root / "own")
    pipe.save_pretrained(root / "own in shards", max_shard_size="300KB")
    return [path for path in sorted(root.iterdir()) if path.is_dir()]


def outcome(folder: Path) -> tuple[str, str]:
    """Returns what became of loading and using a folder, and what was said."""
    begun = time.monotonic()
    try:
        pipe = janusflow.load(folder)
        pipe.set_progress_bar_config(disable=True)
        pipe("a red circle", **({"num_inference_steps": 1} if hasattr(pipe, "vae") else {}))
        pipe.chat("what is it?", max_new_tokens=2)
        kind, said = "worked", ""
    except (ValueError, FloatingPointError) as error:
        said = str(error)
        kind = "refused" if said and "\n" not in said and len(said) < 600 else "unclear"
    except Exception as error:
        kind, said = "crash", f"{type(error).__name__}: {error}"
    return ("slow", said) if time.monotonic() - begun > SLOWEST else (kind, said)


def main(seed: str) -> None:
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rng, counts = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as root:
        for base in bases(Path(root)):
            for change, times in WAYS.values():
                for _ in range(times):
                    folder = base.parent / "now"
                    shutil.copytree(base, folder)
                    what = change(folder, rng)
                    kind, said = ("", "") if what is None else outcome(folder)
                    counts[kind] += 1
                    if kind in ("unclear", "crash", "slow"):
                        print(f"{kind}: {base.name}, {change.__name__} {what}: {said:.500}")
                    shutil.rmtree(folder)
    del counts[""]
    print(f"seed {seed}:", ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    raise SystemExit(any(counts[kind] for kind in ("unclear", "crash", "slow")))


if __name__ == "__main__":
    told = "Seeds the damages. The default is 0."
    main(**command_line.positionals(__doc__, seed=(str, "0", told)))
