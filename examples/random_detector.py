"""Random weights for torchvision's Mask R-CNN that still detect something.

torchvision's own random start gives every box nearly the same class scores, so nothing passes
the score threshold and all that follows (class-wise NMS, mask head, mask paste) runs on zero
rows. :func:`settle` fixes that without any training: batch-norm statistics are measured on
photographs, and each output layer is rescaled so that over those photographs its values have
mean 0 and a chosen spread. The detections mean nothing, but they depend on the image, their
number differs from image to image, and every part of the graph does real work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.mask_rcnn import MaskRCNN

OBJECTNESS_SPREAD = 2.0
ANCHOR_SHIFT_SPREAD = 0.3
CLASS_SPREAD = 1.5
BOX_SHIFT_SPREAD = 1.0
MASK_SPREAD = 3.0


def settle(model: MaskRCNN, images: Sequence[Tensor], background: float = 7.0) -> None:
    """Measure and rescale ``model`` in place on ``images`` (3xHxW float, 0..1).

    ``background`` is added to the logit of class 0: larger means fewer detections.
    """
    if not images:
        raise ValueError("settle needs at least one image")
    model.eval()
    with torch.no_grad():
        measure(model.backbone, [model.transform([image])[0].tensors for image in images])
        scenes = [_scene(model, image) for image in images]
        _settle_proposals(model, scenes)
        pooled = [_pooled(model, scene) for scene in scenes]
        _settle_boxes(model, pooled, background)
        _settle_masks(model, scenes)
    model.eval()


_Scene = tuple["ImageList", dict[str, Tensor]]


def _scene(model: MaskRCNN, image: Tensor) -> _Scene:
    batch = model.transform([image])[0]
    return batch, model.backbone(batch.tensors)


def _settle_proposals(model: MaskRCNN, scenes: Sequence[_Scene]) -> None:
    head = model.rpn.head
    hidden = [head.conv(level) for _, maps in scenes for level in maps.values()]
    for layer, spread in (
        (head.cls_logits, OBJECTNESS_SPREAD),
        (head.bbox_pred, ANCHOR_SHIFT_SPREAD),
    ):
        _rescale(layer, hidden, spread)


def _pooled(model: MaskRCNN, scene: _Scene) -> Tensor:
    batch, maps = scene
    proposals, _ = model.rpn(batch, maps)
    return model.roi_heads.box_roi_pool(maps, proposals, batch.image_sizes)


def _settle_boxes(model: MaskRCNN, pooled: Sequence[Tensor], background: float) -> None:
    roi = model.roi_heads
    measure(roi.box_head, pooled)
    hidden = [roi.box_head(rows) for rows in pooled]
    _rescale(roi.box_predictor.cls_score, hidden, CLASS_SPREAD)
    roi.box_predictor.cls_score.bias[0] += background
    _rescale(roi.box_predictor.bbox_pred, hidden, BOX_SHIFT_SPREAD)


def _settle_masks(model: MaskRCNN, scenes: Sequence[_Scene]) -> None:
    roi = model.roi_heads
    pooled: list[Tensor] = []
    for batch, maps in scenes:
        # A few proposals per image: which of them are detected does not matter here.
        proposals, _ = model.rpn(batch, maps)
        rows = [boxes[:64] for boxes in proposals]
        pooled.append(roi.mask_roi_pool(maps, rows, batch.image_sizes))
    measure(roi.mask_head, pooled)
    predictor = roi.mask_predictor
    before = [predictor.relu(predictor.conv5_mask(roi.mask_head(rows))) for rows in pooled]
    _rescale(predictor.mask_fcn_logits, before, MASK_SPREAD)


def measure(part: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Set the batch-norm statistics inside ``part`` to those of ``inputs``."""
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the inputs
        norm.train()
    for value in inputs:
        part(value)
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()


def _rescale(layer: nn.Module, inputs: Iterable[Tensor], spread: float) -> None:
    """Give each output channel of ``layer`` mean 0 and standard deviation ``spread``."""
    outputs = [layer(value) for value in inputs]
    rows = torch.cat([o.transpose(0, 1).flatten(1) for o in outputs], dim=1)
    scale = spread / rows.std(dim=1).clamp(min=1e-6)
    weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
    bias.copy_((bias - rows.mean(dim=1)) * scale)
    weight.mul_(scale.reshape(-1, *[1] * (weight.dim() - 1)))
