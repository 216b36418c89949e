"""Golden data: inputs, the reference model's outputs, and the tensors between the parts.

    inputs = make_inputs(specs, contract, images, count=2, seed=0)
    samples = record_boundaries(model, parts, inputs, folder)      # manifest.GoldenSample

One sample is in memory at a time; tensors go to ``.npy`` files at once. Outputs come from the
unsplit reference model, tensors between the parts from the float models of the parts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir

from adcompile.check.reference import FloatParts, opened
from adcompile.contract import Contract
from adcompile.errors import FormatError, InputError, ModelError
from adcompile.interfaces import Part
from adcompile.ir.graph import tensor_spec
from adcompile.manifest import GoldenSample, TensorSpec
from adcompile.runtime.arrays import file_name, open_value, save_value
from adcompile.runtime.executor import Array
from adcompile.runtime.feeds import check_feeds
from adcompile.runtime.images import find_images
from adcompile.runtime.inputs import make_feeds
from adcompile.runtime.preprocess import preprocess

DEFAULT_BYTES = 1 << 28  # of boundary tensors, over all samples
MAX_INPUT_VALUES = 1 << 28
MAX_IMAGE_COPY = 1 << 23  # larger source images are not kept in the bundle
FOLDER = "golden"


@dataclass(frozen=True)
class GoldenInput:
    """Input tensors of one sample. ``source`` says where they come from; ``image`` is the file."""

    feeds: Mapping[str, Array]
    source: str
    image: Path | None = None


def make_inputs(
    specs: Sequence[TensorSpec],
    contract: Contract,
    sources: Sequence[Path] = (),
    *,
    count: int = 2,
    seed: int = 0,
) -> list[GoldenInput]:
    """Inputs from *sources* (image files, ``.npy``, ``.npz``, folders of images), all of them.

    Without sources, *count* made-up ones: painted images through the contract's pre-processing
    where it has one, otherwise values of the right type. The same *seed* gives the same inputs.
    Raises InputError or FormatError naming the source that does not fit.
    """
    files = [file for source in sources for file in _expand(source)]
    if files:
        return [_from_file(specs, contract, file) for file in files]
    made: list[GoldenInput] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        feeds = {spec.name: _made_up(spec, contract, rng) for spec in specs}
        made.append(GoldenInput(check_feeds(specs, feeds), f"made up, seed {seed}.{number}"))
    return made


def _expand(source: Path) -> list[Path]:
    return find_images(source) if source.is_dir() else [source]


def _from_file(specs: Sequence[TensorSpec], contract: Contract, file: Path) -> GoldenInput:
    feeds, placements = make_feeds(specs, contract, file)
    return GoldenInput(feeds, file.name, file if placements else None)


def _made_up(spec: TensorSpec, contract: Contract, rng: np.random.Generator) -> Array:
    rule = contract.inputs.get(spec.name)
    if rule is not None:
        return preprocess(paint(rng, *rule.size), rule)
    shape = tuple(d if isinstance(d, int) else 1 for d in spec.shape)
    if not spec.is_tensor and not unknown_items(spec):
        item = spec.model_copy(update={"dtype": spec.dtype.partition("(")[2].rstrip(")")})
        return cast(Array, [_made_up(item, contract, rng) for _ in range(2)])
    if int(np.prod(shape, dtype=np.float64)) > MAX_INPUT_VALUES:
        raise InputError("input is too large to make up", where=f"{spec.name} {list(shape)}")
    if spec.dtype == "str":
        return np.full(shape, "text")
    if spec.dtype == "bool":
        return rng.random(shape) < 0.5
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError as error:
        raise ModelError(
            f"input {spec.name!r} is no tensor that can be made up",
            why=f"its type is {spec.dtype}",
        ) from error
    if dtype.kind in "iu":
        return rng.integers(0, 4, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def unknown_items(spec: TensorSpec) -> bool:
    """True for what cannot be made up: a sequence whose items have no known rank, an optional."""
    return not spec.is_tensor and (not spec.dtype.startswith("sequence(") or not spec.shape)


def paint(
    rng: np.random.Generator, height: int, width: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An RGB image with what photographs have: shading, soft texture, edges, some noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    canvas = np.empty((height, width, 3))
    for channel in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        canvas[:, :, channel] = 120 + 60 * (a * y / height + b * x / width) + 20 * c
    for _ in range(6):  # soft waves of falling size
        fy, fx = rng.normal(0, 8, 2)
        wave = np.sin(2 * np.pi * (fy * y / height + fx * x / width) + rng.uniform(0, 6.28))
        canvas += wave[:, :, np.newaxis] * rng.uniform(2, 14, 3)
    for _ in range(8):  # discs and boxes with edges
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(0.04, 0.25, 2) * (height, width)
        if rng.random() < 0.5:
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        else:
            inside = (np.abs(y - cy) < ry) & (np.abs(x - cx) < rx)
        canvas[inside] = canvas[inside] * 0.3 + rng.uniform(0, 255, 3) * 0.7
    canvas += rng.normal(0, 3, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def record_boundaries(
    model: ir.Model,
    parts: Sequence[Part],
    inputs: Sequence[GoldenInput],
    folder: Path,
    *,
    max_bytes: int = DEFAULT_BYTES,
) -> list[GoldenSample]:
    """Run the reference *model* and the float *parts* on *inputs*; write below *folder*.

    Paths in the samples start with ``golden/``: *folder* is to become that folder of the bundle.
    Once boundary tensors take *max_bytes*, later samples have none. *model* may be any model with
    the same inputs and outputs as the parts, normally the one the user gave.
    """
    specs = [tensor_spec(value) for value in model.graph.inputs]
    results = [tensor_spec(value) for value in model.graph.outputs]
    samples: list[GoldenSample] = []
    with opened(model) as session:
        for number, each in enumerate(inputs):
            writer = _Writer(folder, str(number))
            named = {n: writer.save(n, a) for n, a in each.feeds.items()}
            outputs = session.run(each.feeds)
            kept = {spec.name: writer.save(spec.name, outputs[spec.name]) for spec in results}
            image = writer.copy(each.image)
            source = image or each.source
            samples.append(GoldenSample(inputs=named, outputs=kept, source=source))
    if parts:
        runs = _record_parts(parts, specs, results, inputs, folder, max_bytes)
        for number, (_, tapped) in enumerate(runs):
            samples[number] = samples[number].model_copy(update={"boundaries": tapped})
    return samples


def record_run(
    parts: Sequence[Part],
    specs: Sequence[TensorSpec],
    results: Sequence[TensorSpec],
    inputs: Sequence[GoldenInput],
    folder: Path,
) -> list[GoldenSample]:
    """Like :func:`record_boundaries`, with outputs from the parts themselves instead of a model."""
    runs = _record_parts(parts, specs, results, inputs, folder, DEFAULT_BYTES)
    samples: list[GoldenSample] = []
    for number, (each, (outputs, tapped)) in enumerate(zip(inputs, runs, strict=False)):
        writer = _Writer(folder, str(number))
        named = {n: writer.save(n, a) for n, a in each.feeds.items()}
        kept = {name: writer.save(name, array) for name, array in outputs.items()}
        source = writer.copy(each.image) or each.source
        samples.append(GoldenSample(inputs=named, outputs=kept, source=source, boundaries=tapped))
    return samples


def _record_parts(
    parts: Sequence[Part],
    specs: Sequence[TensorSpec],
    results: Sequence[TensorSpec],
    inputs: Sequence[GoldenInput],
    folder: Path,
    max_bytes: int,
) -> Iterator[tuple[Mapping[str, Array], dict[str, str]]]:
    """Outputs and saved boundary tensors of every input, until the boundaries take *max_bytes*."""
    spent = 0
    final = {spec.name for spec in results}
    made = (spec for part in parts for spec in part.outputs)
    unrecordable = {spec.name for spec in made if not spec.is_tensor}  # compared as outputs only
    with FloatParts(parts, specs, results) as float_parts:
        for number, each in enumerate(inputs):
            if spent >= max_bytes:
                break
            writer = _Writer(folder, f"{number}/parts")
            tapped: dict[str, str] = {}

            def tap(
                name: str,
                array: Array,
                kept: dict[str, str] = tapped,
                known: Mapping[str, Array] = each.feeds,
                out: _Writer = writer,
            ) -> None:
                if name not in known and name not in final and name not in unrecordable:
                    kept[name] = out.save(name, array)

            outputs = float_parts.run(each.feeds, tap=tap).outputs
            spent += writer.spent
            yield outputs, tapped


class _Writer:
    """Writes the tensors of one sample and counts their bytes."""

    def __init__(self, folder: Path, place: str) -> None:
        self._folder = folder
        self._place = place
        self._count = 0
        self.spent = 0

    def save(self, name: str, value: Array) -> str:
        """Write one tensor or sequence; returns its path in the bundle, "" for an absent optional."""
        path = self._folder / self._place / file_name(self._count, name)
        self._count += 1
        file = save_value(path, value)
        if file is None:
            return ""
        self.spent += file.stat().st_size
        return f"{FOLDER}/{file.relative_to(self._folder).as_posix()}"

    def copy(self, image: Path | None) -> str:
        """Keep the source image, so that the pre-processing can be checked too; "" without one."""
        if image is None or image.stat().st_size > MAX_IMAGE_COPY:
            return ""
        path = f"{self._place}/image{image.suffix.lower()}"
        shutil.copyfile(image, self._folder / path)
        return f"{FOLDER}/{path}"


@dataclass(frozen=True)
class Recorded:
    """A golden sample opened from a bundle; arrays are memory-mapped."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    boundaries: dict[str, Array]
    image: Path | None

    @property
    def values(self) -> dict[str, Array]:
        """Everything that is known at a part's border."""
        return {**self.inputs, **self.boundaries, **self.outputs}


def open_sample(bundle: Path, sample: GoldenSample, listed: Mapping[str, object]) -> Recorded:
    """Open one sample; every file must be *listed* in the manifest. Raises FormatError."""
    tables = (sample.inputs, sample.outputs, sample.boundaries)
    strangers = [f for table in tables for f in table.values() if f and f not in listed]
    if strangers:
        raise FormatError("golden file is not listed in the manifest", where=strangers[0])
    inputs, outputs, boundaries = (
        {n: open_value(bundle, f) for n, f in table.items()} for table in tables
    )
    image = bundle / sample.source if sample.source in listed else None
    return Recorded(inputs, outputs, boundaries, image)
