"""Run any ``ir.Model`` with ONNX Runtime: the reference semantics of the whole compiler."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Protocol, cast

import onnx
import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.interfaces import Array
from adcompile.ir import model_io
from adcompile.ir.graph import walk

_STATE = "onnxruntime.capi.onnxruntime_pybind11_state"


class SessionValue(Protocol):
    """Name of an input or output of a session."""

    name: str


class Session(Protocol):
    """What we use of ``onnxruntime.InferenceSession``, which has no type stubs."""

    def run(self, output_names: list[str], input_feed: dict[str, Array]) -> list[Array]:
        """Execute once."""
        ...

    def get_inputs(self) -> list[SessionValue]:
        """The inputs that must be fed."""
        ...

    def get_outputs(self) -> list[SessionValue]:
        """The outputs, in the model's order."""
        ...


class _Options(Protocol):
    log_severity_level: int
    intra_op_num_threads: int
    graph_optimization_level: object


class _OptionsType(Protocol):
    def __call__(self) -> _Options: ...


class _SessionType(Protocol):
    def __call__(self, data: bytes, options: _Options, *, providers: list[str]) -> Session: ...


class _Levels(Protocol):
    ORT_ENABLE_ALL: object
    ORT_DISABLE_ALL: object


class _Ort(Protocol):
    SessionOptions: _OptionsType
    InferenceSession: _SessionType
    GraphOptimizationLevel: _Levels


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """Everything ONNX Runtime raises; most of it derives from Exception only."""
    own = vars(importlib.import_module(_STATE)).values()
    found = [kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*found, RuntimeError, ValueError, TypeError)


def runtime() -> _Ort:
    """The ``onnxruntime`` module, imported on first use."""
    return cast(_Ort, importlib.import_module("onnxruntime"))


@cache
def runtime_operators() -> frozenset[tuple[str, str]]:
    """Domain and type of every operator that the installed ONNX Runtime knows."""
    schemas = vars(importlib.import_module(_STATE))["get_all_operator_schema"]()
    return frozenset((str(schema.domain), str(schema.name)) for schema in schemas)


def foreign_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes that ONNX Runtime cannot execute: of a domain of their own, without a function body."""
    known = runtime_operators() | {(domain, name) for domain, name, _ in model.functions}
    bodies = [node for function in model.functions.values() for node in walk(function)]
    return [
        node
        for node in (*walk(model.graph), *bodies)
        if node.domain not in {"", "ai.onnx"} and (node.domain, node.op_type) not in known
    ]


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
    except runtime_errors() as error:
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
) -> Session:
    """An ONNX Runtime session on *model*, with *outputs* made visible."""
    ort = runtime()
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
    except runtime_errors() as error:
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
    return model_io.serialized(proto)
