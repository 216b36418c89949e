"""What calibration data looks like inside a model: ranges and samples of inner tensors.

Memory is bounded: tensors are tapped in groups of at most ``TAP_BYTES``, and of each tensor only
the exact extremes, the per-channel sums and a fixed-size sample are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.errors import InputError
from adcompile.interfaces import Array, CalibrationData
from adcompile.ir.evaluate import open_model
from adcompile.ir.graph import static_shape

Floats = npt.NDArray[np.float32]
TAP_BYTES = 256 << 20
KEEP_PER_SAMPLE = 1 << 14
KEEP_TOTAL = 1 << 18


@dataclass
class Observation:
    """Extremes over all calibration samples, and an evenly spaced sample of the values."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    _kept: list[Floats] = field(default_factory=list[Floats])
    _size: int = 0

    def add(self, values: Array, keep: int = KEEP_PER_SAMPLE) -> None:
        """Take in one tensor."""
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if flat.size == 0:
            return
        self.low = min(self.low, float(flat.min()))
        self.high = max(self.high, float(flat.max()))
        self.count += flat.size
        # an odd step walks through all channels and columns instead of one of them
        step = max(flat.size // keep, 1) | 1
        part = flat[:: step if flat.size > keep else 1][:keep].copy()
        self._kept.append(part)
        self._size += part.size
        if self._size > KEEP_TOTAL:
            self._kept = [np.concatenate(self._kept)[::2].copy()]
            self._size = self._kept[0].size

    def sample(self) -> Floats:
        """The kept values, with the two extremes."""
        ends = np.array([self.low, self.high], np.float32)
        return np.concatenate([*self._kept, ends])


def observe(
    model: ir.Model, names: Sequence[str], data: CalibrationData
) -> dict[str, Observation]:
    """Run *model* over *data* and describe the values called *names*.

    Raises InputError when there is no data, or a value is NaN or infinite.
    """
    if len(data) == 0:
        raise InputError("calibration data is empty", fix="give at least one sample")
    found = {name: Observation() for name in names}
    for name, value in tapped(model, names, data):
        seen = found[name]
        seen.add(value)
        if not (np.isfinite(seen.low) and np.isfinite(seen.high)) and seen.count:
            raise InputError(
                "calibration meets a value that is not finite",
                where=name,
                why="NaN or infinity in the float model",
                fix="check the calibration data and the float model on it",
            )
    return found


def tapped(
    model: ir.Model, names: Sequence[str], data: CalibrationData
) -> Iterator[tuple[str, Array]]:
    """Every value called one of *names*, for every sample, group by group of taps."""
    inputs = {v.name for v in model.graph.inputs}
    wanted = [n for n in names if n not in inputs]
    groups = _groups(model, wanted)
    for index, group in enumerate(groups or [[]]):
        session = open_model(model, group, optimize=True) if group else None
        for feeds in data:
            if index == 0:
                for name in names:
                    if name in inputs:
                        yield name, _fed(feeds, name)
            if session is None:
                continue
            wanted_inputs = {v.name: _fed(feeds, v.name) for v in session.get_inputs()}
            yield from zip(group, session.run(list(group), wanted_inputs), strict=True)


def _fed(feeds: dict[str, Array], name: str) -> Array:
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
