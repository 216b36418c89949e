"""Decoders by name: what the raw outputs of well-known detectors mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import ValidationError

from adcompile.contract import Decoder
from adcompile.errors import UsageError
from adcompile.rewrite.options import Reader, read_options

NONE = "none"

Pairs = tuple[tuple[float, float], ...]

_V5_ANCHORS: Pairs = (
    *((10, 13), (16, 30), (33, 23)),
    *((30, 61), (62, 45), (59, 119)),
    *((116, 90), (156, 198), (373, 326)),
)
_V7_ANCHORS: Pairs = (
    *((12, 16), (19, 36), (40, 28)),
    *((36, 75), (76, 55), (72, 146)),
    *((142, 110), (192, 243), (459, 401)),
)

_V5_HEADS = Decoder(
    preset="yolov5-heads",
    layout="heads",
    grid="yolov5",
    objectness=True,
    activation="sigmoid",
    anchors=_V5_ANCHORS,
    iou=0.45,
)

PRESETS: Mapping[str, tuple[str, Decoder]] = {
    "yolov8": (
        "Ultralytics v8, v9, 11, 12: [1, 4+classes, places]",
        Decoder(preset="yolov8", layout="columns"),
    ),
    "yolov5": (
        "v5, v7: [1, places, 5+classes], decoded, with objectness",
        Decoder(preset="yolov5", layout="rows", objectness=True, iou=0.45),
    ),
    "yolov5-heads": (
        "v5: one [1, 3·(5+classes), H, W] per stride, not decoded; anchors of the COCO models",
        _V5_HEADS,
    ),
    "yolov7-heads": (
        "v7: as yolov5-heads, with the anchors of v7",
        _V5_HEADS.model_copy(update={"preset": "yolov7-heads", "anchors": _V7_ANCHORS}),
    ),
    "yolox": (
        "YOLOX: [1, places, 5+classes], boxes relative to cells",
        Decoder(preset="yolox", layout="rows", grid="yolox", objectness=True, iou=0.45),
    ),
    "yolox-decoded": (
        "YOLOX exported with decode_in_inference: the same, boxes in pixels",
        Decoder(preset="yolox-decoded", layout="rows", objectness=True, iou=0.45),
    ),
    "rtdetr": (
        "RT-DETR of Ultralytics: [1, queries, 4+classes], boxes as shares of the sides",
        Decoder(preset="rtdetr", layout="rows", unit="side", iou=0.9),
    ),
    "yolov10": (
        "v10 and end-to-end exports: [1, detections, 6] of x1 y1 x2 y2 score label",
        Decoder(preset="yolov10", layout="final", boxes="xyxy"),
    ),
}


def parse_decoder(text: str) -> Decoder:
    """``NAME`` or ``NAME{key=value,…}``, the keys being fields of :class:`Decoder`.

    Raises UsageError for an unknown name or key, or a value that the field does not take.
    """
    reader = Reader(text)
    name = reader.word("a decoder")
    options = read_options(reader)
    if reader.peek():
        raise reader.error("expected the end")
    if name not in PRESETS:
        raise UsageError(
            f"no decoder is called {name!r}", fix="known: " + ", ".join([*PRESETS, NONE])
        )
    preset = PRESETS[name][1]
    changes = {key.replace("-", "_"): _value(key, value) for key, value in options.items()}
    if len(changes) < len(options) or "preset" in changes:
        why = "an option is given twice, or is the name itself"
        raise UsageError(f"--decoder {text}", why=why)
    try:
        return Decoder.model_validate({**preset.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(x) for x in first["loc"]) or name
        raise UsageError(f"--decoder {text}", where=field, why=first["msg"]) from error


def _value(key: str, value: str | list[str]) -> object:
    """Anchors are written flat, ``[10,13,16,30]``, and kept in pairs."""
    if key != "anchors" or isinstance(value, str):
        return value
    if len(value) % 2:
        raise UsageError("anchors are pairs of width and height", where=f"{len(value)} numbers")
    return cast("object", list(zip(value[::2], value[1::2], strict=True)))
