"""What the outputs of a model are taken for, and why: by its contract, their names and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adcompile.manifest import TensorSpec

CLASS_MAP = "class_map"
"""Role of an output with a class, or the scores of all classes, for every pixel."""
TENSOR = "tensor"
SMALLEST_MAP = 8  # pixels along each side: smaller outputs are features, not class maps

# an output whose name holds one of these words has that role
ROLE_WORDS: tuple[tuple[str, str], ...] = (
    ("pred_score", "score"),
    ("anomaly_map", "map"),
    ("boxes", "boxes"),
    ("labels", "labels"),
    ("scores", "scores"),
    ("masks", "masks"),
    ("score", "score"),
    ("map", "map"),
    ("layer", "features"),
    ("feature", "features"),
)
_FLOATS = frozenset({"float32", "float16"})
_NUMBERS = frozenset({"int64", "int32", "uint8", "int8", "int16", "uint16"})
_DECLARE = f"(a contract with roles: {{NAME: {CLASS_MAP}}} says otherwise)"


@dataclass(frozen=True, slots=True)
class Taken:
    """A role, and the sentence that says what it follows from ("" when nothing is known)."""

    role: str
    why: str = ""


def role_of(name: str) -> str:
    """Role of an output by its name; "tensor" when the name says nothing."""
    lowered = name.lower()
    return next((role for word, role in ROLE_WORDS if word in lowered), TENSOR)


def take_outputs(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    declared: Mapping[str, str],
    classes: int,
) -> dict[str, Taken]:
    """The role of every output: the *declared* one, else by its name, else by its shape beside the only
    image among *inputs* and the number of named *classes* (0: not known)."""
    detector = any(role_of(spec.name) == "boxes" for spec in outputs)
    found: dict[str, Taken] = {}
    for spec in outputs:
        role = role_of(spec.name)
        by_shape = _by_shape(spec, image_of(inputs), classes)
        # a name with "masks" or "map" in it is no evidence against a score for every class and pixel
        loose = (role == "masks" and not detector) or role == "map"
        if spec.name in declared:
            found[spec.name] = Taken(declared[spec.name], "the contract says so")
        elif role != TENSOR and not (loose and by_shape.role == CLASS_MAP):
            found[spec.name] = Taken(role, "by its name")
        else:
            found[spec.name] = by_shape
    return found


def image_of(inputs: Sequence[TensorSpec]) -> tuple[int, int, int] | None:
    """Channels, height and width of the only image among the inputs."""
    images: list[tuple[int, int, int]] = []
    for spec in inputs:
        sides = spec.shape[-3:]
        if len(spec.shape) not in {3, 4} or not all(isinstance(d, int) for d in sides):
            continue
        first, second, third = (int(d) for d in sides)
        if first in (1, 3):
            images.append((first, second, third))
        elif third in (1, 3):
            images.append((third, first, second))
    return images[0] if len(images) == 1 else None


def _by_shape(spec: TensorSpec, image: tuple[int, int, int] | None, classes: int) -> Taken:
    rank = len(spec.shape)
    if (
        rank == 2
        and spec.dtype in _FLOATS
        and isinstance(spec.shape[1], int)
        and spec.shape[1] > 1
    ):
        return Taken(TENSOR, f"one row of {spec.shape[1]} numbers: class scores")
    if rank == 4 and spec.dtype in _FLOATS:
        return _scores_of_pixels(spec, image, classes)
    flat = rank >= 2 and all(d == 1 for d in spec.shape[:-2])
    if flat and spec.dtype in _NUMBERS and _shrunk(spec.shape[-2:], image):
        return Taken(CLASS_MAP, "a whole number for every pixel")
    return Taken(TENSOR)


def _scores_of_pixels(spec: TensorSpec, image: tuple[int, int, int] | None, classes: int) -> Taken:
    """A float output [1,C,H,W]."""
    batch, channels, *sides = spec.shape
    shrunk = _shrunk(sides, image)
    if (isinstance(batch, int) and batch != 1) or not isinstance(channels, int):
        return Taken(TENSOR)
    if channels < 2:
        return Taken(TENSOR, "one value for every pixel: no classes")
    if channels == classes and (shrunk or not all(isinstance(d, int) for d in sides)):
        return Taken(CLASS_MAP, f"as many channels as class names, {classes}")
    if not shrunk or image is None or classes:
        return Taken(TENSOR)
    if shrunk == 1 and channels == image[0]:
        return Taken(TENSOR, f"channels and size of the input: an image {_DECLARE}")
    if shrunk == 1:
        return Taken(CLASS_MAP, f"{channels} scores for every pixel of the input")
    if "logits" in spec.name.lower():
        return Taken(CLASS_MAP, f"named logits, {channels} for each {shrunk}×{shrunk} pixels")
    return Taken(
        TENSOR, f"{channels} values for each {shrunk}×{shrunk} pixels: features {_DECLARE}"
    )


def _shrunk(sides: Sequence[int | str], image: tuple[int, int, int] | None) -> int:
    """How many pixels of the image a side of a map's pixel is; 0 where that is no whole number."""
    if image is None or not all(isinstance(d, int) and d >= SMALLEST_MAP for d in sides):
        return 0
    factors = {
        whole // int(side) if whole % int(side) == 0 else 0
        for whole, side in zip(image[1:], sides, strict=True)
    }
    return factors.pop() if len(factors) == 1 else 0
