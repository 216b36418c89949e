"""Bad model files: each is refused with a clear error, quickly, and nothing else happens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from adcompile.errors import AdcompileError, ModelError, PassError, UsageError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.shapes import infer_shapes
from adcompile.passes.check_weights import CheckWeights
from adcompile.passes.inline_functions import InlineFunctions
from adcompile.passes.specialize import Specialize
from adcompile.rewrite.canonical import canonical

SECONDS = 20  # far above what any case takes, far below an endless loop


def value(name: str, *dims: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def proto(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto] = (),  # type: ignore[assignment]
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    inputs: list[onnx.ValueInfoProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 2)] if inputs is None else inputs,
        [value(o, 2) for o in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(op: str, ins: str, outs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ins.split(), outs.split(), **attributes)


RELU = node("Relu", "x", "y")
GOOD = proto([node("Add", "x w", "a"), node("Relu", "a", "y")],
             [numpy_helper.from_array(np.arange(2, dtype=np.float32), "w")])  # fmt: skip


def deep(levels: int) -> onnx.ModelProto:
    """If inside If inside If …"""
    graph = helper.make_graph([node("Identity", "x", "o0")], "b", [], [value("o0", 2)])
    for i in range(1, levels):
        inner = node("If", "c", f"o{i}", then_branch=graph, else_branch=graph)
        graph = helper.make_graph([inner], "b", [], [value(f"o{i}", 2)])
    top = node("If", "c", "y", then_branch=graph, else_branch=graph)
    return proto([top], inputs=[value("x", 2), value("c", kind=TensorProto.BOOL)])


def nested_bytes(levels: int) -> bytes:
    """Raw bytes of a graph attribute inside a node inside a graph …, without building it."""
    data = b""
    for _ in range(levels):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            data = bytes([tag]) + _varint(len(data)) + data
    return b"\x08\x09\x3a" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def tensor(name: str, dims: list[int], raw: bytes, kind: int = TensorProto.FLOAT):
    return TensorProto(name=name, dims=dims, data_type=kind, raw_data=raw)


def function_ring() -> onnx.ModelProto:
    model = proto([helper.make_node("f", ["x"], ["y"], domain="d")])
    imports = [helper.make_opsetid("d", 1)]
    for one, other in (("f", "g"), ("g", "f")):
        call = helper.make_node(other, ["p"], ["q"], domain="d")
        model.functions.append(helper.make_function("d", one, ["p"], ["q"], [call], imports))
    model.opset_import.extend(imports)
    return model


def sparse(index: int, size: int = 4) -> onnx.ModelProto:
    model = proto([node("Add", "x s", "y")])
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    places = numpy_helper.from_array(np.asarray([index], np.int64), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [size]))
    return model


# name, the bytes or model, a part of the message
BYTES: list[tuple[str, bytes | onnx.ModelProto, str]] = [
    ("empty file", b"", "the file is empty"),
    ("text", b"hello, this is no model at all", "not an ONNX model"),
    ("image", b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG image"),
    ("zip", b"PK\x03\x04" + bytes(100), "zip archive"),
    ("pickle", b"\x80\x02}q\x00.", "pickle"),
    ("git lfs pointer", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ("web page", b"<!DOCTYPE html><html></html>", "web page"),
    ("zeros", bytes(1000), "not an ONNX model"),
    ("truncated", GOOD.SerializeToString()[:-10], "cut off"),
    ("truncated early", GOOD.SerializeToString()[:20], "cut off"),
    ("no graph", onnx.ModelProto(ir_version=9).SerializeToString(), "no graph"),
    ("nested 200 deep", nested_bytes(200), "nested deeper"),
    ("duplicate value", proto([RELU, node("Abs", "x", "y")]), "produced twice"),
    ("value shadows input", proto([node("Relu", "x", "x")], outputs=("x",)), "produced twice"),
    ("dangling input", proto([node("Relu", "nowhere", "y")]), "which nothing produces"),
    ("dangling output", proto([node("Relu", "x", "z")]), "produced by nothing"),
    (
        "cycle",
        proto([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Abs", "a", "y")]),
        "cycle",
    ),
    ("self cycle", proto([node("Add", "x y", "y")]), "cycle"),
    (
        "two inputs of one name",
        proto([RELU], inputs=[value("x", 2), value("x", 2)]),
        "two graph inputs",
    ),
    ("nameless input", proto([RELU], inputs=[value("x", 2), value("", 2)]), "without a name"),
    (
        "two initializers of one name",
        proto([node("Add", "x w", "y")], [tensor("w", [2], bytes(8)), tensor("w", [2], bytes(8))]),
        "two initializers",
    ),
    ("nameless initializer", proto([RELU], [tensor("", [2], bytes(8))]), "without a name"),
    (
        "too little data",
        proto([node("Add", "x w", "y")], [tensor("w", [2], bytes(7))]),
        "wrong size",
    ),
    (
        "too much data",
        proto([node("Add", "x w", "y")], [tensor("w", [2], bytes(12))]),
        "wrong size",
    ),
    (
        "big weight with too little data",
        proto([node("Add", "x w", "y")], [tensor("w", [2000], bytes(7999))]),
        "wrong size",
    ),
    (
        "negative dimension",
        proto([node("Add", "x w", "y")], [tensor("w", [-2], bytes(8))]),
        "negative",
    ),
    (
        "dimensions that overflow",
        proto([node("Add", "x w", "y")], [tensor("w", [2**62, 2**62], b"")]),
        "too large",
    ),
    (
        "100 dimensions",
        proto([node("Add", "x w", "y")], [tensor("w", [1] * 100, bytes(4))]),
        "100 dimensions",
    ),
    (
        "unknown element type",
        proto([node("Add", "x w", "y")], [tensor("w", [2], bytes(8), 99)]),
        "element type",
    ),
    (
        "no element type",
        proto([node("Add", "x w", "y")], [tensor("w", [2], bytes(8), 0)]),
        "element type",
    ),
    ("huge declared input", proto([RELU], inputs=[value("x", 2**40, 2**20)]), "too large"),
    ("negative declared input", proto([RELU], inputs=[value("x", -1, 3)]), "negative"),
    ("opset 0", proto([RELU], opset=0), "opset 0 is not supported"),
    ("opset of the future", proto([RELU], opset=99), "opset 99 is not supported"),
    ("node without operator", proto([node("", "x", "y")]), "without an operator"),
    ("unknown operator", proto([node("Magic", "x", "y")]), "unknown operator 'Magic'"),
    ("unknown domain", proto([helper.make_node("M", ["x"], ["y"], domain="d")]), "domain 'd'"),
    ("functions in a circle", function_ring(), "in a circle"),
    ("sparse index outside", sparse(9), "outside its shape"),
    ("sparse too large", sparse(0, 2**33), "too large"),
    (
        "external data in bytes",
        proto(
            [node("Add", "x w", "y")],
            [
                TensorProto(
                    name="w",
                    dims=[2],
                    data_type=1,
                    data_location=1,
                    external_data=[onnx.StringStringEntryProto(key="location", value="w.bin")],
                )
            ],
        ),
        "external data",
    ),
]


@pytest.mark.parametrize(("case", "model", "message"), BYTES, ids=[b[0] for b in BYTES])
def test_bad_bytes(case: str, model: bytes | onnx.ModelProto, message: str) -> None:
    """Refused as a ModelError (exit code 2) that says what and where, in bounded time."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    start = time.perf_counter()
    with pytest.raises(ModelError) as error:
        model_io.from_bytes(data, f"{case}.onnx")
    assert message in str(error.value)
    assert error.value.exit_code == 2
    assert f"{case}.onnx" in error.value.where
    assert time.perf_counter() - start < SECONDS


