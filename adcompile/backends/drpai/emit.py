"""Everything a person with the DRP-AI SDK needs to compile one part with one command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from adcompile.backend_options import float_nodes
from adcompile.backends.drpai.lowering import device_float
from adcompile.backends.drpai.options import Wishes, read_options
from adcompile.backends.drpai.preprocessing import preprocessing_plan
from adcompile.fileset import FileSet
from adcompile.interfaces import Array, CalibrationData, LowerContext, Part
from adcompile.ir.emit import add_model
from adcompile.ir.graph import opset, tensor_spec
from adcompile.ir.model_io import to_bytes
from adcompile.manifest import ActionRecord, PartRecord, TensorSpec
from adcompile.render import render, to_json

MAX_CALIBRATION = 500  # the vendor recommends 100 to 500
REFERENCES = 3
ADDRESS_START = 0
# largest relative error (root of error power over signal power) that compare.py accepts
TOLERANCES = {"int8": 0.2, "fp16": 0.02, "fp32": 0.02}


def emit_part(part: Part, lowered: Part, ctx: LowerContext, out: FileSet) -> PartRecord:
    """Add the part's folder: models, calibration, scripts, reference results, readme."""
    folder = f"parts/{part.name}"
    device = device_float(part)
    files = {"model": add_model(out, f"{folder}/model.onnx", device)}
    files["simulation"] = files["model"]
    if lowered.precision == "int8":
        data = to_bytes(lowered.model)
        files["simulation"] = out.add(f"{folder}/model.int8.onnx", data)
    elif lowered.precision == "fp16":
        data = to_bytes(lowered.model)
        files["simulation"] = out.add(f"{folder}/model.fp16.onnx", data)
    elif part.rows:  # the device's file is for one region; the simulation takes any number
        data = to_bytes(lowered.model)
        files["simulation"] = out.add(f"{folder}/model.fp32.onnx", data)
    specs = tuple(tensor_spec(v) for v in device.graph.inputs)
    results = tuple(tensor_spec(v) for v in device.graph.outputs)
    count = _calibration(out, folder, specs, ctx)
    references = _references(out, folder, specs, results, ctx)
    wishes = read_options(ctx)
    steps = preprocessing_plan(part.model, specs, wishes.camera)
    config = _config(part, lowered.precision, specs, results, count, references, wishes, ctx)
    config["preprocess"] = steps is not None
    files["config"] = out.add(f"{folder}/config.json", to_json(config) + "\n")
    if steps is not None:
        files["preprocess"] = out.add(f"{folder}/preprocess.json", to_json(steps) + "\n")
    legal = compiles(lowered.precision, ctx)
    values: dict[str, object] = {
        "part": part,
        "precision": lowered.precision,
        "target": ctx.target,
        "config": config,
        "preprocess": steps,
        "opset": opset(device),
        "simulation": files["simulation"].rpartition("/")[2],
        "compiles": legal,
        "floats": sorted(float_nodes(ctx.options)),
    }
    if legal:
        out.act(_action(part, folder, files))
    else:
        ctx.report.note(
            f"{part.name}: {ctx.target.title} computes in int8 only. The float part can be run and "
            "compared here, not compiled for the board: build with --precision int8 --calib DIR"
        )
    if (lowered.precision, ctx.target.facts.get("computes")) == ("fp32", "fp16"):
        ctx.report.note(
            f"{part.name}: the chip computes in float16, the simulation in float32; --precision fp16 "
            "shows what the chip computes"
        )
    if floats := float_nodes(ctx.options):
        ctx.report.note(
            f"{part.name}: {len(floats)} nodes are in float in the simulation, but not on the board: "
            "the vendor's quantizer takes no list of nodes. Pin them to the host (--pin NODE=host)"
        )
    for name, executable in _TEXTS if legal else _READ_ONLY:
        key = name.rpartition(".")[0].lower()
        text = render(f"drpai/{name}.j2", values)
        files[key] = out.add(f"{folder}/{name}", text, executable=executable)
    options = {
        "product": ctx.target.facts.get("product", ""),
        "roi_policy": "loop" if part.rows else "",
    }
    return part.record("drpai", lowered.precision, files, options)


