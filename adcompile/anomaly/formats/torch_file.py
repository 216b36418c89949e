"""PyTorch checkpoint files (the zip format of torch 1.6 and later), read and written without torch.

Reading returns nested dicts, lists, numbers, texts and NumPy arrays. Objects of other classes are
kept as harmless descriptions; omegaconf containers are turned into the lists and dicts they hold.
Archive members must be stored uncompressed, as torch writes them, so a small file cannot unfold
into a large one.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.formats.pickle_walk import Made, Named, Persistent, walk_pickle
from adcompile.errors import FormatError

Array = npt.NDArray[np.generic]

_DTYPES: dict[str, str] = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
_REBUILDERS = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2"})
_PARAMETERS = frozenset({"_rebuild_parameter", "_rebuild_parameter_with_state"})
MAX_DEPTH = 200


def read_torch_file(path: Path) -> object:
    """The content of a checkpoint as plain data and arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, str(path)).read()
    except FileNotFoundError:
        raise FormatError("no such checkpoint", where=str(path)) from None
    except zipfile.BadZipFile as error:
        raise FormatError(
            "not a checkpoint of torch 1.6 or later",
            where=str(path),
            why=str(error),
            fix="load and save it again with a current torch",
        ) from error
    except OSError as error:
        raise FormatError("cannot read checkpoint", where=str(path), why=str(error)) from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self.archive = archive
        self.where = where
        self.storages: dict[str, Array] = {}
        self.done: dict[int, object] = {}
        self.members = {info.filename: info for info in archive.infolist()}

    def read(self) -> object:
        pickles = [
            name for name in self.members if name.endswith("/data.pkl") or name == "data.pkl"
        ]
        if len(pickles) != 1:
            raise FormatError(
                "not a torch checkpoint", where=self.where, why=f"{len(pickles)} data.pkl members"
            )
        self.prefix = pickles[0][: -len("data.pkl")]
        order = self.members.get(self.prefix + "byteorder")
        if order is not None and self.member(order.filename) != b"little":
            raise FormatError("big-endian checkpoints are not read", where=self.where)
        return self.plain(walk_pickle(self.member(pickles[0]), self.where), 0)

    def member(self, name: str) -> bytes:
        info = self.members.get(name)
        if info is None:
            raise FormatError("checkpoint lacks a member", where=f"{self.where}: {name}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise FormatError(
                "checkpoint members must not be compressed", where=f"{self.where}: {name}"
            )
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise FormatError(
                "checkpoint member is damaged", where=f"{self.where}: {name}", why=str(error)
            ) from error

    def plain(self, value: object, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise FormatError("checkpoint is nested too deeply", where=self.where)
        if isinstance(value, dict):
            return self.mapping(cast("dict[object, object]", value), depth)
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in cast("list[object]", value)]
        if isinstance(value, tuple):
            items = cast("tuple[object, ...]", value)
            return tuple(self.plain(item, depth + 1) for item in items)
        if isinstance(value, Made):
            if id(value) not in self.done:
                self.done[id(value)] = value
                self.done[id(value)] = self.made(value, depth)
            return self.done[id(value)]
        return value

    def mapping(self, pairs: Mapping[object, object], depth: int) -> dict[object, object]:
        return {key: self.plain(item, depth + 1) for key, item in pairs.items()}

    def made(self, value: Made, depth: int) -> object:
        callee = value.of
        if not isinstance(callee, Named):
            return value
        if callee.module == "torch._utils" and callee.name in _REBUILDERS:
            return self.tensor(value.args)
        if callee.module == "torch._utils" and callee.name in _PARAMETERS and value.args:
            return self.plain(value.args[0], depth + 1)
        if callee.module == "collections" and callee.name == "OrderedDict":
            return self.mapping(value.pairs, depth)
        if (callee.module, callee.name) == ("torch", "Size") and value.args:
            return self.plain(value.args[0], depth + 1)
        if callee.module == "pathlib" and callee.name.endswith("Path"):
            return "/".join(str(part) for part in value.args)
        if callee.module.partition(".")[0] == "omegaconf":
            return self.omegaconf(value, depth)
        return value

    def omegaconf(self, value: Made, depth: int) -> object:
        """ListConfig and DictConfig hold ``_content``, their leaves ``_val``."""
        state: object = value.state
        if isinstance(state, tuple):  # (None, slots) of a class with slots
            parts = cast("tuple[object, ...]", state)
            state = parts[-1] if parts else None
        if isinstance(state, dict):
            fields = cast("dict[object, object]", state)
            for key in ("_content", "_val"):
                if key in fields:
                    return self.plain(fields[key], depth + 1)
        return value

    def tensor(self, args: tuple[object, ...]) -> Array:
        storage, offset, size, stride = (*args, None, None, None, None)[:4]
        if not isinstance(storage, Persistent):
            raise FormatError("a tensor has no storage", where=self.where)
        data = self.storage(storage.key)
        shape, steps = _integers(size), _integers(stride)
        start = offset if isinstance(offset, int) else -1
        if shape is None or steps is None or len(shape) != len(steps) or start < 0:
            raise FormatError("a tensor's shape is damaged", where=self.where)
        last = start + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
        count = int(np.prod(shape, dtype=np.float64)) if shape else 1
        if count and (last >= data.size or count > max(data.size, 1)):
            raise FormatError(
                "a tensor is larger than its storage",
                where=self.where,
                why=f"shape {shape}, {data.size} stored values",
            )
        if not count:
            return np.zeros(shape, dtype=data.dtype)
        view = np.lib.stride_tricks.as_strided(
            data[start:], shape, tuple(s * data.itemsize for s in steps), writeable=False
        )
        return np.array(view)

    def storage(self, key: object) -> Array:
        parts = cast("tuple[object, ...]", key) if isinstance(key, tuple) else ()
        if len(parts) < 3 or parts[0] != "storage" or not isinstance(parts[1], Named):
            raise FormatError("a storage reference is damaged", where=self.where)
        kind, name = parts[1].name, str(parts[2])
        if name not in self.storages:
            code = _DTYPES.get(kind)
            if code is None:
                raise FormatError("tensor type is not known", where=self.where, why=kind)
            raw = self.member(f"{self.prefix}data/{name}")
            if len(raw) % np.dtype(code).itemsize:
                raise FormatError("a storage has a broken length", where=f"{self.where}: {name}")
            flat = np.frombuffer(raw, dtype=code)
            if kind == "BFloat16Storage":
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            self.storages[name] = flat
        return self.storages[name]


def _integers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, tuple):
        return None
    found: list[int] = []
    for item in cast("tuple[object, ...]", value):
        if not isinstance(item, int) or item < 0:
            return None
        found.append(item)
    return tuple(found)


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
