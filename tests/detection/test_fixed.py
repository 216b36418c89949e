"""Fixed input size: what goes in can be brought back to the original picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.detection.fixed import Fit, FixedSize, to_tensor
from adcompile.detection.found import Found
from adcompile.errors import UsageError

Mode = Literal["stretch", "letterbox"]
sides = st.tuples(st.integers(1, 90), st.integers(1, 90))
modes = st.sampled_from(["stretch", "letterbox"])


@given(sides, sides, modes, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(
    original: tuple[int, int], size: tuple[int, int], mode: Mode, parts: list[float]
) -> None:
    """Rule: a box moved into the detector's pixels and back is the same box."""
    fit = Fit.of(original, size, mode)
    (height, width), (top, left) = fit.content, fit.corner
    assert top + height <= size[0]
    assert left + width <= size[1]
    box = np.array([parts]) * ([original[1], original[0]] * 2)
    scale = [width / original[1], height / original[0]] * 2
    inside = (box * np.array(scale) + np.array([left, top] * 2)).astype(np.float32)
    found = fit.restore(Found(inside, np.array([1]), np.ones(1, np.float32)))
    assert np.allclose(found.boxes, box, atol=1e-3 * max(original) / min(1, *scale[:2]))


@given(sides, sides)
def test_letterbox_keeps_the_aspect(original: tuple[int, int], size: tuple[int, int]) -> None:
    """Rule: letterboxing scales both sides alike (to the pixel) and touches one pair of edges."""
    fit = Fit.of(original, size, "letterbox")
    assert fit.content[0] == size[0] or fit.content[1] == size[1]
    scale = min(size[0] / original[0], size[1] / original[1])
    for got, side in zip(fit.content, original, strict=True):
        assert abs(got - side * scale) <= 0.5 or got == 1


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("original", [(90, 60), (60, 90), (200, 130), (64, 64)])
def test_masks_come_back(mode: Mode, original: tuple[int, int]) -> None:
    """Rule: a shape seen through the detector's frame comes back to its place and size."""
    fit = Fit.of(original, (64, 64), mode)
    y, x = np.mgrid[0 : original[0], 0 : original[1]]
    shape = ((y - 40) / 18) ** 2 + ((x - 30) / 14) ** 2 <= 1
    picture = np.repeat((shape * 255).astype(np.uint8)[..., None], 3, axis=2)
    seen = fit.apply(picture, pad=0)
    assert seen.shape == (64, 64, 3)
    masks = seen[None, ..., 0].astype(np.float32) / 255
    boxes = np.zeros((1, 4), np.float32)
    found = fit.restore(Found(boxes, np.array([1]), np.ones(1, np.float32), masks))
    assert found.masks is not None
    assert found.masks.shape == (1, *original)
    back = found.masks[0] >= 0.5
    assert (back & shape).sum() / (back | shape).sum() > 0.9


def test_padding_does_not_come_back() -> None:
    """Rule: what the detector saw in the padding is cut off boxes and masks."""
    fit = Fit.of((20, 40), (40, 40), "letterbox")
    assert fit.corner == (10, 0)
    masks = np.zeros((1, 40, 40), np.float32)
    masks[0, :10] = 1
    box = np.array([[-5, 0, 50, 12]], np.float32)
    found = fit.restore(Found(box, np.array([1]), np.ones(1, np.float32), masks))
    assert found.boxes.tolist() == [[0, 0, 40, 2]]
    assert found.masks is not None
    assert found.masks.shape == (1, 20, 40)
    assert found.masks.max() == 0


def test_same_size_changes_nothing() -> None:
    """Rule: a picture that has the size already passes through bit by bit."""
    picture = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    for mode in ("stretch", "letterbox"):
        fit = Fit.of((12, 10), (12, 10), mode)  # type: ignore[arg-type]
        assert (fit.apply(picture) == picture).all()


def test_padding_colour_and_tensor() -> None:
    """Rule: padding has the given grey; the tensor is 3xHxW in 0..1."""
    seen = Fit.of((2, 4), (4, 4), "letterbox").apply(np.zeros((2, 4, 3), np.uint8), pad=51)
    assert seen[0].tolist() == [[51] * 3] * 4
    tensor = to_tensor(seen)
    assert tensor.shape == (3, 4, 4)
    assert tensor[:, 0, 0].tolist() == pytest.approx([0.2] * 3)


def test_wrong_sizes_are_named() -> None:
    """Rule: empty sizes, another picture or another mask size are usage errors."""
    with pytest.raises(UsageError, match="at least one pixel"):
        Fit.of((0, 4), (4, 4))
    fit = Fit.of((5, 4), (8, 8))
    with pytest.raises(UsageError, match="another size"):
        fit.apply(np.zeros((4, 5, 3), np.uint8))
    found = Found(
        np.zeros((1, 4), np.float32),
        np.array([1]),
        np.ones(1, np.float32),
        np.zeros((1, 4, 4), np.float32),
    )
    with pytest.raises(UsageError, match="input size"):
        fit.restore(found)


def test_the_whole_detector() -> None:
    """Rule: a detector of one size answers in the pixels of any picture; no detections work."""
    seen: list[tuple[int, ...]] = []

    def run(tensor: np.ndarray) -> Mapping[str, Any]:
        seen.append(tensor.shape)
        return {
            "boxes": [[8, 8, 16, 16]],
            "labels": [1],
            "scores": [0.9],
            "masks": np.ones((1, 1, 16, 16)),
        }

    found = FixedSize(run, (16, 16))(np.zeros((32, 64, 3), np.uint8))
    assert seen == [(3, 16, 16)]
    assert found.boxes.tolist() == [[32, 16, 64, 32]]
    assert found.masks is not None
    assert found.masks.shape == (1, 32, 64)

    def nothing(tensor: np.ndarray) -> Mapping[str, Any]:
        return {
            "boxes": np.zeros((0, 4)),
            "labels": [],
            "scores": [],
            "masks": np.zeros((0, 1, 16, 16)),
        }

    empty = FixedSize(nothing, (16, 16), "letterbox")(np.zeros((32, 64, 3), np.uint8))
    assert len(empty) == 0
    assert empty.masks is not None
    assert empty.masks.shape == (0, 32, 64)
