"""Golden data and calibration data: the reference is run, and every part boundary is recorded.

Each part sees what its neighbours really produce. Parts that run per region of interest are
calibrated on real rows only, a bounded random choice of them from every image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from adcompile.check.calibration_source import kind_of, part_data
from adcompile.check.golden import open_sample, record_boundaries
from adcompile.check.recorder import record
from adcompile.check.recording import ROWS_PER_SAMPLE, Recording, identity_of, read_index
from adcompile.errors import InputError, UsageError
from adcompile.interfaces import Array, Part
from adcompile.job import Job
from adcompile.lower.calibration import MemoryCalibration
from adcompile.lower.rows import row_counts
from adcompile.manifest import TensorSpec
from adcompile.steps.identity import digest_of
from adcompile.steps.inputs import (
    calibration_images,
    fixed_specs,
    golden_inputs,
    unrecordable,
    wants_golden,
)
from adcompile.target import FLOAT_PRECISIONS
from adcompile.version import code_version

CALIBRATION_SAMPLES = 32
FIRST_SIDE = 2  # of N×C×H×W: height and width follow


def record_golden(job: Job) -> None:
    """Run the reference on golden inputs; record inputs, outputs and part boundaries."""
    job.watch("record golden data")
    for spec in [] if job.options.golden else unrecordable(job)[:1]:
        job.report.note(
            f"no golden data: input {spec.name!r} is {spec.dtype}, of which the model does not say "
            "enough to make one up; nothing was verified (--golden FILE.npz: the items of a sequence "
            f"are {spec.name}[0], {spec.name}[1] …)"
        )
    if not wants_golden(job):
        return
    inputs = golden_inputs(job)
    folder = job.work / "golden"
    try:
        job.golden = record_boundaries(job.reference, job.parts, inputs, folder)
    except InputError as error:
        free = [
            spec for spec in fixed_specs(job) if not all(isinstance(d, int) for d in spec.shape)
        ]
        if not free or job.options.golden:
            raise
        raise _made_too_small(free[0], error) from error
    for sample in job.golden:
        tables = (sample.inputs, sample.outputs, sample.boundaries)
        listed = {file: None for table in tables for file in table.values() if file}
        job.boundaries.append(open_sample(job.work, sample, listed).values)
    for part in job.parts:
        if part.rows:
            found = [len(next(iter(feeds.values()))) for feeds, _ in job.samples_of(part)]
            job.row_counts[part.name] = found
    needy = [
        p for p in job.parts if p.placement == "device" and p.precision not in FLOAT_PRECISIONS
    ]
    if needy:
        _calibrate(job, needy)


def _made_too_small(spec: TensorSpec, error: InputError) -> InputError:
    """What a model says of an input whose free dimensions had to be made up."""
    sizes = "x".join(map(str, spec.shape))
    example = "x".join(
        str(d) if isinstance(d, int) else "224" if place >= FIRST_SIDE else "1"
        for place, d in enumerate(spec.shape)
    )
    return InputError(
        f"input {spec.name!r} has free dimensions ({sizes}), and the model does not run at size 1",
        why=error.why or error.what,
        fix=f"say the size, such as --input-shape {spec.name}={example}, or give --golden FILE.npz",
    )


def _calibrate(job: Job, parts: Sequence[Part]) -> None:
    """Fill ``job.calibration`` from whatever the user gave; say so when that was nothing."""
    calib = job.options.calib
    if calib is None and job.options.data is None and job.options.val is None:
        _from_golden(job, parts)
        return
    kind = "images" if calib is None else kind_of(calib)
    if calib is None or kind == "images":
        _from_recording(job, _record(job, calibration_images(job)), parts)
        return
    if kind == "recording" and Recording.open(calib).index.identity.model != job.source.sha256:
        raise UsageError(
            "the recording is of another model",
            where=str(calib),
            fix="record again with `adcompile record`",
        )
    job.calibration_id = digest_of([calib])
    for part in parts:
        data = job.calibration[part.name] = part_data(calib, part.name, part.inputs)
        if kind == "arrays" and part.rows:
            job.row_counts[part.name] = row_counts(data)
    if kind == "recording":
        _count_rows(job, Recording.open(calib))


def _from_golden(job: Job, parts: Sequence[Part]) -> None:
    job.report.note(
        f"calibrated on {len(job.golden)} golden inputs only; give --calib FOLDER of real images"
    )
    job.calibration_id = digest_of([job.work / "golden"])
    for part in parts:
        samples = [_rows(part, feeds) for feeds, _ in job.samples_of(part)]
        kept = [s for s in samples if all(a.shape[:1] != (0,) for a in s.values())]
        if not kept:
            raise InputError(
                f"nothing was recorded for part {part.name!r}",
                why="no golden input reached it with any region",
                fix="give --calib images on which the model detects something",
            )
        job.calibration[part.name] = MemoryCalibration(kept)


def _rows(part: Part, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """A bounded, evenly spread choice of a region part's rows; other parts as they are."""
    if not part.rows:
        return dict(feeds)
    count = min(a.shape[0] for a in feeds.values() if a.ndim)
    chosen = sorted({i * count // ROWS_PER_SAMPLE for i in range(ROWS_PER_SAMPLE)})
    return {n: a[chosen] if count and a.ndim else a for n, a in feeds.items()}


def _record(job: Job, images: Sequence[Path]) -> Recording:
    """Record the boundaries over *images*; a stopped recording goes on where it was."""
    root = job.options.calib or job.options.data or job.options.val
    assert root is not None
    identity = identity_of(job.source.sha256, job.parts, job.contract, job.options.seed)
    files = {_name_in(path, root): path for path in images}
    parts = [identity.model_dump(mode="json"), digest_of([root]), code_version()]
    names = json.dumps(parts, sort_keys=True)
    key = hashlib.sha256(names.encode()).hexdigest()[:32]
    folder = (job.cache.root or job.work) / "recordings" / key
    before = read_index(folder)
    recording = record(
        job.parts,
        fixed_specs(job),
        job.source.outputs,
        files,
        folder,
        identity=identity,
        contract=job.contract,
        max_samples=CALIBRATION_SAMPLES,
        watch=lambda name, done, total: job.watch(f"record {name} ({done + 1} of {total})"),
    )
    for name, why in recording.index.skipped.items():
        job.report.note(f"calibration image {name} skipped: {why}")
    kept = 0 if before is None else len(before.samples)
    state = "ran" if not kept else "reused" if kept >= len(recording) else "continued"
    job.cache.log.append(("record", state, f"{kept} of {len(recording)} images were there"))
    _warn_if_all_equal(job, recording)
    return recording


def _name_in(path: Path, root: Path) -> str:
    """The path below *root*; as it is when *root* is a list of paths."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _warn_if_all_equal(job: Job, recording: Recording) -> None:
    """Say when every image gave the same input: its ranges say nothing about other images."""
    digests = {
        tuple(sample.files[sample.tensors[spec.name]].sha256 for spec in fixed_specs(job))
        for sample in recording.index.samples
        if all(spec.name in sample.tensors for spec in fixed_specs(job))
    }
    if len(recording) > 1 and len(digests) == 1:
        job.report.note(
            f"all {len(recording)} calibration images are equal: the ranges are those of one image"
        )


def _from_recording(job: Job, recording: Recording, parts: Sequence[Part]) -> None:
    job.calibration_id = hashlib.sha256(recording.index.dump().encode()).hexdigest()
    for part in parts:
        job.calibration[part.name] = recording.of_part(part.name, part.inputs)
    _count_rows(job, recording)


def _count_rows(job: Job, recording: Recording) -> None:
    """Take the regions per image from *recording*, which has seen more images than the golden data."""
    for part in job.parts:
        if part.rows and (counts := recording.row_counts(part.name)):
            job.row_counts[part.name] = counts
