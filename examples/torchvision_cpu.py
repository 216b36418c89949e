"""Make torchvision importable and usable where its compiled operators cannot load.

torchvision's wheel on the Python package index links against CUDA. Beside a CPU build of torch
its extension does not load, ``import torchvision`` stops at ``torchvision::nms``, and a detector
can be neither built nor exported. :func:`install` defines the missing operators: ``nms`` and
``roi_align`` are computed here (``roi_align`` is differentiable, so detectors can be trained);
the others are declared only, and calling one says that it has no kernel.

Call it before the first ``import torchvision``. Where the real operators load it does nothing.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

_ROI = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SIZES = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_BACK = _ROI.replace("Tensor input", "Tensor grad")
_MAPPED = _BACK.replace("Tensor rois", "Tensor rois, Tensor channel_mapping")
_DEFORM = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
    "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask"
)

SCHEMAS: tuple[str, ...] = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward({_BACK}, {_SIZES}, int sampling_ratio, bool aligned) -> Tensor",
    "qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, "
    "float rois_scale, int rois_zero_point, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    f"deform_conv2d({_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward({_MAPPED}, int sampling_ratio, {_SIZES}) -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward({_MAPPED}, {_SIZES}) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward({_MAPPED.replace('channel_mapping', 'argmax')}, {_SIZES}) -> Tensor",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
)
"""Operators torchvision expects, in its own signatures."""


Floats = npt.NDArray[np.float32]
_BLOCK = 256  # rows compared at a time: bounds memory for many boxes


class _Patchable(Protocol):
    """A torchvision module that asks ``_has_ops`` whether the operators are there."""

    _has_ops: object


_library: torch.library.Library | None = None


def install() -> bool:
    """Define torchvision's operators if its own cannot load; say whether that was needed.

    Raises ImportError when torchvision is not installed at all.
    """
    if _library is not None:
        return True
    if _real_operators_load():
        return False
    if not hasattr(torch.ops.torchvision, "nms"):  # this file imported under another name
        _define()
    # The modules copy `_has_ops` at import; both are asked, by name, at call and script time.
    for name in ("torchvision.extension", "torchvision.ops.roi_align"):
        importlib.import_module(name)
        cast(_Patchable, sys.modules[name])._has_ops = _has_ops
    return True


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of ``dets`` [N, 4] (x1 y1 x2 y2); kept indices, best score first."""
    order = torch.argsort(scores, descending=True, stable=True).numpy()
    boxes = dets.detach().numpy()[order]
    alive = np.ones(len(boxes), dtype=bool)
    for start in range(0, len(boxes), _BLOCK):
        # Rows that earlier blocks suppressed need no comparison.
        rows = start + np.flatnonzero(alive[start : start + _BLOCK])
        clear = ~_overlapping(boxes[rows], boxes[start:], iou_threshold)
        for row, clear_of_row in zip(rows, clear, strict=True):
            if alive[row]:
                alive[row + 1 :] &= clear_of_row[row + 1 - start :]
    return torch.from_numpy(order[alive].astype(np.int64))


def _overlapping(rows: Floats, others: Floats, limit: float) -> npt.NDArray[np.bool_]:
    """Which pairs of [R,4] and [N,4] overlap by more than ``limit``: [R,N]."""
    first, second = rows.T[:, :, None], np.ascontiguousarray(others.T)
    width = np.minimum(first[2], second[2]) - np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3]) - np.maximum(first[1], second[1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (rows, others)]
    # Written without a division: 0/0 of two empty boxes suppresses nothing.
    return np.asarray(overlap > limit * (areas[0][:, None] + areas[1] - overlap))


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Average of bilinear samples per cell: [N,C,H,W], [K,5] -> [K,C,pooled_h,pooled_w]."""
    pooled = (pooled_height, pooled_width)
    result = input.new_zeros((len(rois), input.shape[1], *pooled))
    offset = 0.5 if aligned else 0.0
    corners = rois[:, 1:].detach() * spatial_scale - offset
    extent = corners[:, 2:] - corners[:, :2]
    if not aligned:
        extent = extent.clamp(min=1.0)
    image_of = rois[:, 0].long()
    if sampling_ratio > 0:
        counts = torch.full((len(rois), 2), sampling_ratio, dtype=torch.long)
    else:
        cells = torch.tensor([pooled_width, pooled_height])
        counts = torch.ceil(extent / cells).long().clamp(min=1)
    keys = torch.cat([image_of[:, None], counts], dim=1)
    for key in torch.unique(keys, dim=0):
        rows = torch.nonzero((keys == key).all(dim=1)).flatten()
        image, per_x, per_y = (int(value) for value in key)
        values = _sample(
            input[image : image + 1], corners[rows, :2], extent[rows], pooled, (per_y, per_x)
        )
        result = result.index_copy(0, rows, values)
    return result


def _sample(
    image: Tensor, start: Tensor, extent: Tensor, pooled: tuple[int, int], per: tuple[int, int]
) -> Tensor:
    """Cells [K,C,ph,pw] of the boxes ``start``+``extent`` [K,2] (x, y) on one [1,C,H,W] map."""
    size = image.shape[-2:]
    x = start[:, :1] + extent[:, :1] * _steps(pooled[1], per[1])
    y = start[:, 1:] + extent[:, 1:] * _steps(pooled[0], per[0])
    grid_x, grid_y = (2 * v / max(n - 1, 1) - 1 for v, n in ((x, size[1]), (y, size[0])))
    shape = (len(start), y.shape[1], x.shape[1])
    grid = torch.stack(
        [grid_x[:, None, :].expand(shape), grid_y[:, :, None].expand(shape)], dim=-1
    )
    flat = grid.reshape(1, -1, shape[2], 2)
    sampled = functional.grid_sample(
        image, flat, mode="bilinear", padding_mode="border", align_corners=True
    )
    sampled = sampled.reshape(image.shape[1], *shape).transpose(0, 1)
    # A sample more than one pixel outside the map counts as zero, not as the border's value.
    inside = ((y >= -1) & (y <= size[0]))[:, :, None] & ((x >= -1) & (x <= size[1]))[:, None, :]
    return functional.avg_pool2d(sampled * inside[:, None], per)


def _steps(cells: int, per_cell: int) -> Tensor:
    """Sample centres over a box of extent one, [1, cells*per_cell]."""
    count = cells * per_cell
    return ((torch.arange(count) + 0.5) / count)[None]


def _has_ops() -> bool:
    return True


def _real_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed; install the `train` extra")
    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    finder = importlib.machinery.FileFinder(str(Path(spec.origin).parent), loader)
    extension = finder.find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return False
    return True


def _define() -> None:
    global _library
    _library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        _library.define(schema)
    _library.impl("nms", nms, "CPU")
    # Composite: autograd differentiates through it, so no backward operator is needed.
    _library.impl("roi_align", roi_align, "CompositeImplicitAutograd")
