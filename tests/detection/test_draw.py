"""Drawing: masks tint, boxes have the class colour, nothing is drawn for nothing."""

from __future__ import annotations

import numpy as np

from adcompile.detection.draw import colour_of, draw
from adcompile.detection.found import Found


def _found(score: float = 0.9, masks: bool = True) -> Found:
    mask = np.zeros((1, 80, 120), np.float32)
    mask[0, 40:60, 30:70] = 1
    box = np.array([[30, 40, 70, 60]], np.float32)
    scores = np.array([score], np.float32)
    return Found(box, np.array([3]), scores, mask if masks else None)


def test_mask_and_box_are_drawn() -> None:
    """Rule: the mask is tinted half way to the class colour, the outline has that colour."""
    grey = np.full((80, 120, 3), 100, np.uint8)
    shown = draw(grey, _found(), opacity=0.5)
    colour = np.array(colour_of(3), float)
    assert np.abs(shown[50, 50] - (100 + colour) / 2).max() <= 0.5
    assert tuple(shown[60, 50]) == colour_of(3)
    assert (shown[70:, :] == 100).all()
    assert (grey == 100).all()


def test_names_are_written() -> None:
    """Rule: another class name gives another picture, above the box only."""
    grey = np.full((80, 120, 3), 100, np.uint8)
    one, two = (draw(grey, _found(), {3: word}) for word in ("dog", "cat"))
    assert (one[:40] != two[:40]).any()
    assert (one[43:] == two[43:]).all()


def test_weak_or_no_detections_leave_the_picture() -> None:
    """Rule: nothing above the score limit, nothing drawn; a copy comes back."""
    grey = np.full((80, 120, 3), 100, np.uint8)
    assert (draw(grey, _found(0.4)) == grey).all()
    assert (draw(grey, _found().above(1.0)) == grey).all()


def test_boxes_without_masks_and_odd_boxes() -> None:
    """Rule: detectors without masks, boxes at the edge and reversed boxes are drawn."""
    grey = np.full((80, 120, 3), 100, np.uint8)
    shown = draw(grey, _found(masks=False))
    assert (shown[50, 50] == 100).all()
    odd = Found(
        np.array([[10, 0, 5, -3], [100, 70, 300, 300]], np.float32),
        np.array([1, 2]),
        np.ones(2, np.float32),
    )
    assert draw(grey, odd).shape == grey.shape


def test_neighbouring_labels_differ() -> None:
    """Rule: the colours of classes 0..19 are pairwise different."""
    assert len({colour_of(label) for label in range(20)}) == 20
