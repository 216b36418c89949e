"""What a data set is: samples with label, kind and mask, in three splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adcompile.errors import InputError, UsageError
from adcompile.runtime.images import ImageArray


@dataclass(frozen=True, slots=True)
class Sample:
    """One image. ``label`` 0 is normal, 1 anomalous; ``kind`` is "good" or the defect.

    ``pixels`` and ``truth`` hold image and mask when they are arrays; ``path`` is then a name.
    """

    path: Path
    label: int
    kind: str = "good"
    mask: Path | None = None
    pixels: ImageArray | None = field(default=None, compare=False, repr=False)
    truth: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    def has_mask(self) -> bool:
        """True when a mask says which pixels are anomalous."""
        return self.mask is not None or self.truth is not None


@dataclass(frozen=True, slots=True)
class DataSet:
    """Images of one category. ``train`` holds normal images only.

    ``layout`` names the reader that found them; ``notes`` are things the user should know
    (masks missing, images left out).
    """

    category: str
    layout: str
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())

    def has_masks(self) -> bool:
        """True when every anomalous image of validation and test has a mask."""
        bad = [s for s in (*self.validation, *self.test) if s.label]
        return bool(bad) and all(s.has_mask() for s in bad)


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to divide what the folders do not divide.

    ``test_ratio`` of the normal images goes to the test side when a layout has no test folder;
    ``validation`` is ``half`` (of the test images, per label), ``same`` (the test images, as
    anomalib does) or ``train`` (a share of the normal training images, for good-only work).
    """

    test_ratio: float = 0.2
    validation: str = "half"
    seed: int = 0

    def check(self) -> None:
        """Refuse ratios and words outside their range."""
        if not 0.01 <= self.test_ratio <= 0.99:
            raise UsageError("the split ratio must lie in 0.01 … 0.99", why=f"{self.test_ratio}")
        if self.validation not in {"half", "same", "train"}:
            raise UsageError(
                f"no validation split is called {self.validation!r}", fix="half, same or train"
            )


def share(
    samples: Sequence[Sample], ratio: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(the rest, a share of *ratio*) per label, chosen by seed; both keep the given order.

    The share holds at least one sample of a label that has two or more.
    """
    chosen: set[int] = set()
    for label in (0, 1):
        indices = [i for i, s in enumerate(samples) if s.label == label]
        count = round(len(indices) * ratio)
        if len(indices) > 1:
            count = min(max(count, 1), len(indices) - 1)
        chosen.update(random.Random(seed * 2 + label).sample(indices, count))
    rest = tuple(s for i, s in enumerate(samples) if i not in chosen)
    return rest, tuple(s for i, s in enumerate(samples) if i in chosen)


def divide(
    category: str,
    layout: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    options: SplitOptions,
    notes: Sequence[str] = (),
) -> DataSet:
    """A data set from training and test images; takes the validation images as options say."""
    options.check()
    if not train:
        raise InputError("no normal training image was found", where=category)
    bad = sum(s.label for s in train)
    if bad:
        raise InputError("training images must be normal", where=category, why=f"{bad} are not")
    normal = tuple(train)
    tested = tuple(test)
    remarks = list(notes)
    if options.validation == "same":
        return DataSet(category, layout, normal, tested, tested, tuple(remarks))
    if options.validation == "half" and any(s.label for s in tested):
        rest, held = share(tested, 0.5, options.seed)
        return DataSet(category, layout, normal, held, rest, tuple(remarks))
    if len(normal) < 2:
        remarks.append("a single training image also serves as validation")
        return DataSet(category, layout, normal, normal, tested, tuple(remarks))
    rest, held = share(normal, options.test_ratio, options.seed)
    if options.validation == "half":
        remarks.append("no anomalous test image: validation is taken from the normal images")
    return DataSet(category, layout, rest, held, tested, tuple(remarks))


def from_arrays(
    images: Sequence[ImageArray],
    label: int = 0,
    masks: Sequence[npt.NDArray[np.bool_]] = (),
    kind: str = "",
) -> tuple[Sample, ...]:
    """Samples of decoded images (H×W×C, RGB, 8 or 16 bit), named by their position."""
    if masks and len(masks) != len(images):
        raise InputError("one mask per image", why=f"{len(images)} images, {len(masks)} masks")
    name = kind or ("bad" if label else "good")
    return tuple(
        Sample(Path(f"{name}-{i:04d}"), label, name, None, image, masks[i] if masks else None)
        for i, image in enumerate(images)
    )