def test_future_ir_version() -> None:
    """A newer file format is refused by number."""
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    model.ir_version = 999
    with pytest.raises(ModelError, match="IR version 999 is newer"):
        model_io.from_bytes(model.SerializeToString())


def test_no_opset_at_all() -> None:
    """A model must say which operators it means."""
    model = onnx.ModelProto()
    model.CopyFrom(GOOD)
    del model.opset_import[:]
    with pytest.raises(ModelError, match="declares no opset"):
        model_io.from_bytes(model.SerializeToString())


def test_deep_but_legal_nesting_is_fine() -> None:
    """Twelve Ifs inside each other load; protobuf's own limit is far above."""
    assert model_io.from_bytes(deep(6).SerializeToString()) is not None


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path that is no file is an error that shows the path."""
    with pytest.raises(ModelError, match="no such file"):
        model_io.load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a file"):
        model_io.load_model(tmp_path)


# external data


def external(folder: Path, location: str, size: int = 8, **entries: str) -> Path:
    """A model in *folder* whose weight w (2 floats) lies at *location*; the good file is w.bin."""
    (folder / "w.bin").write_bytes(bytes(size))
    weight = TensorProto(name="w", dims=[2], data_type=1, data_location=1)
    for key, text in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=text)
    path = folder / "m.onnx"
    path.write_bytes(proto([node("Add", "x w", "y")], [weight]).SerializeToString())
    return path


def _link(folder: Path) -> None:
    (folder / "link.bin").symlink_to(folder / "w.bin")


def _linked_folder(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "real" / "w.bin").write_bytes(bytes(8))
    (folder / "linked").symlink_to(folder / "real")


def _hard(folder: Path) -> None:
    os.link(folder / "w.bin", folder / "hard.bin")


def _nothing(folder: Path) -> None:
    del folder


EXTERNAL: list[tuple[str, str, dict[str, str], Callable[[Path], None], str]] = [
    ("climbs out", "../w.bin", {}, _nothing, "outside the model's folder"),
    ("climbs out inside", "a/../../w.bin", {}, _nothing, "outside the model's folder"),
    ("absolute", "/etc/hostname", {}, _nothing, "outside the model's folder"),
    ("drive letter", "C:w.bin", {}, _nothing, "outside the model's folder"),
    ("backslashes", "..\\w.bin", {}, _nothing, "outside the model's folder"),
    ("empty location", "", {}, _nothing, "outside the model's folder"),
    ("nul byte", "w\0.bin", {}, _nothing, "outside the model's folder"),
    ("missing", "v.bin", {}, _nothing, "is missing"),
    ("symbolic link", "link.bin", {}, _link, "symbolic link"),
    ("folder is a link", "linked/w.bin", {}, _linked_folder, "symbolic link"),
    ("hard link", "hard.bin", {}, _hard, "hard link"),
    ("the folder itself", ".", {}, _nothing, "outside the model's folder"),
    ("negative offset", "w.bin", {"offset": "-4"}, _nothing, "wrong size"),
    ("offset behind the end", "w.bin", {"offset": "4"}, _nothing, "too short"),
    ("enormous offset", "w.bin", {"offset": str(2**70)}, _nothing, "too short"),
    ("wrong length", "w.bin", {"length": "4"}, _nothing, "wrong size"),
    ("length is no number", "w.bin", {"length": "many"}, _nothing, "not a number"),
]


@pytest.mark.parametrize(("case", "location", "entries", "prepare", "message"), EXTERNAL,
                         ids=[e[0] for e in EXTERNAL])  # fmt: skip
def test_bad_external_data(
    case: str,
    location: str,
    entries: dict[str, str],
    prepare: Callable[[Path], None],
    message: str,
    tmp_path: Path,
) -> None:
    """External data must be a plain file of the right size inside the model's folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(8))
    path = external(folder, location, **entries)
    prepare(folder)
    with pytest.raises(ModelError) as error:
        model_io.load_model(path)
    assert message in str(error.value), case


