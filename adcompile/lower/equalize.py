"""Equalisation: gains on streams that make a model easier to quantize, and change nothing else.

Two effects. Channels of one tensor get similar ranges, so that one scale fits them all (this is
cross-layer equalisation, carried through additions and pools instead of pairs of convolutions only).
And where scales are powers of two, every tensor is moved to where its range fills such a grid best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.ir.graph import constant
from adcompile.lower.gains import write_gains
from adcompile.lower.grid import covering_position
from adcompile.lower.observe import Floats, Observation
from adcompile.lower.points import attribute
from adcompile.lower.scheme import WEIGHTED, Scheme
from adcompile.lower.streams import Stream, find_streams

Doubles = npt.NDArray[np.float64]
STEPS = 8  # gains tried per factor of two
ROUNDS = 4
SAMPLE = 1 << 13
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGEST_GAIN = 64.0


def equalize(
    model: ir.Model, seen: Mapping[str, Observation], scheme: Scheme
) -> dict[str, Observation]:
    """Rescale the weights of *model* in place; returns the observations of the new model.

    The gains are noted in the model's metadata (``lower.gains``).
    """
    gains: dict[str, Floats] = {}
    streams = [s for s in find_streams(model) if s.free and s.writers and s.readers]
    own_weights(model, streams)
    for _ in range(2):
        for stream in streams:
            if stream.channels > 1:
                gain = _channel_gain(stream, _now(seen, gains, stream), scheme)
                _apply(stream, gain)
                _note(gains, stream, gain)
    if scheme.power_of_two:
        for stream, exponent in zip(streams, _fit(streams, seen, gains, scheme), strict=True):
            gain = np.asarray(2.0 ** (exponent / STEPS), np.float32)
            _apply(stream, gain)
            _note(gains, stream, gain)
    write_gains(model, gains)
    return {n: o.scaled(gains[n]) if n in gains else o for n, o in seen.items()}


def _note(gains: dict[str, Floats], stream: Stream, gain: Floats) -> None:
    for name in stream.members:
        gains[name] = (gains[name] * gain).astype(np.float32) if name in gains else gain


def _now(
    seen: Mapping[str, Observation], gains: Mapping[str, Floats], stream: Stream
) -> list[Observation]:
    found = [(n, seen[n]) for n in stream.members if n in seen and seen[n].count]
    return [o.scaled(gains[n]) if n in gains else o for n, o in found]


def own_weights(model: ir.Model, streams: Sequence[Stream]) -> None:
    """Give every node its own copy of a weight or bias that several nodes share."""
    taken = set(model.graph.initializers)
    done: set[ir.Value] = set()
    for node in [n for s in streams for n in (*s.writers, *s.readers)]:
        for index in WEIGHTED[node.op_type]:
            value = node.inputs[index] if 0 < index < len(node.inputs) else None
            if value is None or value in done:
                continue
            if len(list(value.uses())) > 1:
                array = constant(value)
                name, count = f"{value.name}_own", 2
                while name in taken:
                    name, count = f"{value.name}_own{count}", count + 1
                taken.add(name)
                tensor = ir.tensor(np.array(array), name=name)
                value = ir.Value(name=name, shape=value.shape, type=value.type, const_value=tensor)
                model.graph.register_initializer(value)
                node.replace_input_with(index, value)
            done.add(value)


def _weight(node: ir.Node) -> Doubles:
    array = constant(node.inputs[WEIGHTED[node.op_type][0]])
    assert array is not None
    return np.asarray(array, np.float64)


def out_axis(node: ir.Node) -> int:
    """The axis of output channels in a node's weight; for grouped deconvolutions see ``rows``."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return _weight(node).ndim - 1


def _in_axis(node: ir.Node) -> int:
    return {0: 1, 1: 0}.get(out_axis(node), _weight(node).ndim - 2)


def _groups(node: ir.Node) -> int:
    groups = attribute(node, "group", 1)
    return groups if isinstance(groups, int) else 1


