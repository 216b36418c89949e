"""What the numbers mean: pre-processing of the input, roles of outputs, score formula, threshold.

One declaration, used by training, calibration, the Python runtime, generated C++ and the vendor
pre-processing files. It is stored in the model's metadata (key ``adcompile.contract``) and in the
bundle. The reference systems differ in these choices and contradict themselves; named presets in
``adcompile.anomaly.scoring`` reproduce each of them.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adcompile.errors import FormatError

CONTRACT_KEY = "adcompile.contract"
MAX_SIDE = 65536  # pixels


class Declared(BaseModel):
    """Base: immutable, unknown keys refused (a typo must not be ignored)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocess(Declared):
    """From a decoded image (H×W×C, 8 or 16 bit) to the input tensor.

    Steps, in order: to ``channels`` order; resize to ``size`` (``stretch``: both sides; ``shorter``:
    shorter side to ``resize_to`` keeping the aspect; ``letterbox``: inside ``size``, padded with
    ``pad_value``); centre crop to ``crop``; to float; ``x * scale``; ``(x - mean) / std``; layout.
    ``resample`` names the convention: ``pil_bilinear`` (antialiased), ``pil_nearest``,
    ``cv_bilinear`` (no antialias, half-pixel), ``cv_nearest``.
    """

    size: tuple[int, int]  # height, width of the tensor
    resize: Literal["stretch", "letterbox", "shorter", "none"] = "stretch"
    resize_to: tuple[int, int] | int | None = None  # before the crop; None: ``size``
    resample: Literal["pil_bilinear", "pil_nearest", "cv_bilinear", "cv_nearest"] = "pil_bilinear"
    crop: tuple[int, int] | None = None
    channels: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc", "chw", "hwc"] = "nchw"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    pad_value: int = 114

    @model_validator(mode="after")
    def _check(self) -> Preprocess:
        count = 1 if self.channels == "gray" else 3
        if len(self.mean) != count or len(self.std) != count:
            raise ValueError(f"mean and std need {count} values for channels={self.channels}")
        if any(s <= 0 for s in self.std):
            raise ValueError("std must be positive")
        sides = [*self.size, *(self.crop or ())]
        if isinstance(self.resize_to, int):
            sides.append(self.resize_to)
        elif self.resize_to is not None:
            sides += self.resize_to
        if any(not 1 <= s <= MAX_SIDE for s in sides):
            raise ValueError(f"sizes must be 1 … {MAX_SIDE}")
        if self.crop is not None and self.crop != self.size:
            raise ValueError("crop must equal size: the crop is what the tensor holds")
        return self


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Score(Declared):
    """How an anomaly score is computed from features or maps, and decided.

    ``weighting``: ``none`` (largest first-neighbour distance), ``own_neighbours`` (softmax over the
    patch's own k distances), ``paper`` (neighbours of the nearest bank vector). ``normalisation``
    maps raw to 0…1 with ``threshold``, ``minimum``, ``maximum``. ``compare`` decides "anomalous"
    against ``decision`` on the normalised scale, or against ``threshold`` when not normalised.
    """

    method: Literal["patchcore", "padim", "efficientad", "vae"]
    preset: str = "custom"
    metric: Literal["l2", "squared_l2"] = "l2"
    k: int = Field(default=9, ge=1, le=64)
    weighting: Literal["none", "own_neighbours", "paper"] = "none"
    map_upsampling: Literal["none", "nearest", "bilinear"] = "nearest"
    map_size: tuple[int, int] | None = None
    blur_sigma: float = Field(default=0.0, ge=0.0, le=64.0)
    blur_border: Literal["reflect", "symmetric"] = "reflect"  # without / with the edge pixel
    square_root: bool = True  # PaDiM: root of the Mahalanobis form
    normalisation: Literal["min_max", "cdf", "sigma6", "none"] = "none"
    threshold: float | None = None  # raw scale
    pixel_threshold: float | None = None  # raw scale
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None  # of log scores, for cdf
    std: float | None = None
    decision: float = 0.5
    compare: Literal[">", ">="] = ">="


