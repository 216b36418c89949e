"""Three objects on a plain ground: made of parts, any of which can be left out.

A part is a signed distance (negative inside) in object coordinates, -1…1, and a colour. Position
and angle vary a little, as on a conveyor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adcompile.anomaly.synth.noise import Field, Random, coordinates, noise, smoothstep

Colour = tuple[float, float, float]
Distance = Callable[[Field, Field], Field]


@dataclass(frozen=True)
class Part:
    """One drawn part; ``optional`` ones may be missing in a defect, a ``void`` is an opening."""

    distance: Distance
    colour: Colour
    optional: bool = False
    void: bool = False


@dataclass(frozen=True)
class Design:
    """An object: ground colour and parts in drawing order."""

    ground: Colour
    parts: tuple[Part, ...]
    shine: float = 0.12


def _disk(y: float, x: float, radius: float) -> Distance:
    return lambda v, u: np.hypot(v - y, u - x) - radius


def _box(
    y: float, x: float, half_height: float, half_width: float, round_: float = 0.0
) -> Distance:
    def distance(v: Field, u: Field) -> Field:
        dv = np.abs(v - y) - half_height + round_
        du = np.abs(u - x) - half_width + round_
        outside = np.hypot(np.maximum(dv, 0), np.maximum(du, 0))
        return np.asarray(outside + np.minimum(np.maximum(dv, du), 0) - round_)

    return distance


def _half(base: Distance, side: float) -> Distance:
    """The part of *base* with x on the given side (+1 right, -1 left)."""
    return lambda v, u: np.maximum(base(v, u), -side * u)


def _around(count: int, radius: float, make: Callable[[float, float], Distance]) -> list[Distance]:
    angles = 2.0 * np.pi * np.arange(count) / count
    return [make(radius * float(np.sin(a)), radius * float(np.cos(a))) for a in angles]


_WASHER = Design(
    (0.16, 0.17, 0.2),
    (
        Part(_disk(0, 0, 0.78), (0.66, 0.67, 0.7)),
        Part(_disk(0, 0, 0.7), (0.6, 0.61, 0.64)),
        *(
            Part(hole, (0.2, 0.21, 0.23), optional=True, void=True)
            for hole in _around(6, 0.54, lambda y, x: _disk(y, x, 0.1))
        ),
        Part(_disk(0, 0, 0.3), (0.16, 0.17, 0.2), void=True),
    ),
)

_CAPSULE = Design(
    (0.82, 0.82, 0.8),
    (
        Part(_half(_box(0, 0, 0.34, 0.84, 0.34), -1.0), (0.75, 0.2, 0.16)),
        Part(_half(_box(0, 0, 0.34, 0.84, 0.34), 1.0), (0.92, 0.82, 0.5)),
        Part(_box(0, 0, 0.34, 0.03), (0.5, 0.3, 0.2)),
        *(
            Part(_box(0.02, 0.2 + 0.16 * i, 0.14, 0.035), (0.3, 0.24, 0.2), optional=True)
            for i in range(3)
        ),
    ),
    shine=0.2,
)

_CONNECTOR = Design(
    (0.3, 0.36, 0.3),
    (
        *(
            Part(_box(-0.52, -0.56 + 0.16 * i, 0.3, 0.035), (0.85, 0.75, 0.4), optional=True)
            for i in range(8)
        ),
        *(
            Part(_box(0.52, -0.56 + 0.16 * i, 0.3, 0.035), (0.85, 0.75, 0.4), optional=True)
            for i in range(8)
        ),
        Part(_box(0, 0, 0.36, 0.74, 0.05), (0.13, 0.13, 0.14)),
        Part(_disk(0.2, -0.6, 0.06), (0.5, 0.5, 0.5), optional=True),
        Part(_box(-0.08, 0.1, 0.04, 0.36), (0.58, 0.58, 0.56), optional=True),
        Part(_box(0.1, 0.02, 0.04, 0.28), (0.58, 0.58, 0.56), optional=True),
    ),
)

OBJECTS: dict[str, Design] = {"washer": _WASHER, "capsule": _CAPSULE, "connector": _CONNECTOR}
"""Category name to design."""


@dataclass(frozen=True)
class Drawn:
    """A rendered object: image [S, S, 3], and where it is (True inside)."""

    image: Field
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def draw(design: Design, random: Random, size: int, *, missing: int | None = None) -> Drawn:
    """Draw a design; ``missing`` leaves out that optional part (index modulo their number).

    The random stream is used the same way with and without a missing part, so the two pictures
    of one seed differ in that part only.
    """
    y, x = coordinates(size)
    turn = 0.05 * random.standard_normal()
    dy, dx = 0.02 * random.standard_normal(2)
    v0, u0 = 2.15 * (y - 0.5) - dy, 2.15 * (x - 0.5) - dx
    u = np.cos(turn) * u0 + np.sin(turn) * v0
    v = np.cos(turn) * v0 - np.sin(turn) * u0
    grain = noise(random, size, size // 2)
    light = noise(random, size, 3)
    image = np.asarray(design.ground) * (1.0 + 0.05 * light[..., None])
    inside = np.zeros((size, size), dtype=np.bool_)
    optional = [index for index, part in enumerate(design.parts) if part.optional]
    skipped = None if missing is None else optional[missing % len(optional)]
    soft = 1.5 / size
    for index, part in enumerate(design.parts):
        distance = part.distance(v, u)
        inside = inside & ~(distance < 0) if part.void else inside | (distance < 0)
        if index == skipped:
            continue
        cover = (1.0 - smoothstep(-soft, soft, distance))[..., None]
        slope = np.clip(-distance / 0.35, 0.0, 1.0)
        shade = 1.0 + design.shine * (slope - 0.4) - 0.06 * (u + v)
        image = image * (1 - cover) + cover * np.asarray(part.colour) * shade[..., None]
    return Drawn(image + 0.02 * grain[..., None], inside)
