"""Golden data and calibration data: the reference is run, and every part boundary is recorded.

Each part sees what its neighbours really produce. Parts that run per region of interest are
calibrated on real rows only, a bounded random choice of them from every image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from adcompile.check.golden import GoldenInput, make_inputs, open_sample, record_boundaries
from adcompile.check.reference import FloatParts
from adcompile.errors import InputError, UsageError
from adcompile.interfaces import Array, Part
from adcompile.job import Job
from adcompile.lower.calibration import ArrayFolder, spread
from adcompile.manifest import TensorSpec
from adcompile.runtime.arrays import save_array
from adcompile.runtime.images import find_images
from adcompile.runtime.inputs import make_feeds

CALIBRATION_SAMPLES = 32
ROWS_PER_SAMPLE = 64
FLOAT_PRECISIONS = frozenset({"fp32", "fp16", "bf16"})


def record_golden(job: Job) -> None:
    """Run the reference on golden inputs; record inputs, outputs and part boundaries."""
    assert job.reference is not None
    job.watch("record golden data")
    inputs = _golden_inputs(job)
    if not inputs:
        return
    folder = job.work / "golden"
    job.golden = record_boundaries(job.reference, job.parts, inputs, folder)
    for sample in job.golden:
        tables = (sample.inputs, sample.outputs, sample.boundaries)
        listed = {file: None for table in tables for file in table.values()}
        job.boundaries.append(open_sample(job.work, sample, listed).values)
    needy = [
        p for p in job.parts if p.placement == "device" and p.precision not in FLOAT_PRECISIONS
    ]
    if needy:
        _calibrate(job, needy, inputs)


def _golden_inputs(job: Job) -> list[GoldenInput]:
    paths = list(job.options.golden)
    if not paths and job.options.verify == "none" and job.precision in FLOAT_PRECISIONS:
        return []
    calib = job.options.calib
    if not paths and calib is not None:
        paths = calibration_images(calib)[: job.options.golden_count]
    if not paths:
        job.report.note(
            "golden data was made up from random images (give --golden IMAGE for real ones)"
        )
    return make_inputs(
        fixed_specs(job),
        job.contract,
        paths,
        count=job.options.golden_count,
        seed=job.options.seed,
    )


def fixed_specs(job: Job) -> list[TensorSpec]:
    """The model's inputs with the shapes the user fixed."""
    assert job.source is not None
    given = job.options.input_shapes
    return [s.model_copy(update={"shape": given.get(s.name, s.shape)}) for s in job.source.inputs]


def _calibrate(job: Job, parts: Sequence[Part], golden: Sequence[GoldenInput]) -> None:
    """Record the inputs of *parts* over the calibration set, one folder per part and sample."""
    assert job.source is not None
    rng = np.random.default_rng(job.options.seed)
    with FloatParts(job.parts, job.source.inputs, job.source.outputs) as chain:
        for index, feeds in enumerate(_calibration_inputs(job, golden)):
            job.watch(f"record calibration sample {index + 1}")
            values: dict[str, Array] = {}
            chain.run(feeds, tap=values.__setitem__)
            for part in parts:
                _keep(job.work, part, values, index, rng)
    for part in parts:
        folder = job.work / "calibration" / part.name
        if not folder.is_dir():
            raise InputError(
                f"nothing was recorded for part {part.name!r}",
                why="no calibration sample reached it (no regions were found)",
                fix="give --calib images on which the model detects something",
            )
        names = {spec.name: f"input_{i}" for i, spec in enumerate(part.inputs)}
        job.calibration[part.name] = ArrayFolder(folder, part.inputs, names)


def _calibration_inputs(job: Job, golden: Sequence[GoldenInput]) -> Iterator[Mapping[str, Array]]:
    calib = job.options.calib
    if calib is None:
        job.report.note(
            f"calibrated on {len(golden)} golden inputs only; give --calib FOLDER of real images"
        )
        yield from (each.feeds for each in golden)
        return
    specs = fixed_specs(job)
    for item in spread([{"x": f} for f in calibration_images(calib)], CALIBRATION_SAMPLES):
        yield make_feeds(specs, job.contract, item["x"])[0]


def calibration_images(folder: Path) -> list[Path]:
    """Images below *folder*; UsageError when there is none."""
    files = find_images(folder) if folder.is_dir() else []
    if not files:
        raise UsageError(
            "no calibration images", where=str(folder), fix="give a folder that holds images"
        )
    return files


def _keep(
    work: Path, part: Part, values: Mapping[str, Array], index: int, rng: np.random.Generator
) -> None:
    arrays = [values[spec.name] for spec in part.inputs]
    if part.rows:
        rows = int(arrays[0].shape[0])
        if rows == 0:
            return
        chosen = np.sort(rng.permutation(rows)[:ROWS_PER_SAMPLE])
        arrays = [a[chosen] if a.shape[0] == rows else a for a in arrays]
    folder = work / "calibration" / part.name / f"{index:05d}"
    for number, array in enumerate(arrays):
        save_array(folder / f"input_{number}.npy", array)
