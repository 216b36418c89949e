"""Images of one category, and whole data sets in the MVTec folder layout."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from adcompile.anomaly.synth.defects import DEFECTS, LEVELS, Mask, choose_place
from adcompile.anomaly.synth.noise import Field, Random, noise
from adcompile.anomaly.synth.objects import OBJECTS, draw
from adcompile.anomaly.synth.textures import TEXTURES
from adcompile.errors import UsageError
from adcompile.parallel import in_order

Pixels = npt.NDArray[np.uint8]

CATEGORIES: tuple[str, ...] = (*TEXTURES, *OBJECTS)
"""Everything the generator knows: nine textures, three objects."""


@dataclass(frozen=True, slots=True)
class SynthOptions:
    """What to make. ``test_bad`` counts images per defect kind; ``size`` is the side in pixels."""

    categories: tuple[str, ...] = CATEGORIES
    defects: tuple[str, ...] = tuple(DEFECTS)
    level: str = "medium"
    size: int = 256
    train: int = 40
    test_good: int = 12
    test_bad: int = 4
    seed: int = 0

    def check(self) -> None:
        """Refuse names and numbers that nothing can be made of."""
        _known("category", self.categories, CATEGORIES)
        _known("defect", self.defects, tuple(DEFECTS))
        _known("level", (self.level,), tuple(LEVELS))
        if not 32 <= self.size <= 4096:
            raise UsageError("image size must be 32 to 4096", why=f"got {self.size}")
        if min(self.train, self.test_good, self.test_bad) < 0:
            raise UsageError("image counts cannot be negative")


@dataclass(frozen=True, slots=True)
class SynthImage:
    """One image [S, S, 3], its mask [S, S] and defect name ("good" without one)."""

    pixels: Pixels
    mask: Mask
    kind: str = field(default="good")


def _known(what: str, names: Sequence[str], table: Sequence[str]) -> None:
    for name in names:
        if name not in table:
            raise UsageError(f"no {what} is called {name!r}", fix=f"one of {', '.join(table)}")


def _random(*keys: int | str) -> Random:
    """A generator that depends on the keys only, not on what was drawn before."""
    return np.random.default_rng([zlib.crc32(str(key).encode()) for key in keys])


def make_image(
    category: str,
    index: int,
    *,
    kind: str = "good",
    level: str = "medium",
    size: int = 256,
    seed: int = 0,
    split: str = "test",
) -> SynthImage:
    """One image, the same for the same arguments on every machine."""
    random = _random(seed, category, split, kind, index)
    state = _random(seed, category, split, kind, index, "scene")
    inside: Mask = np.ones((size, size), dtype=np.bool_)
    if category in TEXTURES:
        image = TEXTURES[category](state, size)
    else:
        drawn = draw(OBJECTS[category], state, size)
        image, inside = drawn.image, drawn.inside
    mask = np.zeros((size, size), dtype=np.bool_)
    if kind == "missing" and category in OBJECTS:
        image, mask = _without_part(
            category, index, size, (seed, category, split, kind, index), image
        )
    elif kind != "good":
        place = choose_place(random, size, LEVELS[level], inside)
        image, mask = DEFECTS[kind](image, place, random)
    return SynthImage(_camera(image, random), mask, kind)


def _without_part(
    category: str, index: int, size: int, keys: tuple[int | str, ...], whole: Field
) -> tuple[Field, Mask]:
    """The same scene drawn without one part; the mask is where it shows."""
    part = int(_random(*keys, "part").integers(64)) + index
    image = draw(OBJECTS[category], _random(*keys, "scene"), size, missing=part).image
    return image, np.abs(image - whole).max(axis=2) > 0.04


def _camera(image: Field, random: Random) -> Pixels:
    """Uneven light, exposure and sensor noise, then 8 bits."""
    size = image.shape[0]
    light = 1.0 + 0.04 * noise(random, size, 2) + 0.03 * random.standard_normal()
    grain = 0.012 * random.standard_normal((size, size, 3))
    levels = np.clip(image * light[..., None] + grain, 0.0, 1.0)
    return np.asarray(np.floor(levels * 255.0 + 0.5), dtype=np.uint8)


def plan(options: SynthOptions, category: str) -> Iterator[tuple[str, str, int]]:
    """(split, kind, index) of every image of one category, in writing order."""
    for index in range(options.train):
        yield "train", "good", index
    for index in range(options.test_good):
        yield "test", "good", index
    for kind in options.defects:
        for index in range(options.test_bad):
            yield "test", kind, index


def write_dataset(
    folder: Path,
    options: SynthOptions,
    progress: Callable[[int, int], None] | None = None,
    jobs: int = 1,
) -> int:
    """Write ``CATEGORY/train/good``, ``test/KIND``, ``ground_truth/KIND`` under *folder*.

    Returns the number of images. *progress* is called with (done, total). The number of
    processes, *jobs*, changes nothing in the files.
    """
    options.check()
    work = [(c, *entry) for c in options.categories for entry in plan(options, c)]
    draw = partial(_write_image, folder, options)
    for done, _ in enumerate(in_order(draw, work, jobs), start=1):
        if progress is not None:
            progress(done, len(work))
    return len(work)


def _write_image(folder: Path, options: SynthOptions, entry: tuple[str, str, str, int]) -> None:
    """Draw one image of the plan and write it, with its mask where it has one."""
    category, split, kind, index = entry
    made = make_image(
        category,
        index,
        kind=kind,
        level=options.level,
        size=options.size,
        seed=options.seed,
        split=split,
    )
    place = folder / category / split / kind
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(made.pixels).save(place / f"{index:03d}.png", compress_level=1)
    if kind != "good":
        truth = folder / category / "ground_truth" / kind
        truth.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.mask.astype(np.uint8) * 255).save(truth / f"{index:03d}_mask.png")