class Decoder(Declared):
    """How the raw output of a detector becomes boxes, scores and labels.

    ``layout``, with A places, C classes and V values (4 of the box, 1 of the object if ``objectness``,
    C of the classes): ``columns`` [1,V,A]; ``rows`` [1,A,V]; ``heads`` one output per stride,
    [1,n·V,H,W] or [1,n,H,W,V] with n anchors at each of its H×W cells; ``final`` [1,N,6], finished
    rows of x1 y1 x2 y2 score label. ``boxes`` are centre and size, or two corners; ``unit`` says
    whether in pixels of the input or as shares of its sides. ``grid`` is the box arithmetic that the
    graph leaves out, for cell (i, j) of a stride s:

        none      nothing
        yolox     x = (t + j)·s    w = exp(t)·s
        yolov5    x = (2·sigmoid(t) - 0.5 + j)·s    w = (2·sigmoid(t))²·anchor

    ``activation`` is what the graph leaves out of the scores. The score of a class is its own times
    the object's. Class by class, boxes above ``min_score`` are kept, best first, that overlap
    none kept before by more than ``iou``; at most ``max_detections`` are given, best first.
    ``outputs`` names the raw outputs (none: the only ones that fit).
    """

    preset: str = "custom"
    layout: Literal["columns", "rows", "heads", "final"] = "columns"
    boxes: Literal["xywh", "xyxy"] = "xywh"
    unit: Literal["pixel", "side"] = "pixel"
    grid: Literal["none", "yolox", "yolov5"] = "none"
    objectness: bool = False
    activation: Literal["none", "sigmoid"] = "none"
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: tuple[tuple[float, float], ...] = ()  # width, height in pixels; n for each stride
    min_score: float = Field(default=0.25, ge=0.0, le=1.0)
    iou: float = Field(default=0.7, ge=0.0, le=1.0)
    max_detections: int = Field(default=300, ge=1, le=100_000)
    outputs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Decoder:
        if not self.strides or any(not 1 <= s <= MAX_SIDE for s in self.strides):
            raise ValueError(f"strides must be 1 … {MAX_SIDE}")
        if (self.grid == "yolov5") != bool(self.anchors):
            raise ValueError("grid yolov5 has anchors, and no other grid has")
        if len(self.anchors) % len(self.strides):
            raise ValueError("every stride has the same number of anchors")
        if not all(0 < side <= MAX_SIDE for pair in self.anchors for side in pair):
            raise ValueError(f"anchors must be above 0, at most {MAX_SIDE}")
        if (self.layout == "heads") != (self.grid == "yolov5"):
            raise ValueError("layout heads goes with grid yolov5")
        if self.grid != "none" and (self.boxes, self.unit) != ("xywh", "pixel"):
            raise ValueError(f"grid {self.grid} makes centres and sizes in pixels")
        plain = (self.grid, self.objectness, self.activation) == ("none", False, "none")
        if self.layout == "final" and not (plain and self.boxes == "xyxy"):
            raise ValueError("layout final is x1 y1 x2 y2 score label: nothing is left to compute")
        return self


class Contract(Declared):
    """The whole declaration. ``inputs`` maps an input name to its pre-processing."""

    version: int = 1
    inputs: dict[str, Preprocess] = Field(default_factory=dict)
    roles: dict[str, str] = Field(default_factory=dict)  # output -> boxes, scores, map, features …
    classes: tuple[str, ...] = ()
    score: Score | None = None
    decoder: Decoder | None = None  # of a detector whose graph ends before its boxes are final

    def dump(self) -> str:
        """Canonical JSON, one line, sorted keys."""
        # left out where there is none: banks carry a digest of this text
        absent = {"decoder"} if self.decoder is None else None
        record = self.model_dump(mode="json", exclude=absent)
        return json.dumps(record, sort_keys=True, separators=(",", ":"))


def parse_contract(text: str, where: str = "contract") -> Contract:
    """Parse JSON text; raises FormatError naming the field at fault."""
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(x) for x in first["loc"]) or "(whole)"
        raise FormatError(
            "contract is not valid", where=f"{where}: {field}", why=first["msg"]
        ) from error
