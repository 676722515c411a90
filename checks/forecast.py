"""Compares the memory that `janusflow info` predicts with what `janusflow generate` uses.

    python -m checks.forecast

Writes a folder in the published layout with the 1.3B's widths, the SDXL autoencoder's sizes and
fresh weights (`--blocks 24` is the whole model), makes images by the command line in a process of
its own, and compares what that process needs at most with the forecast's peak and the program's own
share. One row for each dtype and number of images; on a CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from janusflow.bench.speed import fresh
from janusflow.models.autoencoder_loading import SDXL
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.processor_files import ProcessorFiles
from samplers import command_line


def write(folder: Path, blocks: int, dtype: torch.dtype) -> None:
    """Writes the published geometry with so many blocks, and a tokenizer of few words."""
    config = JanusFlowConfig()
    language = dict(config.language_config.to_dict(), num_hidden_layers=blocks)
    config = JanusFlowConfig(language_config=language)
    fresh(JanusFlowModel(config)).to(dtype).save_pretrained(folder)
    with torch.device("meta"):
        vae = AutoencoderKL(**SDXL)
    vae = vae.to_empty(device="cpu").to(torch.float32)
    for weight in vae.parameters():
        torch.nn.init.normal_(weight, std=0.01)
    vae.to(dtype).save_pretrained(folder / "vae")
    published(JanusFlowProcessor.from_pretrained("janusflow/scenes")).save(folder)


def published(processor: JanusFlowProcessor) -> ProcessorFiles:
    """Writes the files of the packaged model's processor, with the published images' size."""
    pixels = {**processor.files.preprocessor_config, "image_size": 384}
    tokens = {**processor.files.processor_config, "num_image_tokens": 576}
    return replace(processor.files, preprocessor_config=pixels, processor_config=tokens)


def peak(command: list[str]) -> tuple[int, int]:
    """Bytes in memory at the moment when a command's process has most of its own, where file pages
    count while they are in use, and the most that lay in memory at any moment, pages of files that
    the system may drop included.
    """
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    most, resident = (0, 0), 0
    while child.poll() is None:
        try:
            now = Path(f"/proc/{child.pid}/status").read_text().split()
            own, files = (int(now[now.index(k) + 1]) for k in ("RssAnon:", "RssFile:"))
            resident = int(now[now.index("VmHWM:") + 1])
        except (OSError, ValueError):  # it has just ended
            break
        most = max(most, (own, files))
        time.sleep(0.01)
    if child.wait():
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return sum(most) * 1024, resident * 1024


def compare(model: str, images: int, dtype: str, size: int | None, out: Path) -> dict:
    janusflow = [sys.executable, "-m", "janusflow"]
    sides = [f"--{side}={size}" for side in ("height", "width") if size]
    options = [f"--images={images}", "--json", *sides]
    command = [*janusflow, "info", model, *options]
    alone = os.environ | {"CUDA_VISIBLE_DEVICES": ""}  # `info` tells of the best device there is
    told = subprocess.run(command, capture_output=True, check=True, env=alone)
    memory = json.loads(told.stdout)["memory"]
    forecast = memory[dtype]["peak"] + memory["program"]["peak"]
    texts = ["a red circle left of a blue square"] * images
    made = [
        "--steps=1",
        f"--dtype={dtype}",
        f"--batch-size={images}",
        f"--out={out}",
        "--device=cpu",
    ]
    measured, resident = peak([*janusflow, "generate", *texts, f"--model={model}", *made, *sides])
    return dict(dtype=dtype, images=images, forecast=forecast, measured=measured, resident=resident)


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", help="Uses this folder; by default one is written.")
    parser.add_argument(
        "--blocks", type=int, default=2, help="Sets the number of blocks of the written model."
    )
    parser.add_argument("--stored", default="float32", help="Writes the weights in this dtype.")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "int8"], help="Compares in these dtypes."
    )
    parser.add_argument(
        "--images",
        "--pictures",
        nargs="+",
        type=int,
        default=[1, 4],
        help="Generates these numbers of images at once.",
    )
    parser.add_argument(
        "--size", type=int, help="Sets the images' side in pixels; by default the model's."
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        model = asked.model
        if model is None:
            model = f"{made}/model"
            write(Path(model), asked.blocks, getattr(torch, asked.stored))
        print("| dtype | images | forecast, MiB | measured | measured over forecast | resident |")
        print("|---|---|---|---|---|---|", flush=True)
        for dtype in asked.dtypes:
            for images in asked.images:
                row = compare(model, images, dtype, asked.size, Path(made))
                f, m, r = (row[name] / 2**20 for name in ("forecast", "measured", "resident"))
                cells = f"{f:,.0f} | {m:,.0f} | {m / f:.2f} | {r:,.0f}"
                print(f"| {dtype} | {images} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
