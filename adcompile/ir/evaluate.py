"""Run any ``ir.Model`` with ONNX Runtime: the reference semantics of the whole compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir
import onnxruntime as ort

from adcompile.errors import ModelError
from adcompile.interfaces import Array
from adcompile.ir import model_io

_RUN_ERRORS = (RuntimeError, ValueError, TypeError)
INLINE_BELOW = 4096  # bytes; larger weights are handed over without being copied
MAX_HANDED = (1 << 31) - 1


def evaluate(
    model: ir.Model,
    feeds: Mapping[str, Array],
    outputs: Sequence[str] | None = None,
    *,
    optimize: bool = False,
    threads: int = 0,
) -> dict[str, Array]:
    """Execute *model* on *feeds*; returns output name to array.

    *outputs* may name any value of the main graph, also inner ones; None means the graph's outputs.
    Nothing is optimised unless *optimize* is set. ONNX Runtime's refusals become ModelError.
    """
    session = open_model(model, outputs, optimize=optimize, threads=threads)
    names = list(outputs) if outputs is not None else [o.name for o in session.get_outputs()]
    try:
        results = session.run(names, dict(feeds))
    except _RUN_ERRORS as error:
        raise ModelError(
            "ONNX Runtime could not run the model",
            where=model.graph.name or "model",
            why=short_reason(error),
        ) from error
    return dict(zip(names, results, strict=True))


def open_model(
    model: ir.Model,
    outputs: Sequence[str] | None = None,
    *,
    optimize: bool = False,
    threads: int = 0,
) -> ort.InferenceSession:
    """An ONNX Runtime session on *model*, with *outputs* made visible."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        if optimize
        else ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    if outputs is None:
        data = model_io.to_bytes(model)
    else:
        data = _with_outputs(model, outputs)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _RUN_ERRORS as error:
        raise ModelError(
            "ONNX Runtime cannot load the model",
            where=model.graph.name or "model",
            why=short_reason(error),
        ) from error


def short_reason(error: Exception) -> str:
    """ONNX Runtime's message without its code locations, at most 400 characters."""
    text = " ".join(str(error).split())
    return text[:400]


def _with_outputs(model: ir.Model, outputs: Sequence[str]) -> bytes:
    proto = onnx.ModelProto.FromString(model_io.to_bytes(model))
    present = {value.name for value in proto.graph.output}
    infos = {value.name: value for value in proto.graph.value_info}
    known = {name for node in proto.graph.node for name in node.output}
    known |= {value.name for value in proto.graph.input}
    known |= {tensor.name for tensor in proto.graph.initializer}
    for name in dict.fromkeys(outputs):
        if name in present:
            continue
        if name not in known:
            raise ModelError(f"no value is called {name!r}", where=model.graph.name or "model")
        proto.graph.output.append(infos.get(name) or onnx.ValueInfoProto(name=name))
    return proto.SerializeToString()
