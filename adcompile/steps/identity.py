"""What decides the content of a bundle, as one digest; and reuse of a bundle that is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import adcompile
from adcompile.errors import FormatError, UsageError
from adcompile.interfaces import Pass
from adcompile.job import BUILD_KEY, BuildResult, Job
from adcompile.manifest import check_files, check_seal, file_sha256, read_manifest
from adcompile.rewrite.options import print_pass
from adcompile.steps.search_record import read_search
from adcompile.steps.tools import tool_versions


def build_fields(job: Job) -> dict[str, str]:
    """Everything that decides the bundle: model, target, options, data, versions; no paths."""
    assert job.source is not None
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
        "data": digest_of([p for p in (options.data, options.val) if p is not None]),
        "bank_format": options.bank_format,
        "backend": digest_of([Path(backend.rpartition(":")[0])]) if backend else "",
        "backend_options": json.dumps(dict(sorted(options.backend_options.items()))),
        "budget": options.budget or "",
        "coco": digest_of([options.coco] if options.coco else []),
        "coco_images": digest_of([options.coco_images] if options.coco_images else []),
        "eval_samples": str(options.eval_samples) if options.coco else "",
        "verify": options.verify,
        "host_code": str(options.host_code),
        "seed": str(options.seed),
        "adcompile": adcompile.__version__,
        "tools": json.dumps(tool_versions()),
    }


def digest_of(paths: Iterable[Path]) -> str:
    """One digest over files and folders: relative names and contents, in sorted order."""
    total = hashlib.sha256()
    for root in paths:
        if not root.exists():
            raise UsageError("no such file or folder", where=str(root))
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        for path in files:
            name = path.relative_to(root).as_posix() if root.is_dir() else path.name
            total.update(f"{name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def _pass_identity(item: str | Pass) -> str:
    if isinstance(item, Pass):
        return print_pass(item)
    file = Path(item.rpartition(":")[0])
    return f"{item} {file_sha256(file)}" if file.suffix == ".py" and file.is_file() else item


def reuse(job: Job) -> BuildResult | None:
    """The bundle that is already at the output, when it was built from exactly the same things."""
    job.fields = build_fields(job)
    if not job.options.cache or job.output is None or not job.output.is_dir():
        return None
    try:
        manifest = read_manifest(job.output)
        if manifest.options.get(BUILD_KEY) != job.recorded_options()[BUILD_KEY]:
            return None
        check_seal(job.output)
        check_files(job.output, manifest)
    except FormatError:
        return None  # damaged or foreign: built again, or refused when it cannot be replaced
    ok = manifest.results.get("ok", "yes") == "yes"
    steps = [("build", "reused", "same model, options, data and tool versions; files intact")]
    search = read_search(job.output)
    return BuildResult(job.output, manifest, ok, [], steps, job.seconds(), search)
