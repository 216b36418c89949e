"""Writing PyTorch checkpoint files without torch: plain data, and arrays as tensors."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

_STORAGE_OF = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage",
               "i4": "IntStorage", "u1": "ByteStorage", "b1": "BoolStorage"}  # fmt: skip


class _Writer:
    """Pickle protocol 2 for dicts, lists, tuples, numbers, texts and arrays as tensors."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.storages: list[bytes] = []

    def value(self, item: object) -> None:
        if item is None:
            self.out += b"N"
        elif isinstance(item, bool):
            self.out += b"\x88" if item else b"\x89"
        elif isinstance(item, int):
            self.integer(item)
        elif isinstance(item, float):
            self.out += b"G" + struct.pack(">d", item)
        elif isinstance(item, str):
            data = item.encode("utf-8")
            self.out += b"X" + struct.pack("<I", len(data)) + data
        elif isinstance(item, np.ndarray):
            self.tensor(cast("Array", item))
        else:
            self.container(item)

    def container(self, item: object) -> None:
        if isinstance(item, Mapping):
            self.out += b"}("
            for key, inner in cast("Mapping[object, object]", item).items():
                self.value(key)
                self.value(inner)
            self.out += b"u"
        elif isinstance(item, list):
            self.out += b"]("
            for inner in cast("list[object]", item):
                self.value(inner)
            self.out += b"e"
        elif isinstance(item, tuple):
            self.sequence(cast("tuple[object, ...]", item))
        else:
            raise TypeError(f"cannot write {type(item).__name__} to a checkpoint")

    def integer(self, item: int) -> None:
        if -(1 << 31) <= item < 1 << 31:
            self.out += b"J" + struct.pack("<i", item)
            return
        data = item.to_bytes(item.bit_length() // 8 + 1, "little", signed=True)
        self.out += b"\x8a" + bytes([len(data)]) + data

    def sequence(self, items: tuple[object, ...]) -> None:
        self.out += b"("
        for item in items:
            self.value(item)
        self.out += b"t"

    def name(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode()

    def tensor(self, array: Array) -> None:
        kind = _STORAGE_OF.get(array.dtype.str[1:])
        if kind is None:
            raise TypeError(f"cannot write {array.dtype} to a checkpoint")
        data = np.asarray(array, order="C")
        self.name("torch._utils", "_rebuild_tensor_v2")
        self.out += b"(("
        self.value("storage")
        self.name("torch", kind)
        self.value(str(len(self.storages)))
        self.value("cpu")
        self.value(data.size)
        self.out += b"tQ"
        self.value(0)
        self.sequence(data.shape)
        self.sequence(tuple(step // data.itemsize for step in data.strides))
        self.out += b"\x89"
        self.name("collections", "OrderedDict")
        self.out += b")RtR"
        self.storages.append(data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes())


def write_torch_file(path: Path, content: object) -> None:
    """Write plain data and arrays as a checkpoint that ``torch.load`` reads with weights only.

    The bytes depend on the content alone.
    """
    writer = _Writer()
    writer.value(content)
    members: list[tuple[str, bytes]] = [
        ("data.pkl", bytes(writer.out) + b"."),
        ("byteorder", b"little"),
    ]
    members += [(f"data/{i}", data) for i, data in enumerate(writer.storages)]
    members.append(("version", b"3\n"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo("archive/" + name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, data)
