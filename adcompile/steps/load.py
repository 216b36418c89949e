"""Step 1: from whatever the user gave to a checked model, its identity and its contract."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import onnx_ir as ir

from adcompile.contract import Contract
from adcompile.errors import ModelError, UsageError
from adcompile.interfaces import Report
from adcompile.ir import graph, model_io
from adcompile.ir.emit import model_digest
from adcompile.ir.evaluate import foreign_nodes
from adcompile.job import Job
from adcompile.manifest import ModelRecord, file_sha256
from adcompile.passes.set_attribute import parse_setting
from adcompile.passes.specialize import real_inputs
from adcompile.rewrite.pipeline import Pipeline
from adcompile.steps.decoding import Decoding, settle_contract
from adcompile.steps.input_shapes import choose_shapes
from adcompile.steps.inputs import wants_golden

FITTED_MODEL = "model.onnx"
CONFIG = "config.yaml"  # of a fitted folder


@runtime_checkable
class Serializable(Protocol):
    """An ``onnx.ModelProto``, or anything that turns into the bytes of one."""

    def SerializeToString(self) -> bytes:
        """The model as protobuf bytes."""
        ...


Source = str | Path | bytes | ir.Model | Serializable


def load(job: Job, source: Source) -> None:
    """Read and check the model; keep an untouched reference beside the one that is compiled."""
    job.watch("load")
    model, name, digest = _open(source)
    for text in job.options.settings:  # the user's model is the changed one: the reference too
        change = parse_setting(text)
        change.run(model, job.report)
        job.pipeline.append(f"set: {Pipeline((change,))}")
    if isinstance(source, (str, Path)) and (Path(source) / CONFIG).is_file():
        job.folder = Path(source)
    specs = tuple(graph.tensor_spec(v) for v in real_inputs(model))
    results = tuple(graph.tensor_spec(v) for v in model.graph.outputs)
    job.source = ModelRecord(
        name=name, sha256=digest, opset=graph.opset(model), inputs=specs, outputs=results
    )
    job.reference = model
    job.ir = model.clone()
    job.shapes, inside = choose_shapes(model, specs, job.options.input_shapes, job.report, name)
    fixed = tuple(s.model_copy(update={"shape": job.shapes.get(s.name, s.shape)}) for s in specs)
    job.source = job.source.model_copy(update={"inputs": fixed})
    _check_executable(job, model, name)
    decoding = settle_contract(
        model,
        fixed,
        given=job.options.contract,
        preset=job.options.preprocess,
        asked=job.options.decoder,
        classes=job.options.classes,
    )
    _decode(job, decoding)
    if inside and job.options.contract is None:
        job.contract = _as_in_graph(job.contract, inside)
    for note in decoding.notes:
        job.report.note(note)


def _decode(job: Job, decoding: Decoding) -> None:
    """Let the model, and the reference that it is compared with, end in detections."""
    if decoding.append is not None:
        decoding.apply(job.reference, Report())
        decoding.apply(job.ir, job.report)
        job.pipeline.append(f"decode: {decoding.append}")
        results = tuple(graph.tensor_spec(v) for v in job.reference.graph.outputs)
        job.source = job.source.model_copy(update={"outputs": results})
    job.contract, job.outputs = decoding.contract, decoding.outputs


def _check_executable(job: Job, model: ir.Model, name: str) -> None:
    """Golden data needs a run of the model, so an operator that nothing can run is said now."""
    foreign = foreign_nodes(model)
    if not foreign:
        return
    node = foreign[0]
    what = f"{node.domain}::{node.op_type}"
    if wants_golden(job):
        raise ModelError(
            f"operator {what} cannot be executed",
            where=f"{name}: node {node.name or node.outputs[0].name!r}",
            why="ONNX Runtime does not know it, and the model has no function of that name",
            fix="export it as an ONNX function, or build unverified in a float precision "
            "(--verify none)",
        )
    job.report.note(f"{what} was never executed: nothing here can run it")


def _as_in_graph(contract: Contract, inputs: set[str]) -> Contract:
    """ONNX's linear Resize does not antialias; neither may the resize that takes its place."""
    changed = {
        name: rule.model_copy(update={"resample": "cv_bilinear"}) if name in inputs else rule
        for name, rule in contract.inputs.items()
    }
    return contract.model_copy(update={"inputs": changed})


def _open(source: Source) -> tuple[ir.Model, str, str]:
    """The model, a name for it, and the SHA-256 of its bytes."""
    if isinstance(source, ir.Model):
        return source.clone(), source.graph.name or "model", model_digest(source)
    if isinstance(source, bytes):
        return model_io.from_bytes(source), "model", hashlib.sha256(source).hexdigest()
    if isinstance(source, (str, Path)):
        return _open_path(Path(source))
    if not hasattr(source, "SerializeToString"):
        raise UsageError(
            f"cannot compile a {type(source).__name__}",
            fix="give a path, bytes, an onnx.ModelProto or an onnx_ir.Model; "
            "a torch module goes through torch.onnx.export first",
        )
    data = source.SerializeToString()
    return model_io.from_bytes(data), "model", hashlib.sha256(data).hexdigest()


def _open_path(path: Path) -> tuple[ir.Model, str, str]:
    file = model_file(path)
    name = path.name if path.is_dir() else path.stem
    return model_io.load_model(file), name, file_sha256(file)


def model_file(path: Path) -> Path:
    """The ONNX file that a user names: *path* itself, or the one in a folder written by ``fit``.

    Raises UsageError for a folder without one.
    """
    if not path.is_dir():
        return path
    file = path / FITTED_MODEL
    if not file.is_file():
        raise UsageError(
            "folder holds no model",
            where=str(path),
            why=f"it has no {FITTED_MODEL}",
            fix="give an .onnx file, or a folder written by adcompile fit",
        )
    return file