def test_good_external_data_is_mapped(tmp_path: Path) -> None:
    """The same file without a fault loads, also at an offset."""
    model = model_io.load_model(external(tmp_path, "w.bin", size=20, offset="12", length="8"))
    assert model.graph.initializers["w"].const_value.numpy().tolist() == [0.0, 0.0]


def test_truncated_data_file(tmp_path: Path) -> None:
    """A data file that was cut off is found before anything reads it."""
    with pytest.raises(ModelError, match="too short"):
        model_io.load_model(external(tmp_path, "w.bin", size=7))


# models that load and cannot be used


def test_nan_weights_are_refused_unless_allowed() -> None:
    """NaN in a weight stops the pipeline; --allow nan-weights makes it a note."""
    weight = numpy_helper.from_array(np.asarray([1, np.nan], np.float32), "w")
    data = proto([node("Add", "x w", "y")], [weight]).SerializeToString()
    with pytest.raises(ModelError) as error:
        canonical().run(model_io.from_bytes(data), Report())
    assert "contains NaN" in error.value.what
    assert "nan-weights" in error.value.fix
    report = Report(allowed=frozenset({"nan-weights"}))
    CheckWeights().run(model_io.from_bytes(data), report)
    assert "contains 1 NaN" in report.notes[0]


def test_infinite_weights_and_single_nans_are_fine() -> None:
    """Masks use infinity, fill values may be NaN."""
    weights = [
        numpy_helper.from_array(np.asarray([1, np.inf], np.float32), "w"),
        numpy_helper.from_array(np.asarray(np.nan, np.float32), "n"),
    ]
    model = proto([node("Add", "x w", "a"), node("Add", "a n", "y")], weights)
    CheckWeights().run(model_io.from_bytes(model.SerializeToString()), Report())


def test_unknown_domains_load_and_stay() -> None:
    """An operator of a domain nobody knows is kept as it is."""
    model = proto([helper.make_node("Magic", ["x"], ["y"], domain="com.unknown")])
    model.opset_import.append(helper.make_opsetid("com.unknown", 1))
    loaded = model_io.from_bytes(model.SerializeToString())
    canonical().run(loaded, Report())
    assert [n.op_type for n in loaded.graph] == ["Magic"]


def test_operators_older_than_their_opset() -> None:
    """An operator that came later than the model's opset is refused with both numbers."""
    model = proto([node("HardSwish", "x", "y")], opset=11)
    with pytest.raises(ModelError, match="HardSwish") as error:
        model_io.from_bytes(model.SerializeToString())
    assert "opset 14" in error.value.why


