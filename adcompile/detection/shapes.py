"""A detection set in COCO format that needs no download: drawn shapes, exact masks.

Six classes in varied size, rotation, aspect, texture and light, on textured backgrounds with
unlabelled clutter, partly hidden by one another. Everything follows from ``seed`` and the image's
index, so the same call writes the same bytes anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.detection.paint import clutter, finish, ground, texture
from adcompile.errors import UsageError
from adcompile.parallel import in_order

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Record = dict[str, object]

_FINE = 2  # samples per pixel and axis
_MIN_VISIBLE = 0.4  # share of a shape that later shapes must leave uncovered
_MIN_AREA = 48  # visible pixels


def _disc(u: Floats, v: Floats) -> Mask:
    return u * u + v * v <= 1


def _square(u: Floats, v: Floats) -> Mask:
    return (abs(u) <= 0.82) & (abs(v) <= 0.82)


def _triangle(u: Floats, v: Floats) -> Mask:
    return (v <= 0.6) & (v >= 1.6 * abs(u) - 0.95)


def _star(u: Floats, v: Floats) -> Mask:
    wedge = np.pi / 5
    angle = abs((np.arctan2(v, u) + np.pi) % (2 * wedge) - wedge)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    # One straight edge from the tip (1, 0) to the notch between two tips.
    notch_x, notch_y = 0.45 * np.cos(wedge), 0.45 * np.sin(wedge)
    return np.asarray((x - 1) * notch_y - y * (notch_x - 1) <= 0, dtype=np.bool_)


def _cross(u: Floats, v: Floats) -> Mask:
    a, b = abs(u), abs(v)
    return (np.maximum(a, b) <= 0.92) & (np.minimum(a, b) <= 0.3)


def _ring(u: Floats, v: Floats) -> Mask:
    radius = np.hypot(u, v)
    return (radius <= 1) & (radius >= 0.55)


_FORMS: dict[str, Callable[[Floats, Floats], Mask]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
CLASSES: tuple[str, ...] = tuple(_FORMS)
"""Class names; category id of a name is its position plus one."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: ``image`` uint8 [H,W,3]; per object its category id and visible mask [H,W]."""

    image: npt.NDArray[np.uint8]
    categories: tuple[int, ...]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How scenes vary. Sizes are pixels; ``radius`` is half of a shape's extent."""

    sides: tuple[int, int] = (144, 224)
    objects: tuple[int, int] = (1, 6)
    radius: tuple[float, float] = (9.0, 42.0)
    aspect: float = 1.5


def draw_scene(seed: int, index: int, recipe: Recipe | None = None) -> Scene:
    """Scene number ``index`` of the set ``seed``."""
    recipe = recipe or Recipe()
    rng = np.random.default_rng([seed, index])
    low, high = recipe.sides
    height, width = (int(x) for x in rng.integers(low, high, size=2, endpoint=True))
    canvas = ground(rng, height, width)
    clutter(rng, canvas)
    categories: list[int] = []
    masks: list[Mask] = []
    for _ in range(int(rng.integers(*recipe.objects, endpoint=True))):
        kind = int(rng.integers(len(CLASSES)))
        cover = _place(rng, kind, (height, width), recipe, masks)
        if cover is None:
            continue
        shape = cover >= 0.5
        masks = [m & ~shape for m in masks] + [shape]
        categories.append(kind + 1)
        paint = texture(rng, height, width, away_from=canvas[shape].mean(axis=0))
        canvas += cover[..., None] * (paint - canvas)
    return Scene(finish(rng, canvas), tuple(categories), tuple(masks))


