"""Fixed input size: what goes in can be brought back to the original picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.contract import Preprocess
from adcompile.detection.fixed import FixedSize, restore, whole_picture
from adcompile.detection.found import Found, Picture
from adcompile.errors import InputError
from adcompile.runtime.preprocess import place, placement

Mode = Literal["stretch", "letterbox"]
sides = st.tuples(st.integers(1, 90), st.integers(1, 90))
modes = st.sampled_from(["stretch", "letterbox"])


def _found(boxes: np.ndarray, masks: np.ndarray | None = None) -> Found:
    count = len(boxes)
    kept = None if masks is None else masks.astype(np.float32)
    return Found(boxes.astype(np.float32), np.ones(count, int), np.ones(count, np.float32), kept)


def _ellipse(original: tuple[int, int]) -> tuple[Picture, np.ndarray]:
    y, x = np.mgrid[0 : original[0], 0 : original[1]]
    shape = ((y - 40) / 18) ** 2 + ((x - 30) / 14) ** 2 <= 1
    return np.repeat((shape * 255).astype(np.uint8)[..., None], 3, axis=2), shape


@given(sides, sides, modes, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back(
    original: tuple[int, int], size: tuple[int, int], mode: Mode, parts: list[float]
) -> None:
    """Rule: a box moved into the detector's pixels and back is the same box."""
    where = placement(*original, whole_picture(size, mode))
    box = np.array([parts]) * ([original[1], original[0]] * 2)
    scale = np.array([*where.scale[::-1]] * 2)
    inside = box * scale + np.array([*where.offset[::-1]] * 2)
    back = restore(_found(inside), where).boxes
    assert np.allclose(back, box, atol=1e-3 * max(original) / min(1, *where.scale))


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("original", [(90, 60), (60, 90), (200, 130), (64, 64)])
def test_masks_come_back(mode: Mode, original: tuple[int, int]) -> None:
    """Rule: a shape seen through the detector's frame comes back to its place and size."""
    picture, shape = _ellipse(original)
    tensor, where = place(picture, whole_picture((64, 64), mode))
    found = restore(_found(np.zeros((1, 4)), tensor[:1]), where)
    assert found.masks is not None
    assert found.masks.shape == (1, *original)
    # At the lowest scale here a pixel of the tensor is three pixels of the picture wide.
    back = found.masks[0] >= 0.5
    assert (back & shape).sum() / (back | shape).sum() > 0.9


def test_padding_does_not_come_back() -> None:
    """Rule: what the detector saw in the padding is cut off boxes and masks."""
    where = placement(20, 40, whole_picture((40, 40), "letterbox"))
    masks = np.zeros((1, 40, 40))
    masks[0, :10] = 1
    found = restore(_found(np.array([[-5, 0, 50, 12]]), masks), where)
    assert found.boxes.tolist() == [[0, 0, 40, 2]]
    assert found.masks is not None
    assert found.masks.shape == (1, 20, 40)
    assert found.masks.max() == 0


def test_cropped_borders_have_no_mask() -> None:
    """Rule: where a crop shows the detector nothing, the restored mask is empty."""
    spec = Preprocess(size=(20, 20), resize="shorter", crop=(20, 20), layout="chw")
    where = placement(40, 80, spec)
    found = restore(_found(np.array([[0, 0, 20, 20]]), np.ones((1, 20, 20))), where)
    assert found.boxes.tolist() == [[20, 0, 60, 40]]
    assert found.masks is not None
    assert found.masks[0, :, 22:58].min() == 1
    assert found.masks[0, :, :18].max() == 0
    assert found.masks[0, :, 62:].max() == 0


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_same_size_changes_nothing(mode: Mode) -> None:
    """Rule: masks of a picture that has the size already come back bit by bit."""
    masks = np.random.default_rng(0).random((2, 12, 10)).astype(np.float32)
    found = restore(
        _found(np.zeros((2, 4)), masks), placement(12, 10, whole_picture((12, 10), mode))
    )
    assert found.masks is not None
    assert found.masks.tobytes() == masks.tobytes()


def test_masks_of_another_size_are_named() -> None:
    """Rule: masks that were not pasted into the input are refused."""
    where = placement(5, 4, whole_picture((8, 8)))
    with pytest.raises(InputError, match="size of the detector's input"):
        restore(_found(np.zeros((1, 4)), np.zeros((1, 28, 28))), where)


def test_the_whole_detector() -> None:
    """Rule: a detector of one size answers in the pixels of any picture."""
    seen: list[np.ndarray] = []

    def run(tensor: np.ndarray) -> Mapping[str, Any]:
        seen.append(tensor)
        masks = np.ones((1, 1, 16, 16))
        return {"boxes": [[8, 8, 16, 16]], "labels": [1], "scores": [0.9], "masks": masks}

    found = FixedSize(run, whole_picture((16, 16)))(np.full((32, 64, 3), 51, np.uint8))
    assert seen[0].shape == (3, 16, 16)
    assert np.allclose(seen[0], 0.2)
    assert found.boxes.tolist() == [[32, 16, 64, 32]]
    assert found.masks is not None
    assert found.masks.shape == (1, 32, 64)


def test_weak_detections_are_dropped_first() -> None:
    """Rule: below the score limit nothing is restored."""

    def run(tensor: np.ndarray) -> Mapping[str, Any]:
        return {"boxes": np.zeros((3, 4)), "labels": [1, 2, 3], "scores": [0.2, 0.5, 0.9]}

    found = FixedSize(run, whole_picture((16, 16)), 0.5)(np.zeros((32, 64, 3), np.uint8))
    assert found.labels.tolist() == [2, 3]
    assert found.masks is None


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_no_detections_come_back_as_none(mode: Mode) -> None:
    """Rule: an image with nothing found gives empty arrays of the original size."""

    def nothing(tensor: np.ndarray) -> Mapping[str, Any]:
        none = np.zeros(0)
        masks = np.zeros((0, 1, 16, 16))
        return {"boxes": np.zeros((0, 4)), "labels": none, "scores": none, "masks": masks}

    empty = FixedSize(nothing, whole_picture((16, 16), mode))(np.zeros((32, 64, 3), np.uint8))
    assert len(empty) == 0
    assert empty.masks is not None
    assert empty.masks.shape == (0, 32, 64)
