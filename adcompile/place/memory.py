"""About how much memory of the device a part needs: its weights, and the tensors alive at once.

An estimate from shapes and precision, before any vendor tool has run. A tensor counts from the node
that writes it to the last that reads it; what only looks at a tensor anew or can overwrite it takes no
room of its own. The vendor's scratch memory, programs and copies come on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from adcompile.ir.graph import is_constant
from adcompile.place.cost import nbytes
from adcompile.place.schema import PartPlan
from adcompile.place.support import words
from adcompile.target import Target

_MIB = 1 << 20

_BYTES: Mapping[str, tuple[int, int]] = {
    "int8": (1, 1),
    "xint8": (1, 1),
    "a8w8": (1, 1),
    "a16w8": (1, 2),
    "fp16": (2, 2),
    "bf16": (2, 2),
}
"""Bytes of a float number as weight and as activation, by precision; others keep their own."""
_IN_PLACE = words(
    """Reshape Flatten Squeeze Unsqueeze Identity Dropout Relu Clip LeakyRelu Sigmoid Tanh HardSigmoid
    HardSwish Elu Selu Softplus Abs Neg Exp BatchNormalization"""
)


def too_large(parts: Iterable[PartPlan], target: Target, asked_mib: int) -> tuple[str, str]:
    """That the device parts together need more than the board gives them, and what helps; "" where not.

    *asked_mib* is what the user said that it gives, 0 what is known of *target*, if anything.
    """
    limit = asked_mib or target.limits.get("memory_mib", 0)
    need = [(p.name, p.cost.weights, p.cost.activations) for p in parts]
    total = sum(weights + tensors for _, weights, tensors in need) / _MIB
    if not limit or total <= limit:
        return "", ""
    largest = max(need, key=lambda part: part[1] + part[2])
    name, weights, tensors = largest[0], largest[1] / _MIB, largest[2] / _MIB
    hint = "" if asked_mib else target.facts.get("memory", "")
    what = (
        f"the device parts need about {total:,.0f} MiB, the board gives {limit:,}"
        f"{f' ({hint})' if hint else ''}"
    )
    fix = (
        f"the largest is {name} with {weights:,.0f} MiB of weights and "
        f"{tensors:,.0f} of tensors. A smaller input or fewer bits per number need less; "
        "-O memory_mib=N says what your board gives"
    )
    return what, fix


def weight_bytes(nodes: Sequence[ir.Node], precision: str) -> int:
    """Bytes of all constants that *nodes* read, each once."""
    constants = {v for n in nodes for v in n.inputs if v is not None and is_constant(v)}
    return sum(_size(v, _BYTES.get(precision, (0, 0))[0], 1) for v in constants)


def activation_bytes(
    nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], precision: str, rows: int
) -> int:
    """The largest sum of tensors alive at once while *nodes* run in this order, in bytes.

    *outputs* live to the end. A free leading dimension has *rows* rows.
    """
    each = _BYTES.get(precision, (0, 0))[1]
    reads = [[v for v in n.inputs if v is not None and not is_constant(v)] for n in nodes]
    final = {v: i for i, read in enumerate(reads) for v in read}
    final |= dict.fromkeys(outputs, len(nodes))
    home: dict[ir.Value, ir.Value] = {}  # a tensor to the one whose memory it is in
    last: dict[ir.Value, int] = {}
    for i, (node, read) in enumerate(zip(nodes, reads, strict=True)):
        for value in read:
            last[home.setdefault(value, value)] = i
        free = node.op_type in _IN_PLACE and bool(read) and final[read[0]] == i
        for value in node.outputs:
            home[value] = home[read[0]] if free else value
            last[home[value]] = i
    last |= {home.get(value, value): len(nodes) for value in outputs}
    made = {v: i for i, node in enumerate(nodes) for v in node.outputs}
    change = [0] * (len(nodes) + 2)
    for value in set(home.values()):
        size = _size(value, each, rows)
        change[made.get(value, 0)] += size
        change[last[value] + 1] -= size
    peak = alive = 0
    for step in change:
        alive += step
        peak = max(peak, alive)
    return peak


def _size(value: ir.Value, width: int, rows: int) -> int:
    """Bytes of a tensor whose float numbers have *width* (0: their own)."""
    own = nbytes(value, rows)
    if not own or not width or value.dtype is None or not value.dtype.is_floating_point():
        return own
    return own // np.dtype(value.dtype.numpy()).itemsize * width
