"""Six kinds of damage, each with the mask of what it changed, at three levels of difficulty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.synth.noise import (
    Field,
    Random,
    coordinates,
    noise,
    sample,
    smoothstep,
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Level:
    """How visible defects are: colour difference (0…1) and size (share of the image side)."""

    contrast: float
    size: float


LEVELS: dict[str, Level] = {
    "easy": Level(0.5, 0.11),
    "medium": Level(0.34, 0.075),
    "hard": Level(0.18, 0.05),
}
"""Difficulty name to level."""


@dataclass(frozen=True)
class Place:
    """Where and how strongly to damage: centre (pixels), radius (pixels), contrast, object area."""

    y: float
    x: float
    radius: float
    contrast: float
    inside: Mask


def choose_place(random: Random, size: int, level: Level, inside: Mask) -> Place:
    """A centre well inside the object (or the image), and a radius that varies by a third."""
    margin = int(0.1 * size)
    allowed = inside.copy()
    allowed[:margin] = allowed[-margin:] = False
    allowed[:, :margin] = allowed[:, -margin:] = False
    rows, columns = np.nonzero(allowed)
    pick = int(random.integers(rows.size))
    radius = size * level.size * (1.0 + 0.33 * (2.0 * random.random() - 1.0))
    return Place(float(rows[pick]), float(columns[pick]), radius, level.contrast, inside)


def _polar(image: Field, place: Place) -> Field:
    y, x = coordinates(image.shape[0])
    size = image.shape[0]
    return np.asarray(np.hypot(y * size - place.y, x * size - place.x), dtype=np.float64)


def _tone(random: Random, image: Field, area: Mask, contrast: float) -> Field:
    """A colour *contrast* away from the area's mean, towards the side with more room."""
    mean = image[area].mean(axis=0) if area.any() else image.mean(axis=(0, 1))
    sign = -1.0 if mean.mean() > 0.45 else 1.0
    if abs(mean.mean() - 0.45) < 0.1 and random.random() < 0.5:
        sign = -sign
    return np.asarray(np.clip(mean + sign * contrast, 0.0, 1.0))


def _blend(image: Field, cover: Field, tone: Field) -> tuple[Field, Mask]:
    return image * (1 - cover[..., None]) + cover[..., None] * tone, cover > 0.3


def scratch(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """A thin curved line, several radii long."""
    size = image.shape[0]
    angle = random.random() * np.pi
    t = np.linspace(-1.0, 1.0, 48)
    bow = 0.5 * random.standard_normal()
    along, across = 2.2 * place.radius * t, 0.6 * place.radius * bow * (1 - t * t)
    py = place.y + np.sin(angle) * along + np.cos(angle) * across
    px = place.x + np.cos(angle) * along - np.sin(angle) * across
    y, x = coordinates(size)
    gap = np.full((size, size), np.inf)
    for qy, qx in zip(py, px, strict=True):
        gap = np.minimum(gap, np.hypot(y * size - qy, x * size - qx))
    width = max(1.6, 0.13 * place.radius)
    cover = (1 - smoothstep(0.6 * width, 1.4 * width, gap)) * place.inside
    return _blend(image, cover, _tone(random, image, cover > 0.3, 1.3 * place.contrast))


def spot(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """A soft round stain."""
    edge = 1 + 0.25 * noise(random, image.shape[0], 8)
    cover = (1 - smoothstep(0.6, 1.0, _polar(image, place) / place.radius * edge)) * place.inside
    return _blend(image, cover, _tone(random, image, cover > 0.3, place.contrast))


def hole(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """A dark opening with a bright torn rim."""
    size = image.shape[0]
    distance = _polar(image, place) / (0.8 * place.radius) * (1 + 0.2 * noise(random, size, 10))
    rim = smoothstep(0.85, 1.0, distance) * (1 - smoothstep(1.05, 1.25, distance)) * place.inside
    core = (1 - smoothstep(0.85, 1.0, distance)) * place.inside
    torn = image + rim[..., None] * 0.7 * place.contrast
    dark = image * (1.0 - min(1.0, 2.0 * place.contrast))
    return torn * (1 - core[..., None]) + core[..., None] * dark, (core > 0.3) | (rim > 0.5)


def bend(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """The structure pushed sideways around a point, as a dent or a bent part does."""
    size = image.shape[0]
    y, x = coordinates(size)
    distance = _polar(image, place) / (1.4 * place.radius)
    angle = random.random() * 2 * np.pi
    push = 0.9 * place.radius * np.exp(-2.0 * distance**2) * (0.5 + place.contrast)
    bent = sample(
        image, y * size - 0.5 + np.sin(angle) * push, x * size - 0.5 + np.cos(angle) * push
    )
    along = (
        np.sin(angle) * (y * size - place.y) + np.cos(angle) * (x * size - place.x)
    ) / place.radius
    shade = 1.1 * place.contrast * along * np.exp(-2.0 * distance**2)
    return bent * (1 + shade[..., None]), (push > 0.3 * push.max()) & _near(place, image)


def missing(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """Structure gone: an area shows only its own mean colour."""
    edge = 1 + 0.3 * noise(random, image.shape[0], 6)
    distance = _polar(image, place) / (1.1 * place.radius) * edge
    cover = (1 - smoothstep(0.85, 1.0, distance)) * place.inside
    area = cover > 0.3
    plain = image[area].mean(axis=0) if area.any() else image.mean(axis=(0, 1))
    strength = min(1.0, 0.4 + 1.5 * place.contrast)
    return _blend(image, cover * strength, plain - 0.15 * place.contrast)[0], area


def contamination(image: Field, place: Place, random: Random) -> tuple[Field, Mask]:
    """Foreign particles of another hue, scattered."""
    size = image.shape[0]
    y, x = coordinates(size)
    cover = np.zeros((size, size))
    for _ in range(5):
        dy, dx = 0.8 * place.radius * random.standard_normal(2)
        grain = place.radius * (0.2 + 0.2 * random.random())
        distance = np.hypot(y * size - place.y - dy, x * size - place.x - dx) / grain
        cover = np.maximum(cover, 1 - smoothstep(0.7, 1.1, distance))
    cover = cover * _near(place, image)
    hue = np.asarray(((0.9, 0.8, 0.2), (0.2, 0.5, 0.9), (0.85, 0.25, 0.3))[random.integers(3)])
    strength = min(1.0, 0.35 + 1.4 * place.contrast)
    return _blend(image, cover * strength, hue)[0], cover > 0.3


def _near(place: Place, image: Field) -> Mask:
    """The object's area, widened to the whole image for textures."""
    return place.inside if not place.inside.all() else np.ones(image.shape[:2], dtype=np.bool_)


DEFECTS: dict[str, Callable[[Field, Place, Random], tuple[Field, Mask]]] = {
    "scratch": scratch,
    "spot": spot,
    "hole": hole,
    "bend": bend,
    "missing": missing,
    "contamination": contamination,
}
"""Defect name to function (image, place, random) -> (damaged image, mask)."""
