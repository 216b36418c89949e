"""Values that are no plain numpy tensors: bfloat16, 8-bit floats, tiny integers, sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import adcompile
from adcompile.check.compare import compare
from adcompile.check.tolerance import Tolerances
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import FormatError, InputError
from adcompile.manifest import TensorSpec
from adcompile.runtime.arrays import open_array, open_value, save_array, save_value
from adcompile.runtime.deliver import deliver
from adcompile.runtime.feeds import check_feeds
from adcompile.runtime.narrow import NARROW, narrow_dtype
from adcompile.runtime.session import open_session

QUICK = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)

# what a type cannot hold is left out: signs, zero, more than two bits
NUMBERS = {
    "uint4": (1, 2, 15, 4, 0),
    "uint2": (1, 2, 3, 1, 0),
    "int2": (1, -2, -1, 1, 0),
    "float8_e8m0fnu": (1, 2, 4, 0.5, 8),
}


def model(nodes: list[onnx.NodeProto], given: onnx.ValueInfoProto, result: onnx.ValueInfoProto):
    graph = helper.make_graph(nodes, "values", [given], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)


def cast(start: int, to: int, count: int) -> onnx.ModelProto:
    """A Cast of *count* elements from one ONNX type to another."""
    return model(
        [helper.make_node("Cast", ["x"], ["y"], "cast", to=to)],
        helper.make_tensor_value_info("x", start, [count]),
        helper.make_tensor_value_info("y", to, [count]),
    )


@pytest.mark.parametrize("kind", NARROW.values(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("count", [1, 4, 5])
def test_narrow_types_go_in_and_come_out(kind: object, count: int, tmp_path: Path) -> None:
    """Small whole numbers survive every type, in both directions, in memory and on disk."""
    narrow = next(n for n in NARROW.values() if n is kind)
    numbers = np.array(NUMBERS.get(narrow.name, (1, 2, 3, 4, -2)), np.float32)[-count:]
    packed = numbers.astype(narrow_dtype(narrow.name))
    into = open_session(cast(TensorProto.FLOAT, narrow.number, count).SerializeToString())
    out = open_session(cast(narrow.number, TensorProto.FLOAT, count).SerializeToString())
    made = into.run({"x": numbers})["y"]
    assert (made.dtype, made.tolist()) == (packed.dtype, packed.tolist())
    assert out.run({"x": packed})["y"].tolist() == numbers.tolist()
    assert [spec.dtype for spec in (*out.inputs, *into.outputs)] == [narrow.name] * 2
    save_array(tmp_path / "a.npy", packed)
    again = open_array(tmp_path, "a.npy")
    assert (again.dtype, again.tolist()) == (packed.dtype, packed.tolist())


def test_a_bundle_with_bfloat16_at_its_border_verifies(tmp_path: Path) -> None:
    """Golden data, manifest and run agree on a type that numpy lacks."""
    assert compile(cast(TensorProto.BFLOAT16, 1, 4), "npu", tmp_path / "b", QUICK).ok
    with adcompile.load(tmp_path / "b") as bundle:
        given = np.ones(4, narrow_dtype("bfloat16"))
        assert bundle({"x": given})["y"].tolist() == [1, 1, 1, 1]


def sequence(shape: list[int] | None = None) -> onnx.ModelProto:
    """The reverse of a sequence of two tensors."""
    tensors = [helper.make_node("Constant", [], [f"i{i}"], value_int=i) for i in (0, 1)]
    picks = [helper.make_node("SequenceAt", ["s", f"i{i}"], [f"t{i}"], f"at{i}") for i in (0, 1)]
    join = helper.make_node("SequenceConstruct", ["t1", "t0"], ["r"], "join")
    return model(
        [*tensors, *picks, join],
        helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, shape),
        helper.make_tensor_sequence_value_info("r", TensorProto.FLOAT, shape),
    )


def test_a_sequence_goes_through_a_bundle(tmp_path: Path) -> None:
    """Lists of arrays of different shapes in and out; nobody knows their rank, so the build says that
    it verified nothing, and how it could."""
    result = compile(sequence(), "trt", tmp_path / "b", QUICK)
    assert any("s[0], s[1]" in note and "nothing was verified" in note for note in result.notes)
    assert result.manifest.verified_on == ""
    assert main(["verify", str(tmp_path / "b")]) == 2
    a, b = np.ones((2, 3), np.float32), np.zeros(4, np.float32)
    with adcompile.load(tmp_path / "b") as bundle:
        assert [spec.dtype for spec in bundle.inputs] == ["sequence(float32)"]
        feeds, _ = bundle.feeds({"s": [a, b]})
        found = bundle.run(feeds)
        files = deliver(bundle.manifest, found.outputs, tmp_path).files
    assert files == ["r_0.npy", "r_1.npy"]
    assert [item.tolist() for item in found.outputs["r"]] == [b.tolist(), a.tolist()]
    assert found.parts[0].bytes_in == a.nbytes + b.nbytes


@pytest.mark.parametrize("given", [True, False])
def test_a_sequence_is_verified(given: bool, tmp_path: Path) -> None:
    """From the user's file, or made up where the model tells the shape; one changed item is found."""
    options = QUICK
    if given:
        items = {"s[0]": np.ones((2, 3), np.float32), "s[1]": np.zeros(4, np.float32)}
        np.savez(tmp_path / "s.npz", allow_pickle=False, **items)
        options = replace(QUICK, golden=(tmp_path / "s.npz",))
    result = compile(sequence(None if given else [2, 3]), "trt", tmp_path / "b", options)
    assert result.ok, result.notes
    assert result.manifest.verified_on
    assert result.manifest.results["output r[1] max_abs"] == 0.0
    with adcompile.load(tmp_path / "b") as bundle:
        recorded = open_value(bundle.path, bundle.manifest.golden[0].outputs["r"])
    assert [item.shape for item in recorded] == [(4,), (2, 3)] if given else [(2, 3), (2, 3)]
    changed = {"r": [recorded[0], recorded[1] + 1]}
    found = compare({"r": recorded}, changed, {}, Tolerances.of({}))  # type: ignore[dict-item]
    assert [(c.name, c.ok) for c in found] == [("r", True), ("r[0]", True), ("r[1]", False)]
    short = compare({"r": recorded}, {"r": recorded[:1]}, {}, Tolerances.of({}))
    assert [c.detail for c in short if not c.ok] == [
        "a sequence of 1, the reference is a sequence of 2"
    ]


