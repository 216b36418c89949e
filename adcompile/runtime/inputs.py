"""From what a user gives (image files, pixel arrays, tensors) to a bundle's input tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from adcompile.contract import Contract, Preprocess
from adcompile.errors import InputError, UsageError
from adcompile.manifest import TensorSpec
from adcompile.runtime.executor import Array
from adcompile.runtime.feeds import check_feeds, describe, read_array, read_arrays
from adcompile.runtime.images import SUFFIXES, ImageArray, from_pillow, read_image
from adcompile.runtime.preprocess import Placement, place

Source = str | Path | ImageArray | Image.Image | Mapping[str, object]


def make_feeds(
    specs: Sequence[TensorSpec], contract: Contract, source: Source
) -> tuple[dict[str, Array], dict[str, Placement]]:
    """Checked input tensors, and the placement of those that were made from images.

    *source* is one image (file, Pillow image, or H×W×C ``uint8``/``uint16`` array) for a bundle with
    one input, a ``.npy`` or ``.npz`` file (items of a sequence are called ``NAME[0]`` …), or a mapping
    from input names to any of these or to tensors.
    """
    given = _by_name(specs, source)
    feeds: dict[str, Array] = {}
    placements: dict[str, Placement] = {}
    by_name = {spec.name: spec for spec in specs}
    for name, value in given.items():
        if name not in by_name:
            feeds[name] = np.zeros(0)  # check_feeds names it, with all others that are wrong
            continue
        tensor, where = _tensor(by_name[name], contract.inputs.get(name), value)
        feeds[name] = tensor
        if where is not None:
            placements[name] = where
    return check_feeds(specs, feeds), placements


def _by_name(specs: Sequence[TensorSpec], source: Source) -> dict[str, object]:
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, str | Path) and Path(source).suffix.lower() == ".npz":
        return _with_sequences(specs, read_arrays(Path(source)))
    if len(specs) != 1:
        raise UsageError(
            f"the bundle has {len(specs)} inputs",
            fix="name them: " + "; ".join(describe(spec) for spec in specs),
        )
    return {specs[0].name: source}


def _with_sequences(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, object]:
    """Arrays called ``NAME[0]``, ``NAME[1]`` … are the items of the sequence NAME."""
    found: dict[str, object] = dict(arrays)
    for spec in specs:
        if spec.is_tensor or spec.name in found:
            continue
        items: list[Array] = []
        while (name := f"{spec.name}[{len(items)}]") in found:
            items.append(arrays[name])
            del found[name]
        if items:
            found[spec.name] = items
    return found


def _tensor(
    spec: TensorSpec, rule: Preprocess | None, value: object
) -> tuple[Array, Placement | None]:
    if isinstance(value, str | Path):
        path = Path(value)
        if path.suffix.lower() == ".npy":
            return read_array(path), None
        if rule is None and path.suffix.lower() in SUFFIXES:
            raise UsageError(
                f"input {spec.name!r} takes no image",
                why="the contract says nothing about its pre-processing",
                fix="give a .npy file with " + describe(spec),
            )
        value = read_image(path)
    if isinstance(value, Image.Image):
        value = from_pillow(value)
    if not spec.is_tensor:  # a list of arrays, or None: check_feeds looks at it
        return cast(Array, value), None
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"input {spec.name!r}: cannot use a {type(value).__name__}",
            fix="give a file, a Pillow image or a numpy array",
        )
    array = cast(Array, value)
    if rule is not None and _is_image(array, spec):
        return place(cast(ImageArray, array), rule)
    return array, None


def _is_image(array: Array, spec: TensorSpec) -> bool:
    """Pixels, not a tensor: H×W or H×W×C of 8 or 16 bits that do not fit as they are."""
    kind = str(array.dtype)
    if kind not in {"uint8", "uint16"} or array.ndim not in (2, 3):
        return False
    return kind != spec.dtype or len(spec.shape) != array.ndim