def test_contradicting_shapes() -> None:
    """Shapes that cannot be are an error, not a silent skip."""
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    model = proto([node("MatMul", "x w", "y")], [weight], inputs=[value("x", 2, 5)])
    with pytest.raises(ModelError, match="contradict"):
        infer_shapes(model_io.from_bytes(model.SerializeToString()))


def test_function_bomb() -> None:
    """Functions that would expand to billions of nodes are refused, not expanded."""
    model = proto([helper.make_node("f30", ["x"], ["y"], domain="d")])
    imports = [helper.make_opsetid("d", 1), helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["p"], ["q"])]
    model.functions.append(helper.make_function("d", "f0", ["p"], ["q"], body, imports))
    for i in range(1, 31):
        calls = [
            helper.make_node(f"f{i - 1}", ["p"], ["a"], domain="d"),
            helper.make_node(f"f{i - 1}", ["a"], ["q"], domain="d"),
        ]
        model.functions.append(helper.make_function("d", f"f{i}", ["p"], ["q"], calls, imports))
    model.opset_import.append(helper.make_opsetid("d", 1))
    start = time.perf_counter()
    with pytest.raises(ModelError, match="too many nodes"):
        InlineFunctions().run(model_io.from_bytes(model.SerializeToString()), Report())
    assert time.perf_counter() - start < SECONDS


def test_function_tower() -> None:
    """Functions that call functions, thousands of levels deep, do not exhaust the stack."""
    model = proto([helper.make_node("f0", ["x"], ["y"], domain="d")])
    imports = [helper.make_opsetid("d", 1), helper.make_opsetid("", 17)]
    for i in range(3000):
        call = helper.make_node(f"f{i + 1}", ["p"], ["q"], domain="d")
        leaf = helper.make_node("Relu", ["p"], ["q"])
        body = [call if i < 2999 else leaf]
        model.functions.append(helper.make_function("d", f"f{i}", ["p"], ["q"], body, imports))
    model.opset_import.append(helper.make_opsetid("d", 1))
    with pytest.raises(ModelError, match="too deeply"):
        InlineFunctions().run(model_io.from_bytes(model.SerializeToString()), Report())


def test_constants_that_would_explode_are_not_folded() -> None:
    """A Tile or ConstantOfShape of gigabytes stays an operator."""
    shape = numpy_helper.from_array(np.asarray([100_000, 100_000], np.int64), "s")
    nodes = [
        node("ConstantOfShape", "s", "a"),
        node("ReduceSum", "a", "b", keepdims=0),
        node("Add", "x b", "y"),
    ]
    model = model_io.from_bytes(proto(nodes, [shape]).SerializeToString())
    start = time.perf_counter()
    canonical().run(model, Report())
    assert [n.op_type for n in model.graph] == ["ConstantOfShape", "ReduceSum", "Add"]
    assert time.perf_counter() - start < SECONDS


OPEN = proto([RELU], inputs=[value("x", "N", 2)])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (("x:2x3",), "has the fixed size 2 at dimension 1"),
        (("x:2",), "has 2 dimensions, the shape 1"),
        (("z:2x2",), "has no input 'z'"),
        (("x:2xtwo",), "cannot read the input shape"),
        (("x:2x2", "x:2x2"), "given two shapes"),
        (("x:99999999999x2",), "too large"),
    ],
)
def test_bad_input_shapes(shapes: tuple[str, ...], message: str) -> None:
    """--input-shape must name an input and fit it."""
    with pytest.raises(UsageError, match=message):
        Specialize(shapes=shapes).run(model_io.from_bytes(OPEN.SerializeToString()), Report())


def test_open_dimension_without_a_value() -> None:
    """When everything must be fixed, the message gives the option to type."""
    with pytest.raises(ModelError) as error:
        Specialize(static=True).run(model_io.from_bytes(OPEN.SerializeToString()), Report())
    assert "--input-shape x=Nx2" in error.value.fix


# any damage at all


@given(data=st.data())
@settings(max_examples=80)
def test_mutated_bytes_never_crash(data: st.DataObject) -> None:
    """A valid file with bytes changed, removed or inserted loads, or is refused as a ModelError;
    what loads goes through the pipeline, or is refused there."""
    good = data.draw(st.sampled_from([GOOD.SerializeToString(), deep(2).SerializeToString()]))
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(("set", "drop", "insert", "cut")))
        if how == "set":
            raw[place] = data.draw(st.integers(0, 255))
        elif how == "drop" and len(raw) > 1:
            del raw[place]
        elif how == "insert":
            raw.insert(place, data.draw(st.integers(0, 255)))
        elif place:
            del raw[place:]
    try:
        model = model_io.from_bytes(bytes(raw))
        canonical().run(model, Report(allowed=frozenset({"nan-weights"})))
        model_io.to_bytes(model)
    except PassError:
        raise  # a defect of ours, not of the input
    except AdcompileError:
        pass