def test_values_on_disk(tmp_path: Path) -> None:
    """Tensors, sequences (empty ones too) and absent optionals come back; damage is refused."""
    assert save_value(tmp_path / "none.npy", None) is None
    assert open_value(tmp_path, "") is None
    items = [np.ones(2, narrow_dtype("bfloat16")), np.zeros((1, 3), np.int64)]
    for name, value in (("a.npy", items[1]), ("b.npy", items), ("c.npy", [])):
        file = save_value(tmp_path / name, value)
        assert file is not None
        again = open_value(tmp_path, file.name)
        pairs = zip(value, again, strict=True)
        assert all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
    np.savez(tmp_path / "odd.npz", allow_pickle=False, **{"7": np.zeros(1)})
    with pytest.raises(FormatError):
        open_value(tmp_path, "odd.npz")


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("sequence(float32)", np.zeros(3, np.float32), "list of float32"),
        ("sequence(float32)", [np.zeros(3, np.int64)], "wrong type"),
        ("optional(sequence(int64))", [np.zeros(3, np.float32)], "wrong type"),
    ],
)
def test_wrong_sequences_are_refused(dtype: str, value: object, words: str) -> None:
    """What is no list, or a list of other arrays, is said with the type that is wanted."""
    spec = TensorSpec(name="s", dtype=dtype, shape=())
    with pytest.raises(InputError) as caught:
        check_feeds([spec], {"s": value})  # type: ignore[dict-item]
    assert words in str(caught.value)


def test_an_absent_optional_is_none() -> None:
    """None is a value of an optional, and of nothing else."""
    optional = TensorSpec(name="o", dtype="optional(float32)", shape=())
    assert check_feeds([optional], {"o": None}) == {"o": None}  # type: ignore[dict-item]
    tensor = TensorSpec(name="o", dtype="float32", shape=())
    with pytest.raises(InputError):
        check_feeds([tensor], {"o": None})  # type: ignore[dict-item]
