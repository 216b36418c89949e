"""Reading PyTorch checkpoint files (the zip format of torch 1.6 and later) without torch.

Reading returns nested dicts, lists, numbers, texts and NumPy arrays (read-only views of the
stored bytes). Objects of other classes are kept as harmless descriptions; omegaconf containers are
turned into the lists and dicts they hold, and a pickled network into its state dict.

A small file cannot unfold into a large one: members must be stored uncompressed, as torch writes
them, may not overlap, and tensors that share a storage share its memory here too.
"""

from __future__ import annotations

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
_Node = dict[object, object] | list[object] | tuple[object, ...] | Made
_OPEN = object()
"""Stands for a container whose conversion has begun and not ended."""


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


def check_members(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse an archive whose members together claim more bytes than the file has."""
    stream = archive.fp
    size = 0 if stream is None else stream.seek(0, 2)
    claimed = sum(info.compress_size for info in archive.infolist())
    if claimed > size:
        raise FormatError(
            "the archive's members overlap",
            where=where,
            why=f"they claim {claimed} bytes, the file has {size}",
        )


class _Reader:
    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self.archive = archive
        self.where = where
        self.storages: dict[str, Array] = {}
        self.done: dict[int, object] = {}
        self.members = {info.filename: info for info in archive.infolist()}
        check_members(archive, where)

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
        """The value with descriptions replaced. What is shared in the file is converted once."""
        if not isinstance(value, (dict, list, tuple, Made)):
            return value
        value = cast("_Node", value)
        if depth > MAX_DEPTH:
            raise FormatError("checkpoint is nested too deeply", where=self.where)
        if id(value) not in self.done:
            self.done[id(value)] = value if isinstance(value, Made) else _OPEN
            self.done[id(value)] = self.convert(value, depth)
        found = self.done[id(value)]
        if found is _OPEN:
            raise FormatError("a list in the checkpoint contains itself", where=self.where)
        return found

    def convert(self, value: _Node, depth: int) -> object:
        if isinstance(value, dict):
            return self.mapping(value, depth)
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.plain(item, depth + 1) for item in value)
        return self.made(value, depth)

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
        fields = _fields(value)
        if {"_parameters", "_buffers", "_modules"} <= fields.keys():
            return self.network(fields, depth)
        return value

    def network(self, fields: Mapping[object, object], depth: int) -> dict[object, object]:
        """The state dict of a pickled ``nn.Module``: its tensors and those of the modules in it."""
        found: dict[object, object] = {}
        for kind in ("_parameters", "_buffers"):
            items = _items(self.plain(fields[kind], depth + 1))
            found |= {name: value for name, value in items if isinstance(value, np.ndarray)}
        for name, inner in _items(self.plain(fields["_modules"], depth + 1)):
            found |= {f"{name}.{key}": value for key, value in _items(inner)}
        return found

    def omegaconf(self, value: Made, depth: int) -> object:
        """ListConfig and DictConfig hold ``_content``, their leaves ``_val``."""
        fields = _fields(value)
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
        return np.lib.stride_tricks.as_strided(
            data[start:], shape, tuple(s * data.itemsize for s in steps), writeable=False
        )

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


def _fields(value: Made) -> Mapping[object, object]:
    """The attributes an object would have; a class with slots pickles (None, attributes)."""
    state: object = value.state
    if isinstance(state, tuple):
        parts = cast("tuple[object, ...]", state)
        state = parts[-1] if parts else None
    return cast("dict[object, object]", state) if isinstance(state, dict) else {}


def _items(value: object) -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return []
    return [(str(name), item) for name, item in cast("dict[object, object]", value).items()]


def _integers(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, tuple):
        return None
    found: list[int] = []
    for item in cast("tuple[object, ...]", value):
        if not isinstance(item, int) or item < 0:
            return None
        found.append(item)
    return tuple(found)