def _rows(node: ir.Node, channels: int, *, reader: bool) -> Doubles | None:
    """The weight as channels by the rest, for its output (writer) or input (reader) channels."""
    weight = _weight(node)
    groups = _groups(node)
    axis = _in_axis(node) if reader else out_axis(node)
    if groups > 1:
        if node.op_type != "Conv":
            return None
        if reader:
            # (groups, outputs per group, inputs per group, kernel) -> inputs first
            split = weight.reshape(groups, -1, weight.shape[1], *weight.shape[2:])
            moved = np.swapaxes(split, 1, 2)
            return moved.reshape(groups * weight.shape[1], -1)
    table = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return table if table.shape[0] == channels else None


def _channel_gain(stream: Stream, seen: Sequence[Observation], scheme: Scheme) -> Floats:
    """Gain per channel with the smallest estimated noise behind the readers."""
    ones = np.ones(stream.channels)
    writers = [_rows(n, stream.channels, reader=False) for n in stream.writers]
    readers = [_rows(n, stream.channels, reader=True) for n in stream.readers]
    if not seen or any(w is None for w in (*writers, *readers)):
        return ones.astype(np.float32)
    if any(o.peaks.size != stream.channels for o in seen):
        return ones.astype(np.float32)
    first = [w for w in writers if w is not None]
    second = [r for r in readers if r is not None]
    noise = _Noise(
        peaks=[_positive(o.peaks) for o in seen],
        power=_positive(sum((np.square(o.table()).mean(axis=1) for o in seen), ones * 0.0)),
        first=[_positive(np.abs(w).max(axis=1)) for w in first],
        second=[_positive(np.abs(r).max(axis=1)) for r in second],
        weight=_positive(sum((np.square(r).sum(axis=1) for r in second), ones * 0.0)),
        width=float(np.mean([w.shape[1] for w in first])),
        outputs=float(np.mean([r.shape[1] for r in second])),
        per_channel=scheme.per_channel,
    )
    peak = np.max(noise.peaks, axis=0)
    spread_out = np.max(noise.first, axis=0) if not scheme.per_channel else ones
    spread_in = np.max(noise.second, axis=0)
    choices = [
        _bounded(peak**-a * (spread_out / spread_in) ** (-b / 2.0))
        for a in EXPONENTS
        for b in EXPONENTS
    ]
    best = min(choices, key=noise.of)
    return (
        best.astype(np.float32)
        if noise.of(best) < 0.98 * noise.of(ones)
        else ones.astype(np.float32)
    )


def _positive(values: npt.ArrayLike) -> Doubles:
    array = np.asarray(values, np.float64)
    floor = float(array.max(initial=0.0)) * 1e-4
    return np.maximum(array, floor if floor > 0 else 1.0)


def _bounded(gain: Doubles) -> Doubles:
    middle = float(np.exp(np.mean(np.log(gain))))
    bounded: Doubles = np.clip(gain / middle, 1.0 / LARGEST_GAIN, LARGEST_GAIN)
    return bounded


@dataclass(frozen=True)
class _Noise:
    """Estimated noise power behind the readers of a stream, up to a common factor.

    A grid's step is proportional to the largest magnitude it must hold, its noise to the step
    squared. Noise on channel i of the stream counts with the power of the weights that read it.
    """

    peaks: list[Doubles]
    power: Doubles
    first: list[Doubles]
    second: list[Doubles]
    weight: Doubles
    width: float
    outputs: float
    per_channel: bool

    def of(self, gain: Doubles) -> float:
        behind = float(np.sum(self.weight / np.square(gain)))
        signal = float(np.sum(self.power * self.weight))
        total = sum(float(np.max(p * gain)) ** 2 * behind for p in self.peaks) / signal
        if not self.per_channel:
            rows = float(np.mean([np.mean(np.square(f)) for f in self.first]))
            total += sum(
                float(np.max(f * gain)) ** 2 * behind / (rows * self.weight.sum())
                for f in self.first
            )
        for s in self.second:
            step = float(np.max(s / gain)) ** 2
            count = self.outputs
            total += step * count * float(np.sum(self.power * np.square(gain))) / signal
        return total


def _apply(stream: Stream, gain: Floats) -> None:
    """Multiply the stream by *gain*."""
    for node in stream.writers:
        weight, bias = WEIGHTED[node.op_type]
        _multiply(node, weight, gain, out_axis(node), _groups(node))
        if 0 < bias < len(node.inputs) and node.inputs[bias] is not None:
            _multiply(node, bias, gain, -1, 1)
    for node in stream.readers:
        _divide(node, gain)


