"""Random textures that belong to no category: what a feature network or a student may learn from.

A recipe is a band of wavelengths and directions, how regular it is, how it is coloured. Pictures of
one recipe differ in everything else: phase, light, contrast, noise, a piece pasted from another.
None of it comes from the categories of :mod:`adcompile.anomaly.synth.dataset`, so what is learned
here is not fitted to the images that a detector is later judged on. Same generator, same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Random = np.random.Generator


@dataclass(frozen=True)
class Recipe:
    """A texture: ``wavelength`` in pixels, direction in radians, bandwidths, two colours.

    ``sharpness`` bends waves into stripes and blobs; ``crossed`` adds the same at a right angle.
    """

    wavelength: float
    angle: float
    spread: float
    width: float
    sharpness: float
    crossed: bool
    colours: Floats


def recipe(random: Random) -> Recipe:
    """Draw a recipe."""
    dark = random.uniform(0.1, 0.5, 3)
    low, high = float(np.log(3.0)), float(np.log(24.0))
    return Recipe(
        wavelength=float(np.exp(random.uniform(low, high))),
        angle=float(random.uniform(0, np.pi)),
        spread=float(random.choice((0.05, 0.3, 3.0))),
        width=float(random.choice((0.05, 0.2, 0.6))),
        sharpness=float(random.choice((0.5, 2.0, 6.0))),
        crossed=bool(random.random() < 0.4),
        colours=np.stack([dark, dark + random.uniform(0.15, 0.5) * random.uniform(0.7, 1.0, 3)]),
    )


def paint(kind: Recipe, size: int, random: Random) -> Floats:
    """A picture [size, size, 3] in 0…1: filtered noise, bent, coloured."""
    angle = kind.angle + 0.06 * random.standard_normal()
    wavelength = kind.wavelength * float(np.exp(0.06 * random.standard_normal()))
    waves: Floats = _waves(kind, angle, wavelength, size, random)
    if kind.crossed:
        waves = np.maximum(waves, _waves(kind, angle + np.pi / 2, wavelength, size, random))
    value = 0.5 + 0.5 * np.tanh(kind.sharpness * waves)
    mixed: Floats = kind.colours[0] + value[..., None] * (kind.colours[1] - kind.colours[0])
    return mixed


def _waves(kind: Recipe, angle: float, wavelength: float, size: int, random: Random) -> Floats:
    y, x = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(x, y) * wavelength + 1e-9
    turn = np.angle(np.exp(2j * (np.arctan2(y, x) - angle))) / 2
    band = np.exp(-0.5 * (np.log(radius) / kind.width) ** 2 - 0.5 * (turn / kind.spread) ** 2)
    noise = np.fft.rfft2(random.standard_normal((size, size)))
    waves = np.fft.irfft2(noise * band, s=(size, size))
    return np.asarray(waves / (waves.std() + 1e-9), np.float64)


def picture(kinds: Sequence[Recipe], label: int, size: int, random: Random) -> Floats:
    """A picture of a class as a camera might see it."""
    image: Floats = paint(kinds[label], size, random)
    if random.random() < 0.5:  # a foreign piece: features must stay local
        other = paint(kinds[int(random.integers(len(kinds)))], size, random)
        side = int(random.integers(size // 8, size // 3))
        top, left = random.integers(0, size - side, 2)
        image[top : top + side, left : left + side] = other[:side, :side]
    slope = random.uniform(-0.15, 0.15, 2)
    ramp = np.linspace(-1, 1, size)
    light = random.uniform(0.75, 1.25) + slope[0] * ramp[:, None] + slope[1] * ramp[None]
    image *= light[..., None]
    image += random.uniform(-0.05, 0.05, 3)
    strength = random.uniform(0.0, 0.04)
    image += strength * random.standard_normal((size, size, 3))
    return image
