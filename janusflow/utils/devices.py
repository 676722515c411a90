"""Chooses the device and the dtype when the caller names none."""

import torch

from janusflow.utils import limits
from janusflow.utils.keywords import choice
from janusflow.utils.processes import number

EIGHT_BIT = "int8"  # of the weights; the arithmetic is bfloat16's
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
}


def pick_device(name: str = "auto") -> torch.device:
    """Returns the named device, or the best available one: CUDA (one per process), MPS, then CPU.

    Raises ValueError for a name that torch does not know or a device that is not available.
    """
    if name == "auto":
        if torch.cuda.is_available():
            own = number("LOCAL_RANK", -1, 0)
            return torch.device("cuda", own) if own >= 0 else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"no device {name!r} here; choose auto, cpu, cuda or mps") from error
    if device.type == "meta":
        raise ValueError("device 'meta' holds no numbers; choose auto, cpu, cuda or mps")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the named dtype.

    The default is float32, and on CUDA bfloat16, or float16 where the GPU only emulates bfloat16
    (T4, V100).

    Short names such as "bf16" and full ones such as "torch.bfloat16" are accepted.
    """
    name = full_name(name)
    if name == EIGHT_BIT:
        return torch.bfloat16
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):
            real = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if real else torch.float16
    choice("no dtype named", name, ["auto", *DTYPES, EIGHT_BIT])
    return DTYPES[name]


def full_name(name: str) -> str:
    """Returns torch's name of a dtype given as "bf16", "bfloat16" or "torch.bfloat16"."""
    name = name.removeprefix("torch.")
    return SHORT.get(name, name)


def execution_device(module: torch.nn.Module) -> torch.device:
    """Returns the device on which a module computes, accelerate's hooks included."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device


def written(dtype: torch.dtype, asked: str = "") -> str:
    """Returns the dtype as text, such as "bfloat16" or "int8 weights, bfloat16"."""
    return ("int8 weights, " if asked == EIGHT_BIT else "") + str(dtype)[6:]


def use_threads(count: int | None) -> None:
    """Sets torch's number of CPU threads; None leaves it unchanged.

    Raises ValueError for a number out of range, which would make OpenMP end the process.
    """
    if count is None:
        return
    torch.set_num_threads(limits.whole(count, "the number of threads", "threads"))


def describe(device: torch.device) -> str:
    """Returns the device's product name, such as the GPU's or the CPU's model."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count > 1)}"
    return f"{device} ({threads})" if device.type == "cpu" else str(device)


def place(device: torch.device) -> str:
    """Returns the device type and a CPU's threads, on which a result's last bits depend."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
