"""Steps 9 to 11: files, actions, verification, and the folder that appears at the end."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import adcompile
from adcompile.backends.cpu.backend import CpuBackend
from adcompile.backends.host.emit import emit_host
from adcompile.check.diagnose import diagnose
from adcompile.check.tolerance import default_tolerances
from adcompile.check.verify import verify_bundle
from adcompile.errors import Unsupported
from adcompile.fileset import FileSet, publish, staging
from adcompile.job import BuildResult, Job
from adcompile.lower.actions import run_actions
from adcompile.manifest import MANIFEST, FileRecord, Manifest, PartRecord, file_sha256
from adcompile.page import page
from adcompile.page_rebuilt import rebuilt_section
from adcompile.runtime.categories import carry_over
from adcompile.steps.heads import add_statistics
from adcompile.steps.lowering import context, emit_part
from adcompile.steps.tools import tool_versions

REPORT = "report.html"
TRACE_WORK = 10**12  # multiply-adds: tracing runs a part about once per node
REPRODUCER = "reproducer"  # only in a bundle that failed its verification


@contextmanager
def staged(job: Job) -> Generator[None]:
    """A hidden sibling of the output; removed when the build ends in any other way than finish."""
    job.staged = staging(job.settle_output())
    try:
        yield
    finally:
        if job.staged.exists():
            shutil.rmtree(job.staged)


def emit(job: Job) -> None:
    """Collect every file and action of the bundle; nothing is written or run here."""
    job.watch("emit")
    host = CpuBackend()
    for part in job.parts:
        backend = host if part.placement == "host" else job.backend
        lowered = job.lowered.get(part.name, part)
        more: dict[str, str] = {}
        if part.placement == "host":
            lowered, more = add_statistics(job, lowered)
        record = emit_part(job, backend, part, lowered, context(job, part), job.files)
        job.records.append(record.model_copy(update={"files": {**record.files, **more}}))
    job.files.add("plan.yaml", job.plan.dump())
    if job.options.host_code:
        _emit_host(job)


def _emit_host(job: Job) -> None:
    """The C++ project. An operator without a kernel is said, and leaves the bundle without one."""
    host = FileSet()
    try:
        emit_host(
            job.parts,
            job.records,
            job.contract,
            job.golden,
            host,
            model=job.source.name,
            target=job.target.name,
            outputs=[spec.name for spec in job.source.outputs],
            tolerances=default_tolerances(record.precision for record in job.records),
        )
    except Unsupported as error:
        if job.options.strict:
            raise
        reason = " ".join(str(error).split())
        job.report.note(f"no C++ host project: {reason}; the host parts run from Python only")
        return
    job.files.merge(host)


def write(job: Job) -> None:
    """Write all files and a first manifest into the staging folder."""
    job.watch("write")
    records = job.files.write_into(job.staged)
    _move_golden(job, records)
    job.manifest = _manifest(job, records)
    _save(job)


def act(job: Job) -> None:
    """Run the vendor commands whose tools are here; the others stay pending, with the reason."""
    if not job.files.actions:
        return
    job.watch("vendor tools")
    done = run_actions(job.staged, job.files.actions)
    files = dict(job.manifest.files)
    for action in done:
        for name in action.outputs:
            path = job.staged / name
            if action.state == "done" and path.is_file():
                files[name] = FileRecord(size=path.stat().st_size, sha256=file_sha256(path))
    parts = tuple(_with_files_that_exist(part, files) for part in job.manifest.parts)
    job.manifest = job.manifest.model_copy(
        update={"actions": tuple(done), "files": files, "parts": parts}
    )
    _save(job)


def _with_files_that_exist(part: PartRecord, files: dict[str, FileRecord]) -> PartRecord:
    """A file that a pending or failed action was to make is not there: the part must not name it."""
    present = {use: file for use, file in part.files.items() if file in files}
    return part.model_copy(update={"files": present})


def verify(job: Job) -> None:
    """Compare the staged bundle with its golden data; keep the numbers in the manifest."""
    if job.options.verify == "none" or not job.golden:
        return
    job.watch("verify")
    outcome = verify_bundle(job.staged, watch=job.watch)
    job.ok = outcome.ok
    results = outcome.results()
    files = dict(job.manifest.files)
    for note in outcome.notes:
        job.report.note(note)
    if outcome.reproduces:
        pass
    elif not _worth_tracing(job):
        job.report.note(
            f"verification failed, first bad part: {outcome.first_bad or 'none by itself'}; "
            "`adcompile verify BUNDLE --model MODEL` looks for the node (this takes a while)"
        )
    else:
        job.watch("find the culprit")
        found = diagnose(job.staged, outcome, job.staged / REPRODUCER, model=job.reference)
        job.report.note(found.text)
        results["culprit"] = found.text
        _list_files(job.staged, REPRODUCER, files)
    job.manifest = job.manifest.model_copy(
        update={"results": results, "verified_on": outcome.verified_on, "files": files}
    )


def _worth_tracing(job: Job) -> bool:
    """A wrong fp32 bundle is a defect and always traced; a coarse one only when that is quick."""
    work = sum(part.macs * part.nodes for part in job.records if part.precision != "fp32")
    return work <= TRACE_WORK


def finish(job: Job) -> BuildResult:
    """Write the final manifest and page, and rename the folder into place."""
    output = job.settle_output()
    sections: list[str] = []
    if job.rebuilt is not None:
        results = {**job.manifest.results, **job.rebuilt.results()}
        job.manifest = job.manifest.model_copy(update={"results": results})
        sections.append(rebuilt_section(job.rebuilt, job.flip_images))
    text = page(job.manifest, sections)
    path = job.staged / REPORT
    path.write_text(text, encoding="utf-8")
    files = dict(job.manifest.files)
    files[REPORT] = FileRecord(size=path.stat().st_size, sha256=file_sha256(path))
    job.manifest = job.manifest.model_copy(update={"files": files})
    _save(job)
    for name in carry_over(output, job.manifest, job.staged):
        job.report.note(
            f"category {name!r} was made for the older build and is gone: "
            f"adcompile category add {output} {name} --data DIR"
        )
    publish(job.staged, output, replace=job.options.force)
    return BuildResult(
        path=output,
        manifest=job.manifest,
        ok=job.ok,
        notes=job.report.notes,
        rebuilt=job.rebuilt,
        steps=job.cache.log,
        seconds=job.seconds(),
        search=job.search,
    )


def _save(job: Job) -> None:
    (job.staged / MANIFEST).write_text(job.manifest.dump(), encoding="utf-8")


def _move_golden(job: Job, records: dict[str, FileRecord]) -> None:
    """Golden tensors were recorded into scratch space; they become files of the bundle."""
    root = job.work / "golden"
    if not root.is_dir():
        return
    shutil.move(root, job.staged / "golden")
    _list_files(job.staged, "golden", records)


def _list_files(root: Path, folder: str, records: dict[str, FileRecord]) -> None:
    """Add size and hash of every file below *folder* to *records*."""
    for path in sorted((root / folder).rglob("*")):
        if path.is_file():
            name = path.relative_to(root).as_posix()
            records[name] = FileRecord(size=path.stat().st_size, sha256=file_sha256(path))


def _manifest(job: Job, files: dict[str, FileRecord]) -> Manifest:
    return Manifest(
        adcompile=adcompile.__version__,
        model=job.source,
        contract=job.contract,
        target=job.target.name,
        target_facts=dict(job.target.facts),
        options=job.recorded_options(),
        identity=job.identity(),
        pipeline=";".join(job.pipeline),
        roles=dict(job.contract.roles),
        tolerances=default_tolerances(record.precision for record in job.records),
        parts=tuple(job.records),
        golden=tuple(job.golden),
        accuracy=job.accuracy,
        actions=job.files.actions,
        rewrites=tuple(job.report.rewrites),
        tools=tool_versions(),
        files=files,
    )
