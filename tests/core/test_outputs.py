"""What outputs are taken for, by name, shape and classes; and what follows from it."""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.check.compare import compare
from adcompile.check.tolerance import Tolerances, default_tolerances
from adcompile.manifest import TensorSpec
from adcompile.outputs import CLASS_MAP, TENSOR, take_outputs

IMAGE = TensorSpec(name="image", dtype="float32", shape=(1, 3, 64, 96))


def taken(
    shape: tuple[int | str, ...],
    *,
    name: str = "out",
    dtype: str = "float32",
    classes: int = 0,
    declared: str = "",
) -> str:
    spec = TensorSpec(name=name, dtype=dtype, shape=shape)
    roles = {name: declared} if declared else {}
    found = take_outputs([IMAGE], [spec], roles, classes)[name]
    assert found.why or found.role == TENSOR, "whatever is more than a tensor has a reason"
    return found.role


@pytest.mark.parametrize(
    ("shape", "more"),
    [
        ((1, 21, 64, 96), {}),
        (("batch", 21, 64, 96), {}),
        ((1, 21, 64, 96), {"name": "masks"}),
        ((1, 150, 16, 24), {"name": "logits"}),
        ((1, 19, 8, 12), {"classes": 19}),
        ((1, 3, 64, 96), {"classes": 3}),
        ((1, 19, "h", "w"), {"classes": 19}),
        ((1, 64, 96), {"dtype": "int64"}),
        ((1, 1, 32, 48), {"dtype": "uint8"}),
        ((1, 9, 7, 5), {"declared": CLASS_MAP}),
    ],
)
def test_class_maps(shape: tuple[int | str, ...], more: dict[str, str]) -> None:
    """Scores for every pixel of the input, or named so, or as many as there are class names."""
    assert taken(shape, **more) == CLASS_MAP  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "more"),
    [
        ((1, 256, 16, 24), {}),
        ((1, 3, 64, 96), {}),
        ((1, 1, 64, 96), {}),
        ((1, 21, 64, 96), {"classes": 80}),
        ((1, 21, 64, 64), {}),
        ((1, 19, 4, 6), {"classes": 19}),
        ((2, 21, 64, 96), {}),
        ((1, 1000), {"dtype": "int64"}),
        ((1, 21, 64, 96), {"name": "features"}),
        ((1, 21, 64, 96), {"declared": "tensor"}),
    ],
)
def test_other_maps(shape: tuple[int | str, ...], more: dict[str, str]) -> None:
    """Features, images, depth, other numbers of classes, batches, and what the contract denies."""
    assert taken(shape, **more) != CLASS_MAP  # type: ignore[arg-type]


def test_masks_of_a_detector_are_no_class_map() -> None:
    boxes = TensorSpec(name="boxes", dtype="float32", shape=("n", 4))
    masks = TensorSpec(name="masks", dtype="float32", shape=(1, 21, 64, 96))
    assert take_outputs([IMAGE], [boxes, masks], {}, 0)["masks"].role == "masks"


def test_classes_of_pixels_are_compared_as_classes() -> None:
    """Half of the pixels of another class is the bound of coarse precisions; float allows 0.1 %."""
    reference = np.zeros((1, 10, 10), np.int64)
    actual = reference.copy()
    actual[0, :2] = 20
    roles = {"out": CLASS_MAP}
    for precision, ok in (("fp32", False), ("a8w8", True)):
        bounds = Tolerances.of(default_tolerances([precision]))
        (found,) = compare({"out": reference}, {"out": actual}, roles, bounds)
        assert found.ok is ok
        assert found.metrics["same_pixels"] == 0.8


def test_a_role_without_a_bound_has_that_of_a_tensor() -> None:
    bounds = Tolerances.of(default_tolerances(["a8w8"]))
    assert bounds.role("raw detections") == bounds.role("tensor")
