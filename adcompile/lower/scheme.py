"""A number format for a whole part: which tensors get a grid, and of what kind.

A :class:`Scheme` is data. Every target family declares its own in its ``schemes.py``; the inserter
and the grid search read it, and the family's dialect checker verifies the outcome independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["minmse", "minmax"]
Bias = Literal["int8", "int32", "float"]


def words(text: str) -> frozenset[str]:
    """The blank-separated words of *text*: a readable way to write a long set of operator names."""
    return frozenset(text.split())


# ops with learned weights: input index of the weight, and of the bias
WEIGHTED: dict[str, tuple[int, int]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1, -1),
}

# ops that only move or choose values: their output has the values of their input
MOVES = frozenset(
    {
        "MaxPool",
        "Concat",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Expand",
        "Tile",
        "Identity",
        "DepthToSpace",
        "SpaceToDepth",
        "Dropout",
        "Gather",
    }
)

ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu"})


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a target wants its tensors quantized.

    ``placement``: ``everywhere`` puts Q/DQ on every input and output of a quantized op;
    ``inputs`` only in front of compute ops (and on the shortcut input of a residual Add).
    ``fuse``: (producer, follower) op pairs with no Q/DQ between them. ``tied``: ops whose inputs
    and outputs share one grid. ``tied_inputs``: ops whose inputs share one grid.
    ``activation``/``zero_point``: integer type and its fixed zero point. ``weight_limit``: weights
    lie within plus or minus this many steps. ``power_of_two``: every scale is 2**-n, -32 <= n < 32.
    ``shifts``: obey the limits between neighbouring positions of XINT8. ``ops``: quantized op types.
    ``equalize`` and ``refine_rounding``: scale channels alike first, choose roundings by the error of
    the result afterwards; both are left out where speed matters more (drafts) or to measure them.
    """

    name: str
    activation: str
    zero_point: int
    weight_limit: int
    per_channel: bool
    bias: Bias
    power_of_two: bool
    method: Method
    domain: str = ""
    opset: int = 17
    ir_version: int = 8
    placement: Literal["everywhere", "inputs"] = "everywhere"
    fuse: frozenset[tuple[str, str]] = frozenset()
    tied: frozenset[str] = frozenset()
    tied_inputs: frozenset[str] = frozenset()
    ops: frozenset[str] = frozenset()
    shifts: bool = False
    equalize: bool = True
    refine_rounding: bool = True

    @property
    def low(self) -> int:
        """Smallest stored activation value that is used (symmetric types skip the extra one)."""
        return RANGES[self.activation][0]

    @property
    def high(self) -> int:
        """Largest stored activation value."""
        return RANGES[self.activation][1]


RANGES: dict[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int32": (-(2**31), 2**31 - 1),
}