def _store(node: ir.Node, index: int, array: Doubles) -> None:
    value = node.inputs[index]
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def _multiply(node: ir.Node, index: int, gain: Floats, axis: int, groups: int) -> None:
    array = np.asarray(constant(node.inputs[index]), np.float64)
    if gain.ndim == 0:
        _store(node, index, array * float(gain))
        return
    shape = [1] * array.ndim
    shape[axis] = -1
    if groups > 1 and node.op_type == "ConvTranspose":
        raise ValueError("a grouped deconvolution takes no gain per channel")
    _store(node, index, array * gain.astype(np.float64).reshape(shape))


def _divide(node: ir.Node, gain: Floats) -> None:
    index = WEIGHTED[node.op_type][0]
    array = _weight(node)
    if gain.ndim == 0:
        _store(node, index, array / float(gain))
        return
    inverse = 1.0 / gain.astype(np.float64)
    groups = _groups(node)
    if groups == 1:
        shape = [1] * array.ndim
        shape[_in_axis(node)] = -1
        _store(node, index, array * inverse.reshape(shape))
        return
    split = array.reshape(groups, -1, array.shape[1], *array.shape[2:])
    by_group = inverse.reshape(groups, 1, array.shape[1], *([1] * (array.ndim - 2)))
    _store(node, index, (split * by_group).reshape(array.shape))


def _fit(
    streams: Sequence[Stream],
    seen: Mapping[str, Observation],
    gains: Mapping[str, Floats],
    scheme: Scheme,
) -> list[int]:
    """One exponent per stream (in steps of 1/8 octave) with the least sum of relative errors."""
    top = scheme.high - scheme.zero_point
    own = [
        sum((_curve(o.sample(), top) for o in _now(seen, gains, s)), np.zeros(STEPS))
        for s in streams
    ]
    weights: dict[ir.Node, Doubles] = {}
    ends: dict[ir.Node, tuple[int | None, int | None]] = {}
    for index, stream in enumerate(streams):
        for node in stream.writers:
            ends[node] = (index, ends.get(node, (None, None))[1])
        for node in stream.readers:
            ends[node] = (ends.get(node, (None, None))[0], index)
    for node in ends:
        weights[node] = _curve(_weight(node).astype(np.float32).reshape(-1), scheme.weight_limit)
    chosen = [0] * len(streams)
    for _ in range(ROUNDS):
        for index, stream in enumerate(streams):
            costs = own[index].copy()
            for node in dict.fromkeys((*stream.writers, *stream.readers)):
                out, source = ends[node]
                for k in range(STEPS):
                    shift = (k if out == index else chosen[out] if out is not None else 0) - (
                        k if source == index else chosen[source] if source is not None else 0
                    )
                    costs[k] += weights[node][shift % STEPS]
            chosen[index] = int(np.argmin(costs))
    return [k if k <= STEPS // 2 else k - STEPS for k in chosen]


def _curve(values: Floats, top: int) -> Doubles:
    """Relative error of the best power-of-two grid, for every gain of one octave."""
    flat = values[:: max(values.size // SAMPLE, 1) | 1] if values.size > SAMPLE else values
    peak = float(np.abs(values).max(initial=0.0))
    power = float(np.square(flat, dtype=np.float64).sum())
    if peak == 0.0 or power == 0.0:
        return np.zeros(STEPS)
    costs = np.zeros(STEPS)
    for k in range(STEPS):
        gain = 2.0 ** (k / STEPS)
        first = covering_position(peak * gain, top)
        costs[k] = min(_error(flat, gain * 2.0**p, top) for p in range(first, first + 3)) / power
    return costs


def _error(values: Floats, factor: float, top: int) -> float:
    """Squared error, in units of *values*, of rounding ``values * factor`` to integers."""
    scaled = values * np.float32(factor)
    difference = np.clip(np.rint(scaled), -top - 1, top) - scaled
    return float(np.square(difference, dtype=np.float64).sum()) / factor**2
