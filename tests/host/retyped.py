"""Node test cases in element types that the onnx package has no case for.

A case is taken whose operator is the only node; its tensors of the operator's type become tensors
of another, in the model and in the data. What is right then comes from onnx's reference evaluator:
for floats from the same model in double precision, rounded at the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import helper
from onnx.reference import ReferenceEvaluator

from adcompile.backends.host.codegen.registry import FLOATS, T
from adcompile.backends.host.codegen.tables import STANDARD
from adcompile.ir.shapes import infer_shapes
from tests.host.nodecases import NodeCase, all_cases, claimed, read_tensor

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Retyped:
    """One operator in one element type: its model, feeds and the right results."""

    name: str
    model: ir.Model
    feeds: dict[str, Array]
    wanted: list[Array]


def numpy_type(dtype: T) -> np.dtype[np.generic]:
    """The numpy type of an element type."""
    if dtype is T.BFLOAT16:
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype.numpy())


def same_parameter(proto: onnx.ModelProto, key: int) -> set[str]:
    """Tensors of the only node that share the type parameter of its input *key*."""
    node = proto.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, proto.opset_import[0].version)
    wanted = schema.inputs[key].type_str
    names: set[str] = set()
    for given, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for i, name in enumerate(given):
            if formal[min(i, len(formal) - 1)].type_str == wanted:
                names.add(name)
    return names


def with_type(proto: onnx.ModelProto, names: set[str], dtype: T) -> onnx.ModelProto:
    """A copy in which the inputs and outputs *names* have another type; checked by ONNX."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for value in (*made.graph.input, *made.graph.output):
        if value.name in names:
            value.type.tensor_type.elem_type = dtype.value
    onnx.checker.check_model(made, full_check=True)
    return made


def in_type(array: Array, dtype: T) -> Array:
    """The data in another type; whole numbers keep some spread, unsigned ones lose the sign."""
    to = numpy_type(dtype)
    if dtype is T.BOOL:
        return array > 0
    values = array.astype(np.float64)
    if dtype not in FLOATS:
        values = np.nan_to_num(values)
        values = np.clip(np.rint(values * 3 if array.dtype.kind == "f" else values), -50, 50)
        values = np.abs(values) if to.kind == "u" else values
    return values.astype(to)


def retype(case: NodeCase, key: int, dtype: T) -> Retyped | None:
    """*case* with *dtype* for input *key*; None when ONNX or the reference does not know it."""
    proto = onnx.load(case.folder / "model.onnx")
    names = same_parameter(proto, key)
    wide = T.DOUBLE if dtype in FLOATS else dtype
    try:
        narrow_model = with_type(proto, names, dtype)
        wide_model = with_type(proto, names, wide)
    except Exception:  # onnx raises its own kinds, and RuntimeError
        return None
    feeds: dict[str, Array] = {}
    full: dict[str, Array] = {}
    for value, path in zip(proto.graph.input, case.first_inputs(), strict=False):
        array = read_tensor(path)
        changed = in_type(array, dtype) if value.name in names else array
        feeds[value.name] = changed
        full[value.name] = changed.astype(numpy_type(wide)) if value.name in names else array
    try:
        results = [np.asarray(r) for r in ReferenceEvaluator(wide_model).run(None, full)]
    except Exception:  # a numpy error of any kind: the reference lacks this type
        return None
    for value, result in zip(narrow_model.graph.output, results, strict=True):
        # Sizes that depend on the data (Unique, Compress) are those of the changed data.
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for size in result.shape:
            shape.dim.add().dim_value = size
    kinds = [v.type.tensor_type.elem_type for v in narrow_model.graph.output]
    wanted = [r.astype(numpy_type(T(k))) for r, k in zip(results, kinds, strict=True)]
    model = ir.from_proto(narrow_model)
    infer_shapes(model)
    name = (
        f"{case.name}_as_{helper.tensor_dtype_to_string(dtype.value).rpartition('.')[2].lower()}"
    )
    return Retyped(name, model, feeds, wanted) if claimed(model) else None


def single(case: NodeCase) -> tuple[str, T] | None:
    """Operator and its element type when the case is that one operator."""
    model = case.model()
    nodes = list(model.graph)
    op = STANDARD.get(nodes[0].op_type) if len(nodes) == 1 else None
    if op is None or op.control or not claimed(model) or len(nodes[0].inputs) <= op.key:
        return None
    value = nodes[0].inputs[op.key]
    return None if value is None or value.dtype is None else (nodes[0].op_type, value.dtype)


def missing(skip: set[str]) -> Iterator[tuple[str, T, list[tuple[NodeCase, T]]]]:
    """Operator, a type that the table claims and no case has, and cases to make one from."""
    cases: dict[str, list[tuple[NodeCase, T]]] = {}
    for case in all_cases():
        if case.name in skip or "training" in case.name:
            continue
        if (found := single(case)) is not None:
            cases.setdefault(found[0], []).append((case, found[1]))
    for name, known in cases.items():
        known.sort(key=lambda entry: entry[1] is not T.FLOAT)
        for dtype in STANDARD[name].types:
            if all(have is not dtype for _, have in known):
                yield name, dtype, known


def retyped_cases(skip: set[str]) -> tuple[list[Retyped], list[str]]:
    """All that can be made, and ``Op type`` of what cannot."""
    made: list[Retyped] = []
    left: list[str] = []
    # Numbers out of an operator's range give NaN on both sides: nothing to warn of.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _collect(skip, made, left)
    return made, left


def _collect(skip: set[str], made: list[Retyped], left: list[str]) -> None:
    for name, dtype, cases in missing(skip):
        found = (retype(case, STANDARD[name].key, dtype) for case, _ in cases[:8])
        first = next((r for r in found if r is not None), None)
        if first is None:
            left.append(f"{name} {dtype.name}")
        else:
            made.append(first)
