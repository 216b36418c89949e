"""What calibration data looks like inside a model: ranges and samples of inner tensors, by channel.

Memory is bounded: tensors are tapped in groups of at most ``TAP_BYTES``, and of each tensor only the
exact extremes of every channel and a fixed-size sample are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.errors import InputError
from adcompile.interfaces import Array, CalibrationData
from adcompile.ir import model_io
from adcompile.ir.evaluate import open_model
from adcompile.ir.graph import provenance, static_shape

Floats = npt.NDArray[np.float32]
TAP_BYTES = 256 << 20
KEEP_PER_SAMPLE = 1 << 14
KEEP_TOTAL = 1 << 17
REMEMBERED = 2  # models: as it is, and as it was rewritten for integer kernels


@dataclass
class Observation:
    """Extremes of every channel (axis 1; a tensor of less than two dimensions has one channel) over
    all samples, and evenly spaced values as a matrix of channels by positions."""

    lows: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    highs: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    count: int = 0
    _kept: list[Floats] = field(default_factory=list[Floats])
    _columns: int = 0

    @property
    def low(self) -> float:
        """Smallest value seen."""
        return float(self.lows.min()) if self.lows.size else 0.0

    @property
    def high(self) -> float:
        """Largest value seen."""
        return float(self.highs.max()) if self.highs.size else 0.0

    @property
    def peaks(self) -> Floats:
        """Largest magnitude of every channel."""
        return np.maximum(np.abs(self.lows), np.abs(self.highs))

    def add(self, values: Array) -> None:
        """Take in one tensor. The number of channels must not change."""
        if values.size == 0:
            return
        table = _by_channel(values)
        lows: Floats = table.min(axis=1)
        highs: Floats = table.max(axis=1)
        if self.count and lows.shape == self.lows.shape:
            lows, highs = np.minimum(self.lows, lows), np.maximum(self.highs, highs)
        elif self.count:
            low, high = min(self.low, float(lows.min())), max(self.high, float(highs.max()))
            lows, highs = np.full(1, low, np.float32), np.full(1, high, np.float32)
            table = table.reshape(1, -1)
            self._kept = [part.reshape(1, -1) for part in self._kept]
            self._columns = sum(part.shape[1] for part in self._kept)
        self.lows, self.highs = lows, highs
        self.count += values.size
        self._keep(table)

    def _keep(self, table: Floats) -> None:
        channels, width = table.shape
        wanted = max(KEEP_PER_SAMPLE // channels, 4)
        # an odd step walks through all columns of an image instead of one of them
        step = max(width // wanted, 1) | 1 if width > wanted else 1
        part = table[:, ::step][:, :wanted].copy()
        self._kept.append(part)
        self._columns += part.shape[1]
        if self._columns * channels > KEEP_TOTAL:
            self._kept = [np.concatenate(self._kept, axis=1)[:, ::2].copy()]
            self._columns = self._kept[0].shape[1]

    def table(self) -> Floats:
        """The kept values, channels by positions."""
        return np.concatenate(self._kept, axis=1) if self._kept else np.zeros((1, 0), np.float32)

    def sample(self) -> Floats:
        """The kept values in one row, with the extremes."""
        return np.concatenate(
            [self.table().reshape(-1), np.array([self.low, self.high], np.float32)]
        )

    def scaled(self, gain: Floats) -> Observation:
        """The observation of the tensor multiplied by *gain* (positive; 0-d or per channel)."""
        column = gain.reshape(-1, 1) if gain.ndim else gain
        return Observation(
            (self.lows * gain).astype(np.float32),
            (self.highs * gain).astype(np.float32),
            self.count,
            [(part * column).astype(np.float32) for part in self._kept],
            self._columns,
        )


def _by_channel(values: Array) -> Floats:
    """Channels by everything else."""
    array = np.asarray(values, np.float32)
    if array.ndim < 2:
        return array.reshape(1, -1)
    if array.shape[0] == 1:
        return array.reshape(array.shape[1], -1)
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def observe(
    model: ir.Model, names: Sequence[str], data: CalibrationData
) -> dict[str, Observation]:
    """Run *model* over *data* and describe the values called *names*.

    Raises InputError when there is no data, or a value is NaN or infinite.
    """
    if isinstance(data, Remembering):
        return data.observed(model, names)
    if len(data) == 0:
        raise InputError("calibration data is empty", fix="give at least one sample")
    found = {name: Observation() for name in names}
    for name, value in tapped(model, names, data):
        seen = found[name]
        seen.add(value)
        if not (np.isfinite(seen.low) and np.isfinite(seen.high)):
            raise InputError(
                "calibration meets a value that is not finite",
                where=_written_by(model, name),
                why="NaN or infinity in the float model",
                fix="check the calibration data and the float model on it",
            )
    return found


def _written_by(model: ir.Model, name: str) -> str:
    """A value's name with the node it comes from, by its names in the user's file."""
    made = next((n for n in model.graph if any(v.name == name for v in n.outputs)), None)
    if made is None:
        return f"input {name}"
    return f"{name}, written by {made.op_type} {' + '.join(provenance(made))}"


class Remembering:
    """Calibration data, and what was seen of it in the models that looked last: for quantizations of one
    model that differ in what stays in float."""

    def __init__(self, data: CalibrationData) -> None:
        self._data = data
        self._seen: dict[bytes, dict[str, Observation]] = {}

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self._data)

    def observed(self, model: ir.Model, names: Sequence[str]) -> dict[str, Observation]:
        """:func:`observe`, of the same model and names only once."""
        key = hashlib.sha256(model_io.to_bytes(model))
        key.update(repr(list(names)).encode())
        found = self._seen.pop(key.digest(), None) or observe(model, names, self._data)
        self._seen[key.digest()] = found  # now the youngest
        for old in list(self._seen)[:-REMEMBERED]:
            del self._seen[old]
        return dict(found)


def tapped(
    model: ir.Model, names: Sequence[str], data: CalibrationData
) -> Iterator[tuple[str, Array]]:
    """Every value called one of *names*, for every sample, group by group of taps."""
    inputs = {v.name for v in model.graph.inputs}
    fed = [n for n in names if n in inputs]
    groups = _groups(model, [n for n in names if n not in inputs])
    for index, group in enumerate(groups or [[]]):
        session = open_model(model, group, optimize=True) if group else None
        for feeds in data:
            if index == 0:
                yield from ((name, _fed(feeds, name)) for name in fed)
            if session is None:
                continue
            wanted = {v.name: _fed(feeds, v.name) for v in session.get_inputs()}
            yield from zip(group, session.run(list(group), wanted), strict=True)


def _fed(feeds: Mapping[str, Array], name: str) -> Array:
    if name not in feeds:
        raise InputError(
            "calibration sample lacks an input",
            where=name,
            why=f"it has {', '.join(sorted(feeds)) or 'nothing'}",
        )
    return feeds[name]


def _groups(model: ir.Model, names: Sequence[str]) -> list[list[str]]:
    sizes = {v.name: _bytes(v) for node in model.graph for v in node.outputs}
    groups: list[list[str]] = []
    total = 0
    for name in names:
        size = sizes.get(name, 0)
        if not groups or total + size > TAP_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups


def _bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    return 4 * int(np.prod(shape, dtype=np.int64)) if shape else 1 << 20
