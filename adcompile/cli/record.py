"""``adcompile record``: run the float reference over images and keep what crosses part borders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.options import DecoderName, InputShapes, ModelPath, parse_shapes
from adcompile.fileset import scratch

if TYPE_CHECKING:
    from adcompile.job import BuildOptions, Job


def find_sources(data: Path, images: Path | None) -> tuple[dict[str, Path], list[str]]:
    """Name to file of every image of a folder (with subfolders) or a COCO file; and notes.

    Images that a COCO file lists but that are not there are left out and noted.
    """
    from adcompile.errors import InputError, UsageError
    from adcompile.runtime.images import SUFFIXES

    if data.suffix.lower() == ".json":
        from adcompile.detection.coco import read_coco

        coco = read_coco(data, images or data.parent)
        missing = {entry.id for entry in coco.missing(coco.images)}
        found = {e.file_name: coco.path(e) for e in coco.images if e.id not in missing}
        notes = [f"{len(missing)} images of {data.name} are not there"] if missing else []
    else:
        if images is not None:
            raise UsageError("--images goes with a COCO file", where=str(data))
        if not data.is_dir():
            raise InputError("no such folder of images", where=str(data))
        files = sorted(p for p in data.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        found = {p.relative_to(data).as_posix(): p for p in files}
        notes = []
    if not found:
        raise InputError(
            "there is no image", where=str(data), fix="expected " + ", ".join(SUFFIXES)
        )
    return found, notes


def plan_parts(model: Path, target: str, options: BuildOptions, work: Path) -> Job:
    """The steps of a build up to the parts; *work* is scratch space that outlives the result."""
    from adcompile.job import Job
    from adcompile.steps.load import load
    from adcompile.steps.placing import place_and_partition
    from adcompile.steps.rewriting import canonicalize, prepare, raise_heads, specialize

    job = Job.create(target, None, options, None, work)
    load(job, model)
    specialize(job)
    canonicalize(job)
    raise_heads(job)
    prepare(job)
    place_and_partition(job)
    return job


def command(
    model: ModelPath,
    data: Annotated[Path, typer.Option(help="folder of images, or a COCO annotation file")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder of the recording")],
    target: Annotated[str, typer.Option("--target", "-t", help="whose parts")] = "npu",
    max_samples: Annotated[int, typer.Option(help="images to keep", min=1)] = 32,
    images: Annotated[Path | None, typer.Option(help="folder of a COCO file's images")] = None,
    precision: Annotated[str | None, typer.Option(help="of the planned device parts")] = None,
    input_shape: InputShapes = None,
    preprocess: Annotated[str | None, typer.Option(help="unit (0…1), imagenet, raw")] = None,
    contract: Annotated[Path | None, typer.Option(help="contract as YAML or JSON")] = None,
    decoder: DecoderName = None,
    plan: Annotated[Path | None, typer.Option(help="use this plan.yaml")] = None,
    max_gib: Annotated[float, typer.Option(help="stop when the files take this much")] = 8.0,
    rows: Annotated[int, typer.Option(help="regions to keep per image", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="of the random choice")] = 0,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Record the tensors between the parts of MODEL over images; run again to continue."""
    from adcompile.check.recorder import record
    from adcompile.check.recording import identity_of
    from adcompile.declare import read_contract
    from adcompile.ir.graph import tensor_spec
    from adcompile.job import BuildOptions

    sources, notes = find_sources(data, images)
    limit = int(max_gib * (1 << 30))
    options = BuildOptions(
        precision=precision,
        input_shapes=parse_shapes(input_shape),
        preprocess=preprocess,
        contract=None if contract is None else read_contract(contract),
        decoder=decoder,
        plan=plan,
    )
    with scratch() as work, console.progress() as view:
        task = view.add_task("plan", total=None)
        job = plan_parts(model, target, options, work)
        inputs = [tensor_spec(value) for value in job.ir.graph.inputs]
        outputs = [tensor_spec(value) for value in job.ir.graph.outputs]
        identity = identity_of(job.source.sha256, job.parts, job.contract, seed, rows)
        view.update(task, total=min(max_samples, len(sources)))
        recording = record(
            job.parts,
            inputs,
            outputs,
            sources,
            output,
            identity=identity,
            contract=job.contract,
            max_samples=max_samples,
            max_bytes=limit,
            threads=threads,
            watch=lambda text, done, _total: view.update(task, description=text, completed=done),
        )
    index = recording.index
    size = sum(f.size for s in index.samples for f in s.files.values())
    left = min(max_samples, len(sources) - len(index.skipped)) - len(recording)
    if left > 0 and size >= limit:
        notes = [*notes, f"stopped at --max-gib with {left} images left; a larger one goes on"]
    if json:
        console.emit_json(
            {
                "recording": str(output),
                "samples": [s.source for s in index.samples],
                "tensors": list(recording.tensors()),
                "bytes": size,
                "skipped": index.skipped,
                "notes": notes,
            }
        )
        return
    for note in notes:
        console.say(f"note: {note}")
    for name, why in index.skipped.items():
        console.say(f"skipped {name}: {why}")
    count = len(recording.tensors())
    console.say(
        f"{len(recording)} samples, {count} tensors each, {size / 2**20:,.1f} MiB: {output}"
    )
