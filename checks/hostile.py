"""Files of a stranger who means harm, for tests."""

import json
import pickle
import struct
from pathlib import Path


class Bomb:
    """Unpickled, it makes the file `went_off`."""

    def __init__(self, went_off: Path):
        self.went_off = went_off

    def __reduce__(self):
        return (Path.touch, (self.went_off,))


def bomb(went_off: Path) -> bytes:
    return pickle.dumps({"state_dict": Bomb(went_off)})


def zipped(went_off: Path) -> bytes:
    """Returns a bomb as torch.save would store it."""
    import io
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", bomb(went_off))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return file.getvalue()


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """Returns a safetensors file with any header, and any lie about the header's length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list, start: int, stop: int, dtype: str = "F32") -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}}


LIES = {
    "empty": b"",
    "a length without a header": struct.pack("<Q", 10),
    "a header of 2^63 bytes": safetensors({}, length=2**63),
    "a header of 2^40 bytes": safetensors({}, length=2**40),
    "a header that is no JSON": safetensors(b"{'a': 1}"),
    "a header that is a list": safetensors([1, 2]),
    "a deep header": safetensors(b"[" * 100_000),
    "a shape of 2^62 elements": safetensors(entry([2**31, 2**31], 0, 16), bytes(16)),
    "a shape that overflows": safetensors(entry([2**32, 2**32, 4], 0, 0)),
    "offsets beyond the end": safetensors(entry([4], 0, 16)),
    "offsets that go backwards": safetensors(entry([4], 16, 0), bytes(16)),
    "a negative offset": safetensors(entry([4], -16, 0), bytes(16)),
    "a negative shape": safetensors(entry([-4], 0, 16), bytes(16)),
    "fewer bytes than the shape": safetensors(entry([8], 0, 16), bytes(16)),
    "an unknown dtype": safetensors(entry([4], 0, 16, "OBJECT"), bytes(16)),
    "bytes that no tensor owns": safetensors(entry([4], 0, 16), bytes(1000)),
    "two tensors in one place": safetensors(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        },
        bytes(16),
    ),
}
