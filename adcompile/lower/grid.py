"""The grid of a tensor: scale, zero point, stored type; and how to choose the scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.lower.observe import Observation
from adcompile.lower.scheme import RANGES, Scheme

Floats = npt.NDArray[np.float32]
MIN_POSITION, MAX_POSITION = -31, 31
MINMSE_STEPS = 4  # powers of two tried below the one that covers the range
SEARCH_STEPS = 40  # fractions of the range tried for a free scale


@dataclass(frozen=True)
class Grid:
    """``real = (stored - zero_point) * scale``; ``scale`` is 0-d, or 1-d along ``axis``."""

    scale: Floats
    zero_point: int
    dtype: str
    axis: int | None = None
    low: int | None = None  # tighter limits than the type's, for reduced weight ranges
    high: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest stored value."""
        low, high = RANGES[self.dtype]
        return (low if self.low is None else self.low, high if self.high is None else self.high)

    @property
    def position(self) -> int:
        """``n`` of a scale ``2**-n``. Only for 0-d power-of-two scales."""
        return round(-float(np.log2(self.scale)))

    def moved_to(self, position: int) -> Grid:
        """The same grid with scale ``2**-position``."""
        scale = np.asarray(2.0**-position, np.float32)
        return Grid(scale, self.zero_point, self.dtype, self.axis, self.low, self.high)

    def steps(self, rank: int) -> Floats:
        """The scale, shaped to broadcast over a tensor of *rank* dimensions."""
        if self.axis is None or self.scale.ndim == 0:
            return self.scale
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape)

    def store(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Quantize: round half to even, add the zero point, saturate."""
        low, high = self.limits
        scaled = np.rint(values.astype(np.float64) / self.steps(values.ndim)) + self.zero_point
        return np.asarray(np.clip(scaled, low, high), self.dtype)

    def restore(self, stored: npt.NDArray[np.generic]) -> Floats:
        """Dequantize to float32; NumPy's arithmetic makes no array of one without dimensions."""
        centred = stored.astype(np.float32) - np.float32(self.zero_point)
        return np.asarray(centred * self.steps(stored.ndim), np.float32)

    def rounded(self, values: npt.NDArray[np.generic]) -> Floats:
        """The nearest values on the grid."""
        return self.restore(self.store(values))


def activation_grid(seen: Sequence[Observation], scheme: Scheme) -> Grid:
    """The grid for one tensor, or for several that must share one."""
    low = min(o.low for o in seen)
    high = max(o.high for o in seen)
    peak = max(abs(low), abs(high))
    top = scheme.high - scheme.zero_point
    if peak == 0.0 or not np.isfinite(peak):
        return _activation(scheme, 1.0 if scheme.power_of_two else 1.0 / top)
    sample = np.concatenate([o.sample() for o in seen])
    if scheme.power_of_two:
        low_end, high_end = scheme.low - scheme.zero_point, top
        best = _best_position(sample, peak, high_end, low_end, None)
        return _activation(scheme, float(2.0**-best))
    if scheme.method == "minmse":
        peak = _best_peak(sample, peak, scheme)
    return _activation(scheme, peak / top)


def _activation(scheme: Scheme, scale: float) -> Grid:
    tiny = float(np.finfo(np.float32).tiny)
    return Grid(np.asarray(max(scale, tiny), np.float32), scheme.zero_point, scheme.activation)


def _squared_error(values: Floats, scale: float, low: int, high: int) -> float:
    rounded = np.clip(np.rint(values / np.float32(scale)), low, high) * np.float32(scale)
    return float(np.square(rounded - values, dtype=np.float64).sum())


def covering_position(peak: float, top: int) -> int:
    """The largest n with ``peak <= top * 2**-n``, within the range the format holds."""
    position = int(np.floor(np.log2(top / peak)))
    return int(np.clip(position, MIN_POSITION, MAX_POSITION))


def _best_peak(sample: Floats, peak: float, scheme: Scheme) -> float:
    low, high = scheme.low - scheme.zero_point, scheme.high - scheme.zero_point
    fractions = np.linspace(0.3, 1.0, SEARCH_STEPS)
    return float(
        min(
            (peak * float(f) for f in fractions[::-1]),
            key=lambda p: _squared_error(sample, p / high, low, high),
        )
    )


Bounds = tuple[int, int]


def weight_grid(weights: Floats, scheme: Scheme, axis: int, bounds: Bounds | None = None) -> Grid:
    """The grid of a weight tensor; *axis* counts output channels, *bounds* limit the position."""
    limit = scheme.weight_limit
    if scheme.per_channel and weights.ndim > 1:
        others = tuple(i for i in range(weights.ndim) if i != axis)
        peaks = np.abs(weights).max(axis=others)
        scale = np.where(peaks > 0, peaks / limit, 1.0).astype(np.float32)
        return Grid(np.maximum(scale, np.float32(1e-30)), 0, "int8", axis, -limit, limit)
    peak = float(np.abs(weights).max(initial=0.0))
    if peak == 0.0 or not np.isfinite(peak):
        return Grid(np.asarray(1.0, np.float32), 0, "int8", None, -limit, limit)
    if not scheme.power_of_two:
        return Grid(np.asarray(peak / limit, np.float32), 0, "int8", None, -limit, limit)
    low = -limit - 1 if limit == 127 else -limit
    best = _best_position(weights, peak, limit, low, bounds)
    return Grid(np.asarray(2.0**-best, np.float32), 0, "int8", None, low, limit)


def _best_position(values: Floats, peak: float, top: int, low: int, bounds: Bounds | None) -> int:
    """The position with the least squared error, within *bounds*."""
    first = covering_position(peak, top)
    tried = list(range(first, min(first + MINMSE_STEPS, MAX_POSITION) + 1))
    if bounds is not None:
        tried = sorted({max(bounds[0], min(p, bounds[1])) for p in tried})
    return min(tried, key=lambda p: _squared_error(values, 2.0**-p, low, top))


def bias_grid(bias: Floats, scheme: Scheme, product: Floats, bounds: Bounds | None = None) -> Grid:
    """The grid of a bias; *product* is input scale times weight scale (0-d or per channel)."""
    if scheme.bias == "int32":
        axis = 0 if product.ndim else None
        return Grid(product.astype(np.float32), 0, "int32", axis)
    peak = float(np.abs(bias).max(initial=0.0))
    if peak > 0.0:
        position = _best_position(bias, peak, 127, -128, bounds)
    else:
        position = max(bounds[0], min(0, bounds[1])) if bounds is not None else 0
    return Grid(np.asarray(2.0**-position, np.float32), 0, "int8")