def _place(
    rng: np.random.Generator,
    kind: int,
    size: tuple[int, int],
    recipe: Recipe,
    below: list[Mask],
) -> Floats | None:
    """Coverage 0..1 [H,W] of a new shape that hides none of ``below`` too much; None: no room."""
    low, high = (float(np.log(radius)) for radius in recipe.radius)
    for _ in range(8):
        # Log-uniform: as many small as large ones.
        radius = float(np.exp(rng.uniform(low, high)))
        centre = rng.uniform(0.1, 0.9, size=2) * size
        stretch = float(recipe.aspect ** rng.uniform(-0.5, 0.5))
        cover = _coverage(kind, size, centre, (radius * stretch, radius / stretch), rng)
        shape = cover >= 0.5
        if shape.sum() < _MIN_AREA:
            continue
        if all(_still_seen(mask, shape) for mask in below):
            return cover
    return None


def _still_seen(mask: Mask, above: Mask) -> bool:
    left = int((mask & ~above).sum())
    return left >= _MIN_AREA and left >= _MIN_VISIBLE * int(mask.sum())


def _coverage(
    kind: int,
    size: tuple[int, int],
    centre: Floats,
    radii: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    height, width = size
    turn = rng.uniform(0, 2 * np.pi)
    y = (np.arange(height * _FINE) + 0.5) / _FINE - centre[0]
    x = (np.arange(width * _FINE) + 0.5) / _FINE - centre[1]
    u = (np.cos(turn) * x[None] + np.sin(turn) * y[:, None]) / radii[0]
    v = (np.cos(turn) * y[:, None] - np.sin(turn) * x[None]) / radii[1]
    inside = _FORMS[CLASSES[kind]](u, v)
    return np.asarray(inside.reshape(height, _FINE, width, _FINE).mean(axis=(1, 3)))


def write_set(
    folder: Path,
    split: str,
    count: int,
    seed: int,
    recipe: Recipe | None = None,
    progress: Callable[[int, int], None] | None = None,
    jobs: int = 1,
) -> Path:
    """Write ``count`` PNG files and their annotations; returns the COCO JSON file.

    Files: ``folder/split/000001.png`` … and ``folder/annotations/split.json``. The number of
    processes, ``jobs``, changes nothing in them. Raises UsageError for a count below one.
    """
    if count < 1:
        raise UsageError("a detection set needs at least one image", where=f"count={count}")
    pictures = folder / split
    pictures.mkdir(parents=True, exist_ok=True)
    images: list[Record] = []
    annotations: list[Record] = []
    draw = partial(_write_scene, pictures, seed, recipe)
    for image, found in in_order(draw, range(count), jobs):
        images.append(image)
        annotations += [{"id": len(annotations) + i, **a} for i, a in enumerate(found, 1)]
        if progress is not None:
            progress(len(images), count)
    document = {
        "info": {"description": f"drawn shapes, seed {seed}, split {split}"},
        "licenses": [],
        "categories": [
            {"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, 1)
        ],
        "images": images,
        "annotations": annotations,
    }
    target = folder / "annotations" / f"{split}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    return target


def _write_scene(
    folder: Path, seed: int, recipe: Recipe | None, index: int
) -> tuple[Record, list[Record]]:
    """Write one picture; what COCO says of it, and of its objects (their ids aside)."""
    scene = draw_scene(seed, index, recipe)
    name = f"{index + 1:06d}.png"
    Image.fromarray(scene.image).save(folder / name)
    height, width = scene.image.shape[:2]
    image: Record = {"id": index + 1, "file_name": name, "width": width, "height": height}
    objects = zip(scene.categories, scene.masks, strict=True)
    return image, [_annotation(index + 1, category, mask) for category, mask in objects]


def _annotation(image: int, category: int, mask: Mask) -> Record:
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [int(x) for x in box],
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
    }


def unrolled(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """The mask [H,W] that :func:`run_lengths` wrote. Raises UsageError if the counts differ."""
    if sum(counts) != size[0] * size[1]:
        raise UsageError("run lengths do not fill the picture", where=f"size {list(size)}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size, order="F")


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    # The list starts with a count of zeros, so a mask that starts with a one needs a 0 first.
    return [0] * int(flat[0]) + [int(n) for n in runs]
