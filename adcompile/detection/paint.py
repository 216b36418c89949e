"""Colours and textures of the drawn detection set: float RGB [H,W,3] in 0..1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]
_Field = Callable[[np.random.Generator, int, int], Floats]


def _grid(height: int, width: int, turn: float) -> Floats:
    """Position of each pixel along the direction ``turn``, in pixels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.asarray(np.cos(turn) * x + np.sin(turn) * y, dtype=np.float64)


def _flat(rng: np.random.Generator, height: int, width: int) -> Floats:
    return np.full((height, width), rng.uniform())


def _ramp(rng: np.random.Generator, height: int, width: int) -> Floats:
    along = _grid(height, width, rng.uniform(0, 2 * np.pi))
    return np.asarray((along - along.min()) / max(float(np.ptp(along)), 1.0))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Floats:
    along = _grid(height, width, rng.uniform(0, np.pi))
    return 0.5 + 0.5 * np.sin(along * (2 * np.pi / rng.uniform(5, 24)) + rng.uniform(0, 6))


def _checks(rng: np.random.Generator, height: int, width: int) -> Floats:
    turn, period = rng.uniform(0, np.pi), rng.uniform(6, 20)
    waves = [np.sin(_grid(height, width, turn + k) * (np.pi / period)) for k in (0, np.pi / 2)]
    return np.asarray(waves[0] * waves[1] > 0, dtype=np.float64)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Smooth noise at two scales."""
    total = np.zeros((height, width))
    for cells, weight in ((4, 0.7), (14, 0.3)):
        coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(smooth, dtype=np.float64)
    return np.clip(total, 0, 1)


def _speckle(rng: np.random.Generator, height: int, width: int) -> Floats:
    return rng.random((height, width))


_FIELDS: tuple[_Field, ...] = (_flat, _ramp, _stripes, _checks, _clouds, _speckle)


def ground(rng: np.random.Generator, height: int, width: int) -> Floats:
    """A background of low contrast: two near colours mixed by a texture."""
    first = rng.uniform(0.1, 0.9, size=3)
    second = np.clip(first + rng.uniform(-0.22, 0.22, size=3), 0, 1)
    return _mix(_FIELDS[int(rng.integers(len(_FIELDS)))](rng, height, width), first, second)


def texture(rng: np.random.Generator, height: int, width: int, away_from: Floats) -> Floats:
    """A surface whose first colour differs visibly from the colour ``away_from`` [3]."""
    first = rng.uniform(size=3)
    while np.abs(first - away_from).max() < 0.3:
        first = rng.uniform(size=3)
    second = np.clip(first + rng.uniform(-0.35, 0.35, size=3), 0, 1)
    return _mix(_FIELDS[int(rng.integers(len(_FIELDS)))](rng, height, width), first, second)


def _mix(field: Floats, first: Floats, second: Floats) -> Floats:
    return first + field[..., None] * (second - first)


def clutter(rng: np.random.Generator, canvas: Floats) -> None:
    """Draw unlabelled lines and blots into ``canvas``: what a detector must leave alone."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 5))):
        along = _grid(height, width, rng.uniform(0, np.pi))
        where = rng.uniform(float(along.min()), float(along.max()))
        canvas[abs(along - where) < rng.uniform(0.5, 1.6)] = rng.uniform(size=3)
    if rng.random() < 0.4:
        cloud = _clouds(rng, height, width)
        blot = cloud > np.quantile(cloud, rng.uniform(0.85, 0.97))
        canvas[blot] += 0.5 * (rng.uniform(size=3) - canvas[blot])


def finish(rng: np.random.Generator, canvas: Floats) -> npt.NDArray[np.uint8]:
    """Light, sensor noise, now and then no colour; to 8 bit."""
    height, width = canvas.shape[:2]
    light = 1 + rng.uniform(-0.25, 0.25) * (2 * _ramp(rng, height, width) - 1)
    picture = canvas * light[..., None]
    if rng.random() < 0.1:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    picture = picture + rng.normal(0, rng.uniform(0.0, 0.03), size=picture.shape)
    return np.asarray(np.clip(np.rint(picture * 255), 0, 255), dtype=np.uint8)
