"""Calibration data from memory and from folders of arrays.

Both can be iterated any number of times, give one sample at a time as input name to array,
and hold no more than one sample in memory (the in-memory one aside).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from adcompile.errors import InputError
from adcompile.interfaces import Array
from adcompile.manifest import TensorSpec

MAX_SAMPLES = 100_000


class MemoryCalibration:
    """Samples that are already in memory."""

    def __init__(self, samples: Sequence[Mapping[str, Array]]) -> None:
        self._samples = [dict(sample) for sample in samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter([dict(sample) for sample in self._samples])


class ArrayFolder:
    """``.npy`` files, one folder or file per sample.

    Three layouts: ``<sample>/<input>.npy`` (one folder per sample, files named by input);
    ``<file>.npy`` directly in the folder, for a part with one input; and a mapping from input name
    to the base name of the files (``{"box_features": "box_features"}`` in ``model_io/<id>/``).
    Files are taken in name order.
    """

    def __init__(
        self, folder: Path, inputs: Sequence[TensorSpec], names: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.inputs = tuple(inputs)
        self.names = {s.name: (names or {}).get(s.name, s.name) for s in inputs}
        self._samples = _find_samples(folder, self.names)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for files in self._samples:
            yield {spec.name: _load(files[spec.name], spec) for spec in self.inputs}


def _find_samples(folder: Path, names: Mapping[str, str]) -> list[dict[str, Path]]:
    if not folder.is_dir():
        raise InputError("calibration folder does not exist", where=str(folder))
    samples = [
        {name: sub / f"{base}.npy" for name, base in names.items()}
        for sub in sorted(p for p in folder.iterdir() if p.is_dir())
        if all((sub / f"{base}.npy").is_file() for base in names.values())
    ]
    if not samples and len(names) == 1:
        (name,) = names
        samples = [{name: file} for file in sorted(folder.glob("*.npy"))]
    if not samples:
        raise InputError(
            "no calibration samples",
            where=str(folder),
            why=f"no subfolder has {', '.join(f'{b}.npy' for b in names.values())}",
            fix="record them with `adcompile record`, or check the names",
        )
    if len(samples) > MAX_SAMPLES:
        raise InputError("too many calibration samples", where=str(folder), fix="use fewer")
    return samples


def _load(path: Path, spec: TensorSpec) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            "calibration file cannot be read", where=str(path), why=str(error)
        ) from error
    check_sample(array, spec, str(path))
    return np.array(array, dtype=np.dtype(spec.dtype))


def check_sample(array: Array, spec: TensorSpec, where: str) -> None:
    """Refuse an array that does not fit the input: rank, fixed dimensions, kind, finiteness."""
    fits = array.ndim == len(spec.shape) and all(
        isinstance(want, str) or want == got
        for want, got in zip(spec.shape, array.shape, strict=False)
    )
    if not fits:
        raise InputError(
            "calibration sample has the wrong shape",
            where=where,
            why=f"{array.shape}, the input {spec.name!r} is {spec.shape}",
        )
    if not np.can_cast(array.dtype, np.dtype(spec.dtype), casting="same_kind"):
        raise InputError(
            "calibration sample has the wrong type",
            where=where,
            why=f"{array.dtype}, the input {spec.name!r} is {spec.dtype}",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("calibration sample holds NaN or infinity", where=where)
