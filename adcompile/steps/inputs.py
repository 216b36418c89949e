"""Inputs of a build: golden samples, and the images to calibrate on."""

from __future__ import annotations

from pathlib import Path

from adcompile.anomaly.model_folder import read_config
from adcompile.anomaly.remeasure.images import Images, read_images
from adcompile.anomaly.samples import SplitOptions
from adcompile.anomaly.sources import read_data
from adcompile.check.calibration_source import kind_of
from adcompile.check.golden import GoldenInput, make_inputs, unknown_items
from adcompile.job import Job
from adcompile.manifest import TensorSpec
from adcompile.runtime.images import find_images
from adcompile.target import FLOAT_PRECISIONS


def wants_golden(job: Job) -> bool:
    """False only when nothing will be verified, calibrated or recorded on request, or can be."""
    if job.options.golden:
        return True
    if unrecordable(job):
        return False
    if job.options.golden_count < 1:
        return False
    return job.options.verify != "none" or job.precision not in FLOAT_PRECISIONS


def unrecordable(job: Job) -> list[TensorSpec]:
    """Inputs that cannot be made up: optionals, and sequences of tensors of unknown rank."""
    return [spec for spec in job.source.inputs if unknown_items(spec)]


def golden_inputs(job: Job) -> list[GoldenInput]:
    """The inputs that reference data is recorded from; made once per build."""
    if not job.inputs:
        job.inputs = _golden_inputs(job)
    return job.inputs


def calibration_images(job: Job) -> list[Path]:
    """The images to calibrate on: those of ``calib``, else the normal ones of ``data``, else the normal
    ones of ``val`` that are not judged, else none."""
    calib, data = job.options.calib, job.options.data
    if calib is not None:
        return find_images(calib) if kind_of(calib) == "images" else []
    if data is not None:
        return [sample.path for sample in read_data(data, SplitOptions(validation="same")).train]
    if job.options.val is not None:
        return [sample.path for sample in detector_images(job).held]
    return []


def detector_images(job: Job) -> Images:
    """What ``data`` and ``val`` give for an anomaly detector, divided as its fit divides."""
    config = None if job.folder is None else read_config(job.folder)
    return read_images(job.options.data, job.options.val, config, job.options.seed)


def _golden_inputs(job: Job) -> list[GoldenInput]:
    paths = list(job.options.golden)
    if not paths:
        paths = calibration_images(job)[: job.options.golden_count]
    if not paths:
        job.report.note(
            "golden data was made up from random images (give --golden IMAGE for real ones)"
        )
    return make_inputs(
        fixed_specs(job),
        job.contract,
        paths,
        count=max(job.options.golden_count, 1),
        seed=job.options.seed,
    )


def fixed_specs(job: Job) -> list[TensorSpec]:
    """The model's inputs with the shapes that were fixed."""
    return list(job.source.inputs)
