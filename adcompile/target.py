"""What a target is: a chip and toolchain as data, with the precisions and opsets it takes.

Which targets there are stands in ``adcompile.place.targets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adcompile.errors import UsageError

PRECISIONS = ("xint8", "int8", "fp8", "a8w8", "a16w8", "bf16", "fp16", "fp32")
"""All there are, the coarsest first."""
FLOAT_PRECISIONS = frozenset({"bf16", "fp16", "fp32"})
COARSE_PRECISIONS = frozenset({"int8", "fp8", "xint8", "a8w8", "bf16"})
"""Those with at most 8 significant bits for an activation."""
NEWEST_OPSET = 999
QUANTIZED_OPSET = 17  # of quantized parts, where the target has no opset of its own for them


@dataclass(frozen=True, slots=True)
class Target:
    """One chip and toolchain.

    ``name`` is canonical ("npu:stx", "trt:orin-nx@10.3"); ``toolchain`` its version; ``precisions``
    those that can be asked for, the first is the default; ``limits`` are numbers the support checks
    read (for example ``topk_max``); ``facts`` are strings for recipes (SM, PRODUCT, opset …).
    """

    name: str
    family: str
    title: str
    toolchain: str
    precisions: tuple[str, ...]
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    source: str = ""


def check_precision(target: Target, precision: str | None) -> str:
    """*precision*, or the target's default for None; an unknown one is a UsageError."""
    if precision is None:
        return target.precisions[0]
    if precision not in target.precisions:
        raise UsageError(
            f"{target.name} has no precision {precision!r}",
            why=f"{target.title}, {target.toolchain}",
            fix="use one of: " + ", ".join(target.precisions),
        )
    return precision


def finer_precision(target: Target, precision: str) -> str:
    """The next finer one that runs on the device; "" when there is none."""
    finer = PRECISIONS[PRECISIONS.index(precision) + 1 : -1]
    return next((name for name in finer if name in target.precisions), "")


def opset_range(target: Target) -> tuple[int, int]:
    """The oldest and the newest opset that the target's tools read."""
    return target.limits.get("opset_min", 1), target.limits.get("opset_max", NEWEST_OPSET)


def part_opsets(target: Target, precision: str, now: int) -> tuple[int, ...]:
    """Opsets that a device part of a model of opset *now* may be written in, the best first."""
    low, high = opset_range(target)
    nearest = min(max(now, low), high)
    if precision in FLOAT_PRECISIONS:
        return (nearest,)
    if "opset_quantized" in target.limits:
        return (target.limits["opset_quantized"],)
    return (min(QUANTIZED_OPSET, high), nearest)
