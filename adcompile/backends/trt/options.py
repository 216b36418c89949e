"""The options of this family: which there are, and what they say about a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adcompile.backend_options import PLACEMENT, QUANTIZATION, check_names, whole_number
from adcompile.backends.trt.trtexec import has_option, parse_version
from adcompile.errors import UsageError
from adcompile.interfaces import LowerContext

OPTIONS: Mapping[str, str] = {
    **QUANTIZATION,
    **PLACEMENT,
    "rows": "smallest, usual and largest number of regions that a plan takes: 1,100,1000",
    "workspace_mib": "scratch memory that the builder may use, in MiB",
    "opt_level": "of the builder, 0 (builds quickly) to 5 (runs quickly); from TensorRT 8.6 on",
    "dla_core": "build for this DLA core; Xavier, Orin NX and AGX Orin, up to TensorRT 10.7",
    "plugins": "OP=PLUGIN, OP=PLUGIN@VERSION or OP=PLUGIN@VERSION:name=value, separated by ;",
    "plugin_library": "the shared library that has them",
}
"""Name to meaning, for ``-O NAME=VALUE`` or a part of plan.yaml."""
ROWS = (1, 100, 1000)  # smallest, usual and largest number of regions
_MOST_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user may ask of the builder; None is the builder's own choice."""

    rows: tuple[int, int, int] = ROWS
    workspace_mib: int | None = None
    opt_level: int | None = None
    dla_core: int | None = None


def read_options(ctx: LowerContext) -> Wishes:
    """The wishes of a part. Raises UsageError for an unknown option, a value that is none, and what
    chip or TensorRT version do not have."""
    check_names("trt", ctx.options, OPTIONS)
    level = whole_number(ctx.options, "opt_level", (0, 5), None)
    version = parse_version(ctx.target.toolchain)
    if level is not None and not has_option("--builderOptimizationLevel", version):
        raise UsageError(
            f"{ctx.target.toolchain} has no optimization levels", fix="leave out opt_level"
        )
    return Wishes(
        _row_numbers(ctx.options.get("rows", "")),
        whole_number(ctx.options, "workspace_mib", (1, _MOST_MIB), None),
        level,
        _dla_core(ctx),
    )


def _row_numbers(text: str) -> tuple[int, int, int]:
    if not text:
        return ROWS
    parts = text.split(",")
    if len(parts) != 3 or not all(p.strip().isdigit() for p in parts):
        raise UsageError(f"rows {text!r}", fix="write smallest,usual,largest, like 1,100,1000")
    low, usual, high = (int(p) for p in parts)
    if not 1 <= low <= usual <= high:
        raise UsageError(f"rows {text!r} are not in order", fix="smallest first")
    return low, usual, high


def _dla_core(ctx: LowerContext) -> int | None:
    text = ctx.options.get("dla_core", "")
    if not text:
        return None
    cores = ctx.target.limits.get("dla_cores", 0)
    if not text.isdigit() or int(text) >= cores:
        have = f"has {cores} DLA cores" if cores else "has no DLA"
        raise UsageError(
            f"no DLA core {text}", where=ctx.target.name, why=f"{ctx.target.title} {have}"
        )
    return int(text)
