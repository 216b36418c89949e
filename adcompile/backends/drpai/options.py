"""The options of this family: which there are, and what they say about a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adcompile.backend_options import PLACEMENT, QUANTIZATION, check_names
from adcompile.dims import parse_dims
from adcompile.errors import UsageError
from adcompile.interfaces import LowerContext

OPTIONS: Mapping[str, str] = {
    **QUANTIZATION,
    **PLACEMENT,
    "camera": "height and width of the frames in front of the DRP's pre-processing: 480x640",
    "drpai_quantization_option": "passed on to the vendor's quantizer",
    "drpai_cpu_data_type": "of nodes that the vendor's compiler leaves to the CPU: float16 or float32",
}
"""Name to meaning, for ``-O NAME=VALUE`` or a part of plan.yaml."""
CAMERA = (480, 640)  # height and width the sample applications use
_SIDES = (3, 4096)
_CPU_TYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user may ask of the vendor's tools. ``camera`` is height and width in pixels."""

    camera: tuple[int, int] = CAMERA
    quantization: str = ""
    cpu_type: str = "float16"


def read_options(ctx: LowerContext) -> Wishes:
    """The wishes of a part. Raises UsageError for an unknown option or a value that is none."""
    check_names("drpai", ctx.options, OPTIONS)
    kind = ctx.options.get("drpai_cpu_data_type") or _CPU_TYPES[0]
    if kind not in _CPU_TYPES:
        raise UsageError(f"-O drpai_cpu_data_type={kind}", fix=" or ".join(_CPU_TYPES))
    quantization = ctx.options.get("drpai_quantization_option", "")
    return Wishes(_camera(ctx.options.get("camera", "")), quantization, kind)


def _camera(text: str) -> tuple[int, int]:
    if not text:
        return CAMERA
    sides = parse_dims(text.lower())
    low, high = _SIDES
    if sides is None or len(sides) != 2 or not all(low <= s <= high for s in sides):
        raise UsageError(
            f"-O camera={text}", why=f"height and width from {low} to {high}", fix="like 480x640"
        )
    return sides[0], sides[1]
