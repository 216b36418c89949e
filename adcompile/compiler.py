"""The flow. Every step is a function of ``adcompile.job``; this file only puts them in order."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from adcompile import job as steps
from adcompile.job import BuildOptions, BuildResult, Job, Serializable, Watch

Source = str | Path | bytes | ir.Model | Serializable

__all__ = ["BuildOptions", "BuildResult", "Source", "compile"]


def compile(
    model: Source,
    target: str,
    output: str | Path | None = None,
    options: BuildOptions | None = None,
    *,
    watch: Watch | None = None,
) -> BuildResult:
    """Compile *model* for *target* into a verified bundle.

    *model* is a path, the bytes of an ONNX file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``
    (which is not changed). *target* is a name of ``adcompile list targets``. *output* is the
    bundle folder; without it the bundle goes to ``build/<model>-<target>``. *watch* receives the
    name of each step as it starts.

    Raises ModelError, UsageError or FormatError for bad input, Unsupported under
    ``options.strict``, and PassError when a pass broke the graph. A verification that fails is
    not raised: see ``BuildResult.ok``.
    """
    job = Job.create(target, output, options or BuildOptions(), watch)
    steps.load(job, model)
    if (done := steps.reuse(job)) is not None:
        return done
    steps.specialize(job)
    steps.canonicalize(job)
    steps.raise_heads(job)
    steps.prepare(job)
    steps.place_and_partition(job)
    steps.record_golden(job)
    steps.lower(job)
    with steps.staged(job):
        steps.emit(job)
        steps.write(job)
        steps.run_actions(job)
        steps.verify(job)
        return steps.finish(job)
