"""Images and masks of samples as arrays, through the contract's pre-processing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.samples import Sample
from adcompile.contract import Preprocess
from adcompile.errors import FormatError
from adcompile.runtime.images import SUFFIXES, ImageArray, read_image
from adcompile.runtime.preprocess import preprocess

Mask = npt.NDArray[np.bool_]
Batch = npt.NDArray[np.float32]

MIN_SIDE = 8
"""Smaller images hold nothing a network could look at."""

_MASK_RESAMPLE = {"pil_bilinear": "pil_nearest", "cv_bilinear": "cv_nearest"}


def is_image(path: Path) -> bool:
    """True when the name ends like an image file and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_pixels(path: Path) -> ImageArray:
    """An image file as H×W×C; refuses images with a side under 8 pixels."""
    pixels = read_image(path)
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise FormatError(
            "image is too small",
            where=str(path),
            why=f"{pixels.shape[1]}x{pixels.shape[0]} pixels, at least {MIN_SIDE}x{MIN_SIDE} needed",
        )
    return pixels


def read_mask(path: Path) -> Mask:
    """A mask file as bool [H, W]: True where any channel is nonzero."""
    return np.asarray(read_image(path).max(axis=2) > 0)


def mask_tensor(mask: Mask, spec: Preprocess) -> Mask:
    """The mask where :func:`preprocess` puts its image: same resize (nearest), crop and padding."""
    fields = {
        "channels": "gray",
        "resample": _MASK_RESAMPLE.get(spec.resample, spec.resample),
        "scale": 1.0,
        "mean": (0.0,),
        "std": (1.0,),
        "layout": "hwc",
        "dtype": "uint8",
        "pad_value": 0,
    }
    plain = Preprocess.model_validate(spec.model_dump() | fields)
    moved = preprocess(mask.astype(np.uint8), plain)
    return np.asarray(moved[:, :, 0] != 0)


def tensor_of(source: Path | Sample, spec: Preprocess) -> Batch:
    """An image file or sample as the float32 input [1, C, H, W] of the contract."""
    if isinstance(source, Sample) and source.pixels is not None:
        pixels = source.pixels
    else:
        pixels = read_pixels(source.path if isinstance(source, Sample) else source)
    return np.asarray(preprocess(pixels, spec), dtype=np.float32)


def truth_of(sample: Sample, spec: Preprocess) -> Mask | None:
    """The mask of a sample at the size of the input; None without one."""
    if sample.truth is not None:
        return mask_tensor(sample.truth, spec)
    return None if sample.mask is None else mask_tensor(read_mask(sample.mask), spec)


def batches(samples: Sequence[Sample], spec: Preprocess, size: int = 1) -> Iterator[Batch]:
    """Inputs of all samples in order, *size* at a time, [n, C, H, W]."""
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        yield np.concatenate([tensor_of(sample, spec) for sample in part], axis=0)
