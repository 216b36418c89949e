"""The flow. Every step is a function in ``adcompile.steps``; this file only puts them in order."""

from __future__ import annotations

from pathlib import Path

from adcompile.fileset import scratch
from adcompile.job import BuildOptions, BuildResult, Job, Watch
from adcompile.steps.budget import check_budget, meet_budget
from adcompile.steps.emitting import act, emit, finish, staged, verify, write
from adcompile.steps.identity import identify, reuse
from adcompile.steps.load import Source, load
from adcompile.steps.locking import check_lock, hold_lock
from adcompile.steps.lowering import lower
from adcompile.steps.placing import place_and_partition
from adcompile.steps.policies import choose_policies
from adcompile.steps.rebuilding import rebuild_head
from adcompile.steps.recording import record_golden
from adcompile.steps.rewriting import canonicalize, prepare, raise_heads, specialize

__all__ = ["BuildOptions", "BuildResult", "Source", "compile"]


def compile(
    model: Source,
    target: str,
    output: str | Path | None = None,
    options: BuildOptions | None = None,
    *,
    watch: Watch | None = None,
    **changes: object,
) -> BuildResult:
    """Compile *model* for *target* into a verified bundle.

    *model* is a path, the bytes of an ONNX file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``
    (which is not changed). *target* is a name of ``adcompile list targets``. *output* is the
    bundle folder; without it the bundle goes to ``build/<model>-<target>``. *options*, or single
    ones by name (``precision="a8w8", calib="images/"``), are those of ``BuildOptions``. *watch*
    receives the name of each step as it starts.

    Raises ModelError, UsageError or FormatError for bad input, Unsupported under
    ``options.strict``, LockBroken under ``options.locked``, and PassError when a pass broke the
    graph. A verification that fails is not raised: see ``BuildResult.ok``.
    """
    settled = (options or BuildOptions()).changed(changes)
    with scratch() as work:
        job = Job.create(target, output, settled, watch, work)
        load(job, model)
        identify(job)
        check_lock(job)
        if (done := reuse(job)) is not None:
            hold_lock(job, done.manifest)
            return done
        specialize(job)
        canonicalize(job)
        raise_heads(job)
        prepare(job)
        place_and_partition(job)
        record_golden(job)
        choose_policies(job)
        meet_budget(job)
        lower(job)
        rebuild_head(job)
        with staged(job):
            emit(job)
            write(job)
            act(job)
            hold_lock(job, job.manifest)
            verify(job)
            check_budget(job)
            return finish(job)
