"""Average precision of boxes and masks, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypedDict, cast

import numpy as np
import numpy.typing as npt

from adcompile.detection.coco import CocoSet
from adcompile.detection.found import Found
from adcompile.errors import FormatError, ToolMissing

ROWS: tuple[str, ...] = (
    "AP",
    "AP50",
    "AP75",
    "AP small",
    "AP medium",
    "AP large",
    "AR 1",
    "AR 10",
    "AR 100",
    "AR small",
    "AR medium",
    "AR large",
)
"""The twelve numbers of COCO's protocol, in pycocotools' order. -1: no such objects."""

Kind = Literal["bbox", "segm"]


class PackedMask(TypedDict):
    """A mask as COCO's packed run lengths."""

    size: list[int]
    counts: str


class _Boxed(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class Prediction(_Boxed, total=False):
    """One entry of COCO's result format; ``bbox`` is x y width height."""

    segmentation: PackedMask


class _Masks(Protocol):
    def encode(self, bimask: npt.NDArray[np.uint8]) -> list[dict[str, object]]: ...


class _Coco(Protocol):
    dataset: dict[str, object]

    def createIndex(self) -> None: ...
    def loadRes(self, resFile: list[dict[str, object]]) -> _Coco: ...


class _Eval(Protocol):
    stats: npt.NDArray[np.float64]

    def evaluate(self) -> None: ...
    def accumulate(self) -> None: ...
    def summarize(self) -> None: ...


class _Cocotools(Protocol):
    def COCO(self) -> _Coco: ...
    def COCOeval(self, cocoGt: _Coco, cocoDt: _Coco, iouType: str) -> _Eval: ...


def _missing(error: ImportError) -> ToolMissing:
    return ToolMissing(
        "COCO evaluation needs pycocotools",
        why=str(error),
        fix="pip install 'adcompile[eval]'",
    )


def _mask_tools() -> _Masks:
    try:
        from pycocotools import mask  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise _missing(error) from error
    return cast(_Masks, mask)


def pack(masks: npt.NDArray[np.bool_]) -> list[PackedMask]:
    """Packed run lengths of ``masks`` [N,H,W]."""
    if not len(masks):
        return []
    columns = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    packed: list[PackedMask] = []
    for entry in _mask_tools().encode(columns):
        counts = cast(bytes, entry["counts"]).decode("ascii")
        packed.append({"size": list(cast("list[int]", entry["size"])), "counts": counts})
    return packed


def predictions(
    image_id: int, found: Found, to_category: Mapping[int, int], mask_at: float = 0.5
) -> list[Prediction]:
    """COCO result entries of one image, best score first; labels without a category are left out.

    Masks count from probability ``mask_at`` upward.
    """
    entries: list[Prediction] = []
    packed = None if found.masks is None else pack(found.masks >= mask_at)
    for row in np.argsort(-found.scores, kind="stable"):
        category = to_category.get(int(found.labels[row]))
        if category is None:
            continue
        x1, y1, x2, y2 = (float(value) for value in found.boxes[row])
        entry: Prediction = {
            "image_id": image_id,
            "category_id": category,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(found.scores[row]),
        }
        if packed is not None:
            entry["segmentation"] = packed[row]
        entries.append(entry)
    return entries


def average_precision(
    coco: CocoSet, image_ids: Iterable[int], found: Sequence[Prediction], kind: Kind
) -> tuple[float, ...]:
    """The values of :data:`ROWS` over ``image_ids``.

    Raises FormatError when masks are asked for and the annotation file or a prediction has none.
    """
    ids = frozenset(image_ids)
    tools = _cocotools()
    if kind == "segm" and any("segmentation" not in entry for entry in found):
        raise FormatError("a prediction has no mask", fix="evaluate boxes only")
    # One kind at a time: pycocotools takes the area from the box as soon as there is one.
    unused = "bbox" if kind == "segm" else "segmentation"
    entries: list[dict[str, object]] = [
        {name: value for name, value in entry.items() if name != unused}
        for entry in found
        if entry["image_id"] in ids
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index(tools, _truth(coco, ids, kind))
        if entries:
            results = truth.loadRes(entries)
        else:
            results = _index(tools, {**truth.dataset, "annotations": []})
        scorer = tools.COCOeval(truth, results, kind)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return tuple(float(value) for value in scorer.stats)


def _cocotools() -> _Cocotools:
    try:
        from pycocotools import coco, cocoeval  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise _missing(error) from error

    class Tools:
        COCO = staticmethod(coco.COCO)  # pyright: ignore
        COCOeval = staticmethod(cocoeval.COCOeval)  # pyright: ignore

    return cast(_Cocotools, Tools())


def _index(tools: _Cocotools, dataset: dict[str, object]) -> _Coco:
    indexed = tools.COCO()
    indexed.dataset = dataset
    indexed.createIndex()
    return indexed


def _truth(coco: CocoSet, ids: frozenset[int], kind: Kind) -> dict[str, object]:
    chosen = [a for a in coco.annotations if a.image_id in ids]
    if kind == "segm" and any(a.segmentation is None for a in chosen):
        raise FormatError(
            "the annotation file has objects without a mask",
            where=str(coco.source),
            fix="evaluate boxes only",
        )
    return {
        "info": {},
        "images": [image.model_dump() for image in coco.images if image.id in ids],
        "categories": [category.model_dump() for category in coco.categories],
        "annotations": [a.model_dump(mode="json", exclude_none=True) for a in chosen],
    }
