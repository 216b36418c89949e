"""Reading and writing models: nothing is lost, nothing copied, the same model gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from adcompile.errors import InputError, ModelError
from adcompile.ir import model_io
from adcompile.ir.dump import dump
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import constant
from adcompile.ir.slim import BIG, slim
from adcompile.ir.wire import diagnose
from tests.rewrite.build import model
from tests.rewrite.random_models import random_model

RNG = np.random.default_rng(3)


def weights_model(*sizes: int, dtype: type = np.float32) -> onnx.ModelProto:
    """x plus every weight, one after the other."""
    nodes, tensors, x = [], [], "x"
    for i, size in enumerate(sizes):
        tensors.append(numpy_helper.from_array(RNG.normal(size=size).astype(dtype), f"w{i}"))
        nodes.append(helper.make_node("Add", [x, f"w{i}"], [f"y{i}"]))
        x = f"y{i}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = [helper.make_tensor_value_info(n, kind, None) for n in ("x", x)]
    info[0].CopyFrom(helper.make_tensor_value_info("x", kind, [1]))
    info[1].CopyFrom(helper.make_tensor_value_info(x, kind, ["N"]))
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


@given(seed=st.integers(0, 10_000), size=st.integers(0, 15))
def test_random_models_survive_a_round_trip(seed: int, size: int) -> None:
    """Load, save, load: the same text, the same bytes, the same results."""
    proto, feeds = random_model(seed, size)
    first = model_io.from_bytes(proto.SerializeToString())
    data = model_io.to_bytes(first)
    second = model_io.from_bytes(data)
    assert dump(second) == dump(first)
    assert model_io.to_bytes(second) == data
    onnx.checker.check_model(onnx.load_from_string(data))
    a, b = evaluate(first, feeds), evaluate(second, feeds)
    assert all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_survive(tmp_path: Path, external: bool) -> None:
    """Small and large weights, inside and beside the file, in order and byte for byte."""
    proto = weights_model(3, BIG, 10, 3 * BIG)
    m = model_io.from_bytes(proto.SerializeToString())
    path = tmp_path / "m.onnx"
    model_io.save_model(m, path, external=external)
    assert (tmp_path / "m.onnx.data").exists() == external
    onnx.checker.check_model(str(path))
    found = arrays(onnx.load(str(path)))
    assert list(found) == list(arrays(proto))
    assert all(np.array_equal(found[k], v) for k, v in arrays(proto).items())
    again = model_io.load_model(path)
    assert dump(again) == dump(m)
    assert model_io.to_bytes(again) == model_io.to_bytes(m)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """Both forms are reproducible, and leave no other file behind."""
    m = model_io.from_bytes(weights_model(BIG, 5).SerializeToString())
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).mkdir()
        model_io.save_model(m, tmp_path / name / "m.onnx", external=True)
    files = sorted(p.name for p in (tmp_path / "a.onnx").iterdir())
    assert files == ["m.onnx", "m.onnx.data"]
    for file in files:
        a, b = (tmp_path / n / file for n in ("a.onnx", "b.onnx"))
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("external", [False, True])
def test_a_model_may_be_saved_over_itself(tmp_path: Path, external: bool) -> None:
    """The weights that are still mapped from the old file reach the new one."""
    path = tmp_path / "m.onnx"
    proto = weights_model(BIG, 2 * BIG)
    model_io.save_model(model_io.from_bytes(proto.SerializeToString()), path, external=external)
    m = model_io.load_model(path)
    model_io.save_model(m, path, external=external)
    found = arrays(onnx.load(str(path)))
    assert all(np.array_equal(found[k], v) for k, v in arrays(proto).items())


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    """A large weight is neither copied nor read while loading; it cannot be written to."""
    path = tmp_path / "m.onnx"
    path.write_bytes(weights_model(BIG).SerializeToString())
    tensor = model_io.load_model(path).graph.initializers["w0"].const_value
    array = tensor.numpy()
    assert not array.flags.owndata
    assert not array.flags.writeable
    assert tensor.numpy() is array


def test_unaligned_weights_are_handed_out_aligned() -> None:
    """Raw data may start at any byte of a file; constant() gives what native code can read."""
    proto = weights_model(BIG)
    for shift in range(4):
        proto.producer_name = "p" * shift
        m = model_io.from_bytes(proto.SerializeToString())
        array = constant(m.graph.initializers["w0"])
        assert array is not None
        assert array.flags.aligned
        assert np.array_equal(array, arrays(proto)["w0"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int64])
def test_types(dtype: type) -> None:
    """Every plain element type passes through the lean reader and writer."""
    proto = weights_model(2 * BIG, dtype=dtype)
    again = onnx.load_from_string(
        model_io.to_bytes(model_io.from_bytes(proto.SerializeToString()))
    )
    assert np.array_equal(arrays(again)["w0"], arrays(proto)["w0"])


def test_typed_data_and_strings_survive() -> None:
    """float_data instead of raw bytes, and string tensors."""
    proto = weights_model(2)
    values = [float(i) for i in range(BIG)]
    proto.graph.initializer.append(helper.make_tensor("v", TensorProto.FLOAT, [BIG], values))
    proto.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"]))
    again = onnx.load_from_string(
        model_io.to_bytes(model_io.from_bytes(proto.SerializeToString()))
    )
    assert arrays(again)["v"].tolist() == values
    assert arrays(again)["t"].tolist() == [b"a", b"b"] or arrays(again)["t"].tolist() == ["a", "b"]


def test_four_bit_weights_survive() -> None:
    """Packed types keep their packing, above and below the size for views."""
    for size in (8, 4 * BIG):
        proto = weights_model(2)
        raw = bytes(i % 251 for i in range(size // 2))
        packed = helper.make_tensor("q", TensorProto.INT4, [size], raw, raw=True)
        proto.graph.initializer.append(packed)
        proto.opset_import[0].version = 21
        proto.ir_version = 10
        again = onnx.load_from_string(
            model_io.to_bytes(model_io.from_bytes(proto.SerializeToString()))
        )
        (found,) = (t for t in again.graph.initializer if t.name == "q")
        assert found.raw_data == packed.raw_data


def test_sparse_weights_become_dense() -> None:
    """Sparse initializers are not dropped."""
    proto = weights_model(4)
    values = numpy_helper.from_array(np.asarray([5, 6], np.float32), "s")
    places = numpy_helper.from_array(np.asarray([1, 3], np.int64), "")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    m = model_io.from_bytes(proto.SerializeToString())
    assert m.graph.initializers["s"].const_value.numpy().tolist() == [0, 5, 0, 6]


def test_constants_in_every_form_become_initializers() -> None:
    """Constant nodes of all kinds, except as outputs, where a node has to be."""
    m = model(
        "g () => (float a, float[2] b, int64 c, int64[2] d, float[1] e) "
        "{ f = Constant<value_float=1.5>() h = Constant<value_floats=[1.0, 2.0]>() "
        "i = Constant<value_int=3>() j = Constant<value_ints=[4, 5]>() "
        "a = Identity(f) b = Identity(h) c = Identity(i) d = Identity(j) "
        "e = Constant<value = float[1] {7}>() }"
    )
    assert [n.op_type for n in m.graph].count("Constant") <= 1
    found = evaluate(m, {})
    assert [found[k].tolist() for k in "abcde"] == [1.5, [1, 2], 3, [4, 5], [7]]


def test_unsorted_graphs_are_sorted() -> None:
    """Nodes in any order load, also when only a subgraph needs the later value."""
    proto = weights_model(3, 4)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    m = model_io.from_bytes(proto.SerializeToString())
    assert [n.outputs[0].name for n in m.graph] == ["y0", "y1"]


def test_slim_takes_only_large_raw_data() -> None:
    """What is left for protobuf is small; damaged files come back whole."""
    data = weights_model(BIG, 4).SerializeToString()
    found = slim(memoryview(data))
    assert list(found.places) == ["w0"]
    offset, length = found.places["w0"]
    assert length == 4 * BIG
    assert data[offset : offset + length] not in found.data
    assert len(found.data) < len(data) - length + 32
    assert slim(memoryview(data[:-3])).data == data[:-3]


def test_diagnose() -> None:
    """Reasons for people, for what is not ONNX."""
    assert diagnose(b"") == "the file is empty"
    assert "HDF5" in diagnose(b"\x89HDF\r\n")
    assert "missing" in diagnose(b"\x3a\x64abc")


def test_unwritable_places(tmp_path: Path) -> None:
    """A folder that is a file, or a target that is a folder: a clear error, nothing half written."""
    m = model_io.from_bytes(weights_model(2).SerializeToString())
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        model_io.save_model(m, tmp_path / "file" / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        model_io.save_model(m, tmp_path / "folder.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_more_than_two_gigabytes_need_a_data_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """to_bytes refuses before it allocates anything."""
    m = model_io.from_bytes(weights_model(BIG).SerializeToString())
    monkeypatch.setattr(model_io, "MAX_PROTO_BYTES", 1 << 20)
    with pytest.raises(ModelError, match="too large for one message"):
        model_io.to_bytes(m)


def test_metadata_survives() -> None:
    """Metadata of nodes, values and the model, and doc strings, are kept."""
    m = model_io.from_bytes(weights_model(2).SerializeToString())
    m.metadata_props["k"] = "v"
    m.graph[0].metadata_props["adcompile.source"] = '["a"]'
    m.graph[0].doc_string = "why"
    again = model_io.from_bytes(model_io.to_bytes(m))
    assert again.metadata_props["k"] == "v"
    assert again.graph[0].metadata_props["adcompile.source"] == '["a"]'
    assert again.graph[0].doc_string == "why"
    assert isinstance(again, ir.Model)
