"""The onnx package's node test cases, as host parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from adcompile.backends.host.codegen.facts import walk
from adcompile.backends.host.codegen.literals import TYPES
from adcompile.backends.host.codegen.tables import TABLE
from adcompile.ir.shapes import infer_shapes
from benchmarks.conformance import node_folder

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class NodeCase:
    """One case: its model, the data sets and tolerances (those of the onnx package)."""

    name: str
    folder: Path
    rtol: float = 1e-3
    atol: float = 1e-7

    def model(self) -> ir.Model:
        """The model with shapes and types inferred."""
        model = ir.load(self.folder / "model.onnx")
        infer_shapes(model)
        return model

    def first_inputs(self) -> list[Path]:
        """Files of the first data set's inputs, in order."""
        return _numbered(self.folder / "test_data_set_0", "input")

    def data(self, model: ir.Model) -> Iterator[tuple[dict[str, Array], list[Array]]]:
        """Feeds and expected outputs of every data set."""
        names = [v.name or "" for v in model.graph.inputs]
        for folder in sorted(self.folder.glob("test_data_set_*")):
            inputs = [read_tensor(p) for p in _numbered(folder, "input")]
            outputs = [read_tensor(p) for p in _numbered(folder, "output")]
            yield dict(zip(names, inputs, strict=False)), outputs


def _numbered(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))


def read_tensor(path: Path) -> Array:
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


@cache
def all_cases() -> list[NodeCase]:
    """Every node case of the package whose operators are in the table."""
    return [
        NodeCase(model.parent.name.removeprefix("test_"), model.parent)
        for model in sorted(node_folder().glob("*/model.onnx"))
        if _covered(onnx.load(model))
    ]


def _covered(model: onnx.ModelProto) -> bool:
    types = [v.type for v in (*model.graph.input, *model.graph.output)]
    if not all(t.HasField("tensor_type") for t in types):
        return False
    known = {d.value for d in TYPES}
    if not all(t.tensor_type.elem_type in known for t in types):
        return False
    return all(
        node.domain == "" and (node.op_type in TABLE or node.op_type == "Constant")
        for node in walk(ir.from_proto(model.graph))
    )


def claimed(model: ir.Model) -> bool:
    """True when the table claims every operator with the types that the model uses."""
    for node in walk(model.graph):
        op = TABLE.get(node.op_type)
        if op is None:
            continue
        if model.opset_imports.get("", 0) < op.since:
            return False
        wanted = {op.key: op.types, **(op.others or {})}
        for i, types in wanted.items():
            value = node.inputs[i] if i < len(node.inputs) else None
            if value is not None and value.dtype not in types:
                return False
    return True
