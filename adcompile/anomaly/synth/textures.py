"""Nine textures. Each function returns an RGB image [S, S, 3] in 0…1; phase and details vary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adcompile.anomaly.synth.noise import (
    Field,
    Random,
    cells,
    colour,
    coordinates,
    fractal,
    noise,
    smoothstep,
)

TURN = 2.0 * np.pi


def _phase(random: Random) -> tuple[float, float]:
    first, second = random.random(2)
    return float(first), float(second)


def carpet(random: Random, size: int) -> Field:
    """Loop pile: short bright loops in a fine grid over a soft, mottled ground."""
    y, x = coordinates(size)
    py, px = _phase(random)
    wobble = 0.012 * noise(random, size, 12)
    loops = np.cos(TURN * (26 * (y + wobble) + py)) * np.cos(TURN * (26 * (x - wobble) + px))
    fibres = noise(random, size, size // 3)
    value = 0.5 + 0.24 * loops + 0.12 * fibres + 0.05 * noise(random, size, 6)
    return colour(value, (0.22, 0.22, 0.25), (0.62, 0.6, 0.58))


def grid(random: Random, size: int) -> Field:
    """Woven wire mesh: bright diagonal wires with dark openings."""
    y, x = coordinates(size)
    py, px = _phase(random)
    angle = float(np.pi / 4 + 0.03 * random.standard_normal())
    u: Field = 11 * (np.cos(angle) * x + np.sin(angle) * y) + py
    v: Field = 11 * (np.cos(angle) * y - np.sin(angle) * x) + px
    wire_u = 1 - smoothstep(0.10, 0.16, np.abs(u - np.round(u)))
    wire_v = 1 - smoothstep(0.10, 0.16, np.abs(v - np.round(v)))
    above = np.cos(np.pi * np.round(u)) * np.cos(np.pi * np.round(v)) > 0
    shade_u = wire_u * (0.72 + 0.25 * np.where(above, 1, -1) * wire_v)
    value = np.maximum(shade_u, wire_v * 0.8) + 0.03 * noise(random, size, size // 2)
    return colour(value, (0.1, 0.1, 0.11), (0.82, 0.83, 0.8))


def leather(random: Random, size: int) -> Field:
    """Grained hide: irregular cells with dark creases."""
    near, second = cells(random, size, 30, 1.0)
    crease = smoothstep(0.02, 0.25, second - near)
    value = 0.35 + 0.45 * crease + 0.08 * fractal(random, size, 5) - 0.1 * near
    return colour(value, (0.2, 0.09, 0.05), (0.6, 0.34, 0.2))


def tile(random: Random, size: int) -> Field:
    """Granite: dark and white grains of several sizes in a grey mass."""
    mass = 0.55 + 0.08 * fractal(random, size, 8)
    coarse = noise(random, size, 40)
    fine = noise(random, size, 75)
    value = mass - 0.35 * smoothstep(0.35, 0.5, coarse) + 0.25 * smoothstep(0.35, 0.5, fine)
    return colour(value, (0.12, 0.12, 0.13), (0.88, 0.87, 0.84))


def wood(random: Random, size: int) -> Field:
    """Planed board: long growth rings with fine pores along the grain."""
    y, x = coordinates(size)
    bend = 0.10 * noise(random, size, 2, 3) + 0.012 * noise(random, size, 3, 16)
    rings = np.sin(TURN * (9 * (x + bend) + _phase(random)[0]) + 0.8 * np.sin(3 * y))
    pores = noise(random, size, 9, size // 2)
    value = 0.55 + 0.2 * rings + 0.12 * pores
    return colour(value, (0.36, 0.2, 0.1), (0.78, 0.56, 0.34))


def brushed(random: Random, size: int) -> Field:
    """Brushed metal: fine horizontal streaks under a broad reflection."""
    y, _ = coordinates(size)
    streaks = noise(random, size, size // 2, 5) + 0.6 * noise(random, size, size // 2, 14)
    sheen = np.cos(TURN * 0.5 * (y + 0.2 * random.standard_normal()))
    value = 0.58 + 0.1 * streaks + 0.1 * sheen
    return colour(value, (0.3, 0.31, 0.33), (0.8, 0.81, 0.83))


def twill(random: Random, size: int) -> Field:
    """Denim: diagonal ribs crossed by thin threads."""
    y, x = coordinates(size)
    py, px = _phase(random)
    wobble = 0.006 * noise(random, size, 14)
    ribs = np.sin(TURN * (22 * (x + y + wobble) + py))
    threads = np.sin(TURN * (44 * (x - wobble) + px))
    value = 0.48 + 0.24 * ribs + 0.1 * threads + 0.08 * noise(random, size, size // 3)
    return colour(value, (0.1, 0.14, 0.3), (0.5, 0.58, 0.74))


def concrete(random: Random, size: int) -> Field:
    """Cast concrete: cloudy grey with fine sand and small pores."""
    clouds = fractal(random, size, 4, 5)
    sand = noise(random, size, size // 2)
    near, _ = cells(random, size, 14, 1.0)
    pores = smoothstep(0.06, 0.1, near)
    value = (0.58 + 0.07 * clouds + 0.06 * sand) * (0.75 + 0.25 * pores)
    return colour(value, (0.2, 0.2, 0.2), (0.78, 0.77, 0.74))


def honeycomb(random: Random, size: int) -> Field:
    """Moulded honeycomb: three crossing waves make hexagonal dimples."""
    y, x = coordinates(size)
    py, px = _phase(random)
    total = np.zeros((size, size))
    for index in range(3):
        angle = np.pi * index / 3 + 0.02
        total += np.cos(TURN * 13 * (np.cos(angle) * (x + px) + np.sin(angle) * (y + py)))
    value = 0.5 + 0.3 * np.tanh(1.2 * total) + 0.03 * noise(random, size, size // 2)
    return colour(value, (0.14, 0.2, 0.16), (0.62, 0.74, 0.56))


TEXTURES: dict[str, Callable[[Random, int], Field]] = {
    "carpet": carpet,
    "grid": grid,
    "leather": leather,
    "tile": tile,
    "wood": wood,
    "brushed": brushed,
    "twill": twill,
    "concrete": concrete,
    "honeycomb": honeycomb,
}
"""Category name to generator."""
