"""Patch features of a CNN over generated textures, for the benchmarks of search and coreset.

The network is an ONNX file with a 128/512-channel 28x28 and a 256/1024-channel 14x14 output when
one is given (ResNet layer2 and layer3), otherwise one of ``texture_networks`` with seeded random
weights. The patch embedding is the reference systems': average 3x3, deeper map enlarged by nearest
(or bilinear, as in the paper and anomalib), concatenated, one row per position.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from texture_networks import SIDE, plain_network, residual_network

F32 = NDArray[np.float32]


def texture(random: np.random.Generator) -> F32:
    """A wood-like picture [224, 224, 3], 0 … 255: one material, another cut of it every time."""
    spectrum = np.fft.rfft2(random.standard_normal((SIDE, SIDE)))
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    angle = random.normal(0.3, 0.05)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    shape = np.exp(-((along / 0.12) ** 2) - (across / 0.02) ** 2)
    shape = shape + 0.15 * np.exp(-(x**2 + y**2) / 0.15**2)
    grain = np.fft.irfft2(spectrum * shape, s=(SIDE, SIDE))
    grain = (grain - grain.mean()) / grain.std()
    colour = np.array([150.0, 110.0, 70.0]) + random.normal(0, 4, 3)
    picture = colour + grain[..., None] * np.array([35.0, 28.0, 20.0])
    picture += random.normal(0, 3, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.float32)


def _averaged(maps: F32) -> F32:
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[1:]
    total = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
    return np.asarray(total, np.float32) / np.float32(9)


def _twice(maps: F32, axis: int, enlarge: str) -> F32:
    """Maps with twice as many positions along an axis; bilinear with half-pixel centres."""
    repeated: F32 = maps.repeat(2, axis=axis)
    if enlarge == "nearest":
        return repeated
    here = np.arange(repeated.shape[axis])
    beside = np.clip(here // 2 + np.where(here % 2 == 0, -1, 1), 0, maps.shape[axis] - 1)
    mixed: F32 = np.float32(0.75) * repeated + np.float32(0.25) * maps.take(beside, axis=axis)
    return mixed


def features(
    images: int, columns: int, model: Path | None, *, rough: bool = False, seed: int = 1,
    enlarge: str = "nearest",
) -> tuple[F32, str]:  # fmt: skip
    """Rows [images * 784, columns] and a sentence saying where they come from.

    *rough*: without *model*, from the plain network, whose features are harder to search.
    *enlarge*: the deeper map, ``nearest`` or ``bilinear``.
    """
    random = np.random.default_rng(seed)
    network = plain_network if rough else residual_network
    source = str(model) if model else network(columns)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    (name,) = [i.name for i in session.get_inputs()]
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    out: list[F32] = []
    for _ in range(images):
        picture = (texture(random) / 255 - mean) / std
        maps = session.run(None, {name: picture.transpose(2, 0, 1)[None].astype(np.float32)})
        shallow, deep = sorted((np.asarray(m)[0] for m in maps), key=lambda m: m.shape[0])
        deep = _twice(_twice(_averaged(deep), 1, enlarge), 2, enlarge)
        both = np.concatenate([_averaged(shallow), deep])
        out.append(both.reshape(len(both), -1).T)
    rows = np.ascontiguousarray(np.concatenate(out), dtype=np.float32)
    if rows.shape[1] != columns:
        raise SystemExit(f"{model} gives {rows.shape[1]} columns, not {columns}")
    shape = "ResNet18" if columns == 384 else "Wide ResNet50-2"
    seeded = "a plain CNN" if rough else f"a {shape} as initialised,"
    what = f"ONNX file {model.name}" if model else f"{seeded} with seeded random weights"
    return rows, f"{what} over {images} generated textures, deeper map enlarged {enlarge}"
