"""What decides the content of a bundle, as one digest; and reuse of a bundle that is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from adcompile.errors import FormatError, UsageError
from adcompile.fileset import check_writable, is_empty
from adcompile.interfaces import Pass
from adcompile.job import BUILD_KEY, DIGEST, BuildResult, Job
from adcompile.manifest import MANIFEST, check_files, check_seal, file_sha256, read_manifest
from adcompile.rewrite.options import print_pass
from adcompile.steps.search_record import read_search
from adcompile.steps.tools import tool_versions
from adcompile.version import code_version


def build_fields(job: Job) -> dict[str, str]:
    """Everything that decides the bundle: model, target, options, data, versions; no paths."""
    options = job.options
    backend = options.backend_class
    return {
        "model": job.source.sha256,
        "name": job.source.name,
        "target": f"{job.target.name} {job.target.toolchain}",
        "precision": job.precision,
        "shapes": json.dumps({k: list(v) for k, v in sorted(options.input_shapes.items())}),
        "contract": job.contract.dump(),
        "calib": digest_of([options.calib] if options.calib else []),
        "golden": digest_of(options.golden),
        "golden_count": str(options.golden_count),
        "plan": digest_of([options.plan] if options.plan else []),
        "pins": json.dumps(dict(sorted(options.pins.items()))),
        "allow": json.dumps(sorted(options.allow)),
        "settings": json.dumps(options.settings),
        "passes": json.dumps([_pass_identity(p) for p in options.passes]),
        "head": options.head,
        "data": digest_of([options.data] if options.data else []),
        "val": digest_of([options.val] if options.val else []),
        "bank_format": options.bank_format,
        "backend": digest_of([Path(backend.rpartition(":")[0])]) if backend else "",
        "backend_options": json.dumps(dict(sorted(options.backend_options.items()))),
        "budget": options.budget or "",
        "budget_tries": str(options.budget_tries) if options.budget else "",
        "coco": digest_of([options.coco] if options.coco else []),
        "coco_images": digest_of([options.coco_images] if options.coco_images else []),
        "eval_samples": str(options.eval_samples) if options.coco else "",
        "verify": options.verify,
        "host_code": str(options.host_code),
        "seed": str(options.seed),
        "adcompile": code_version(),
        "tools": json.dumps(tool_versions()),
    }


def digest_of(paths: Iterable[Path]) -> str:
    """One digest over files and folders: relative names and contents, in sorted order; "" for none."""
    total = hashlib.sha256()
    roots = list(paths)
    for root in roots:
        if not root.exists():
            raise UsageError("no such file or folder", where=str(root))
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        for path in files:
            name = path.relative_to(root).as_posix() if root.is_dir() else path.name
            total.update(f"{name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest() if roots else ""


def _pass_identity(item: str | Pass) -> str:
    if isinstance(item, Pass):
        return print_pass(item)
    file = Path(item.rpartition(":")[0])
    return f"{item} {file_sha256(file)}" if file.suffix == ".py" and file.is_file() else item


def identify(job: Job) -> None:
    """Work out what decides the content of this build."""
    job.fields = build_fields(job)


def reuse(job: Job) -> BuildResult | None:
    """The bundle that is already at the output, when it was built from exactly the same things.

    Otherwise the output must be free, or a bundle that ``force`` allows to replace: what cannot be
    written at the end is refused here, before any work. Raises UsageError or InputError.
    """
    output = job.settle_output()
    if not output.exists():
        check_writable(output)
        return None
    if output.is_file() or not ((output / MANIFEST).is_file() or is_empty(output)):
        why = "it is a file" if output.is_file() else "it holds files that are no bundle"
        fix = "choose another -o; --force replaces bundles only"
        raise UsageError("output already exists", where=str(output), why=why, fix=fix)
    check_writable(output)
    if is_empty(output):
        return None
    if job.options.cache and (done := _same(job, output)) is not None:
        return done
    if not job.options.force:
        fix = "choose another -o, or pass --force"
        why = differences(job, output)
        raise UsageError("output already exists", where=str(output), why=why, fix=fix)
    return None


def differences(job: Job, output: Path) -> str:
    """What decides a bundle and differs between the one at *output* and this build."""
    try:
        before = read_manifest(output).identity
    except FormatError as error:
        return error.what
    now = job.identity()
    changed = [name for name in now if before.get(name) != now[name]]
    if not before or not changed:
        return "it is another build, or its files were changed"
    return "it was built with " + ", ".join(_change(n, before.get(n, ""), now[n]) for n in changed)


def _change(name: str, before: str, now: str) -> str:
    what = name.replace("_", " ")
    if not before:
        return f"no {what}"
    if before.startswith(DIGEST):
        return f"other {what}" if now else what
    return f"{what} {before}"


def _same(job: Job, output: Path) -> BuildResult | None:
    try:
        manifest = read_manifest(output)
        if manifest.options.get(BUILD_KEY) != job.recorded_options()[BUILD_KEY]:
            return None
        check_seal(output)
        check_files(output, manifest)
    except FormatError:
        return None  # damaged
    ok = manifest.results.get("ok", "yes") == "yes"
    steps = [("build", "reused", "same model, options, data and tool versions; files intact")]
    search = read_search(output)
    return BuildResult(output, manifest, ok, [], steps, job.seconds(), search)
