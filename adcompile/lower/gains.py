"""Which values of a quantized model are the float model's times a gain, and times which one.

Equalisation multiplies a stream of values by a gain and divides what reads it, so the model computes
the same and a value inside has the float model's name but not its numbers. Whoever compares the
two models value by value needs the gains, so they travel with the quantized model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.interfaces import Array

KEY = "adcompile.gains"
Floats = npt.NDArray[np.float32]


def write_gains(model: ir.Model, gains: Mapping[str, Floats]) -> None:
    """Note *gains* in the metadata of *model*: by value name, 0-d or one per channel (axis 1).

    Gains of 1 are left out; values with the same gains share one entry.
    """
    places: dict[bytes, int] = {}
    names: dict[str, int] = {}
    for name, gain in gains.items():
        if np.all(gain == 1.0):
            continue
        data = np.ascontiguousarray(gain, "<f4").tobytes()
        names[name] = places.setdefault(data, len(places))
    if names:
        kept = [base64.b64encode(data).decode("ascii") for data in places]
        model.metadata_props[KEY] = json.dumps({"gains": kept, "values": names})


def read_gains(model: ir.Model) -> dict[str, Floats]:
    """The gains by value name; empty when *model* has none or they cannot be read.

    They only explain a difference: a file that somebody else changed is compared without them.
    """
    try:
        record = json.loads(model.metadata_props.get(KEY, "{}"))
        kept = [
            np.frombuffer(base64.b64decode(t, validate=True), "<f4")
            for t in record.get("gains", [])
        ]
        names = cast("dict[str, int]", record.get("values", {}))
        found = {name: kept[index].astype(np.float32) for name, index in names.items()}
    except (
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
    ):  # binascii.Error is a ValueError
        return {}
    return {name: gain for name, gain in found.items() if gain.size}


def with_gain(array: Array, gain: Floats | None) -> Array:
    """*array* of the float model as the quantized model has it: times *gain* along axis 1.

    A gain that does not fit the shape changes nothing.
    """
    if gain is None or array.dtype.kind != "f":
        return array
    shape = [1] * array.ndim
    if gain.size > 1:
        if array.ndim < 2 or array.shape[1] != gain.size:
            return array
        shape[1] = gain.size
    return np.asarray(np.asarray(array, np.float32) * gain.reshape(shape), array.dtype)
