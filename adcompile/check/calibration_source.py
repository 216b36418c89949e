"""What ``--calib`` may name: a recording, ``model_io`` folders of arrays, or a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from adcompile.check.recording import INDEX, Recording
from adcompile.errors import InputError
from adcompile.interfaces import CalibrationData
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array
from adcompile.runtime.feeds import describe, read_array
from adcompile.runtime.images import find_images

Kind = Literal["recording", "arrays", "images"]


def kind_of(source: Path) -> Kind:
    """Which of the three *source* is. Raises InputError when it is none of them."""
    if not source.is_dir():
        raise InputError("no such calibration folder", where=str(source))
    if (source / INDEX).is_file():
        return "recording"
    if any(True for _ in source.glob("*/*.npy")):
        return "arrays"
    find_images(source)
    return "images"


def part_data(source: Path, part: str, inputs: Sequence[TensorSpec]) -> CalibrationData:
    """Recorded inputs of one part, from a recording or from ``model_io/<id>/*.npy`` folders.

    Raises InputError when *source* has nothing for this part, or is a folder of images (then the
    float parts have to be run over them first).
    """
    kind = kind_of(source)
    if kind == "recording":
        return Recording.open(source).of_part(part, inputs)
    if kind == "images":
        raise InputError("a folder of images has no tensors of parts", where=str(source))
    return ArrayFolders.find(source, part, inputs)


@dataclass(frozen=True)
class ArrayFolders:
    """One folder per image with one ``.npy`` per tensor, as R4's evaluation script writes them.

    A file belongs to an input that has its name, else to the only one that its shape fits.
    Rows are taken as they are: nothing is padded or cut.
    """

    files: tuple[dict[str, Path], ...]  # one per sample: input name -> file

    @classmethod
    def find(cls, source: Path, part: str, inputs: Sequence[TensorSpec]) -> ArrayFolders:
        """Match the files of *source* with the *inputs* of *part*."""
        folders = sorted(p for p in source.iterdir() if p.is_dir() and any(p.glob("*.npy")))
        stems = _match(folders[0], part, inputs)
        samples = [
            {name: folder / f"{stem}.npy" for name, stem in stems.items()}
            for folder in folders
            if all((folder / f"{stem}.npy").is_file() for stem in stems.values())
        ]
        return cls(tuple(samples))

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for sample in self.files:
            found = {name: read_array(file) for name, file in sample.items()}
            if all(array.size for array in found.values()):
                yield found


def _match(folder: Path, part: str, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    shapes = {path.stem: _header(path) for path in sorted(folder.glob("*.npy"))}
    found: dict[str, str] = {}
    for spec in inputs:
        if spec.name in shapes:
            found[spec.name] = spec.name
            continue
        fitting = [stem for stem, shape in shapes.items() if _fits(spec, shape)]
        if len(fitting) != 1:
            raise InputError(
                f"no array fits input {spec.name!r} of part {part!r}"
                if not fitting
                else f"several arrays fit input {spec.name!r} of part {part!r}",
                where=str(folder),
                why=", ".join(f"{stem} {list(shape)}" for stem, shape in shapes.items()),
                fix="expected " + describe(spec) + "; name the file after the input",
            )
        found[spec.name] = fitting[0]
    return found


def _header(path: Path) -> tuple[int, ...]:
    try:
        return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("array cannot be read", where=str(path), why=str(error)) from error


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(spec.shape, shape, strict=True)
    )
