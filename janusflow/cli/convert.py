"""`janusflow convert`: Janus and Janus-Pro from the published layout into transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a Janus or Janus-Pro.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
) -> dict:
    """Writes a Janus or Janus-Pro in transformers' layout, as safetensors."""
    import torch

    from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline

    kinds = ("float32", "bfloat16", "float16")
    if dtype not in kinds:
        raise ValueError(f"--dtype is {dtype!r}; choose one of {', '.join(kinds)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {str(out)!r} is not an empty folder; choose another")
    if not out.parent.is_dir():
        raise ValueError(f"folder {str(out.parent)!r} does not exist; make it or choose another")
    JanusProPipeline.from_pretrained(model, dtype=getattr(torch, dtype)).save_pretrained(out)
    files = sorted(out.iterdir())
    print(*files, sep="\n")
    return dict(files=files)