def compiles(precision: str, ctx: LowerContext) -> bool:
    """True when the vendor's tools can compile a part of *precision*: some products need int8."""
    return ctx.target.facts.get("computes") != "int8" or precision == "int8"


_READ_ONLY = (("README.md", False),)
_TEXTS = (("run.sh", True), ("compile.py", False), ("compare.py", False), *_READ_ONLY)


def _action(part: Part, folder: str, files: Mapping[str, str]) -> ActionRecord:
    return ActionRecord(
        name=f"compile {part.name} with DRP-AI TVM",
        part=part.name,
        tool="env:TVM_ROOT",
        argv=("sh", f"{folder}/run.sh"),
        inputs=(files["model"], files["config"]),
        outputs=(f"{folder}/compiled/compiled.json",),
        detail=f"run {folder}/run.sh where the DRP-AI SDK is installed",
    )


def _config(
    part: Part,
    precision: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    count: int,
    references: int,
    wishes: Wishes,
    ctx: LowerContext,
) -> dict[str, object]:
    return {
        "part": part.name,
        "product": ctx.target.facts.get("product", ""),
        "precision": precision,
        "model": "model.onnx",
        "inputs": [s.model_dump(mode="json") for s in inputs],
        "outputs": [s.model_dump(mode="json") for s in outputs],
        "calibration": {"folder": "calib", "count": count},
        "reference": {"folder": "reference", "count": references},
        "tolerance": TOLERANCES.get(precision, 0.2),
        "quantization_option": wishes.quantization,
        "cpu_data_type": wishes.cpu_type,
        "drp_compiler_version": "100",
        "addr_map_start": ADDRESS_START,
        "rows": part.rows,
    }


def _rows(data: CalibrationData, by_row: bool) -> Iterator[dict[str, Array]]:
    """One sample per call of the device: rows of a region part are separate samples."""
    for sample in data:
        if not by_row:
            yield sample
            continue
        count = min((a.shape[0] for a in sample.values()), default=0)
        for index in range(count):
            yield {name: a[index : index + 1] for name, a in sample.items()}


def _calibration(
    out: FileSet, folder: str, specs: tuple[TensorSpec, ...], ctx: LowerContext
) -> int:
    """Raw float32 files ``calib/<sample>_<input>.bin``; returns the number of samples."""
    if ctx.calibration is None:
        return 0
    by_row = any(s.shape and s.shape[0] == 1 for s in specs)
    count = 0
    for index, sample in enumerate(islice(_rows(ctx.calibration, by_row), MAX_CALIBRATION)):
        for position, spec in enumerate(specs):
            raw = np.ascontiguousarray(sample[spec.name], dtype=np.float32)
            out.add(f"{folder}/calib/{index:04d}_{position}.bin", raw.tobytes())
        count += 1
    return count


def _references(
    out: FileSet,
    folder: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    ctx: LowerContext,
) -> int:
    """``reference/<sample>/input_<i>.bin`` and ``output_<i>.bin`` of the float model."""
    count = 0
    for feeds, results in ctx.golden:
        if count == REFERENCES or not _complete(feeds, results, inputs, outputs):
            continue
        for group, kind, values in (
            (inputs, "input", feeds),
            (outputs, "output", results),
        ):
            for position, spec in enumerate(group):
                array = values[spec.name]
                if spec.shape and array.ndim and array.shape[0] != spec.shape[0]:
                    array = array[:1]
                raw = np.ascontiguousarray(array, dtype=np.float32)
                out.add(f"{folder}/reference/{count}/{kind}_{position}.bin", raw.tobytes())
        count += 1
    return count


def _complete(
    feeds: Mapping[str, Array],
    results: Mapping[str, Array],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> bool:
    present = [feeds.get(s.name) for s in inputs] + [results.get(s.name) for s in outputs]
    return all(a is not None and a.size > 0 for a in present)
