"""A contract's pre-processing in the words of the DRP-AI pre-processing runtime.

Its Normalize computes ``(x + cof_add) * cof_mul``; ours is ``(x * scale - mean) / std``. So
``cof_add = -mean / scale`` and ``cof_mul = scale / std``.
"""

from __future__ import annotations

import onnx_ir as ir

from adcompile.contract import CONTRACT_KEY, Preprocess, parse_contract
from adcompile.manifest import TensorSpec

_RESIZE = {
    "pil_bilinear": "BILINEAR",
    "cv_bilinear": "BILINEAR",
    "pil_nearest": "NEAREST",
    "cv_nearest": "NEAREST",
}


def preprocessing_plan(
    model: ir.Model, inputs: tuple[TensorSpec, ...], camera: tuple[int, int]
) -> dict[str, object] | None:
    """The plan for the part's image input; None when it has none, or it cannot be expressed.

    *camera* is height and width of a frame.
    """
    text = model.metadata_props.get(CONTRACT_KEY)
    if not text or len(inputs) != 1:
        return None
    steps = parse_contract(text, "model metadata").inputs.get(inputs[0].name)
    if steps is None or steps.layout != "nchw":
        return None
    return express(steps, *camera)


def express(steps: Preprocess, height: int, width: int) -> dict[str, object]:
    """One plan: input frame, tensor, operators in order, and what differs from the contract."""
    differences: list[str] = []
    if steps.resize == "letterbox":
        differences.append("letterbox is done by the application; the runtime stretches")
    if steps.resample == "pil_bilinear":
        differences.append("the runtime's bilinear resize has no antialiasing")
    target = steps.size
    if steps.resize_to is not None:
        target = (
            (steps.resize_to, steps.resize_to)
            if isinstance(steps.resize_to, int)
            else steps.resize_to
        )
    operators: list[dict[str, object]] = []
    if steps.resize != "none":
        operators.append(
            {
                "op": "Resize",
                "width": target[1],
                "height": target[0],
                "mode": _RESIZE[steps.resample],
            }
        )
    if steps.crop is not None:
        operators.append(
            {
                "op": "Crop",
                "left": (target[1] - steps.crop[1]) // 2,
                "top": (target[0] - steps.crop[0]) // 2,
                "width": steps.crop[1],
                "height": steps.crop[0],
            }
        )
    operators.append(
        {
            "op": "Normalize",
            "cof_add": [-m / steps.scale for m in steps.mean],
            "cof_mul": [steps.scale / s for s in steps.std],
        }
    )
    channels = len(steps.mean)
    return {
        "shape_in": [1, height, width, 3],
        "format_in": "BGR",
        "order_in": "HWC",
        "type_in": "UINT8",
        "shape_out": [1, channels, steps.size[0], steps.size[1]],
        "format_out": steps.channels.upper(),
        "order_out": "CHW",
        "type_out": "FP32",
        "ops": operators,
        "differences": differences,
    }
