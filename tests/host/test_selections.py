"""Chosen channels: the choice moves before enlarging and joining, and is read where it lies."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.backends.host.codegen.early import with_early_moves
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from adcompile.ir.evaluate import evaluate
from tests.anomaly.distances import distance_model
from tests.host.support import CHECKED, Array, build, model

NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
LINEAR = 'mode = "linear"'
CUBIC = 'mode = "cubic"'
SOME = [9, 1, 4, 12, 2]


def chosen(
    resize: str, inputs: str, index: list[int], *, batch: int = 1, kind: str = "int64"
) -> ir.Model:
    """Two maps, the second enlarged to the first, joined to 14 channels; some of them."""
    numbers = ", ".join(map(str, index))
    return model(
        f"""net (float[{batch}, 5, 6, 10] a, float[{batch}, 9, 3, 5] b) => (float[n, k, h, w] y)
        <float[4] scales = {{1, 1, 2, 2}}, float[2] two = {{2, 2}}, float[3] three = {{1, 2, 2}},
         int64[4] sizes = {{{batch}, 9, 6, 10}}, {kind}[{len(index)}] index = {{{numbers}}}> {{
          large = Resize <{resize}> (b, {inputs})
          joined = Concat <axis = 1> (a, large)
          y = Gather <axis = 1> (joined, index)
        }}""",
        opset=18,
    )


MOVED = {
    "nearest": chosen(NEAREST, ", scales", SOME),
    "linear": chosen(LINEAR, ", scales", SOME, batch=2),
    "cubic": chosen(CUBIC, ", scales", SOME),
    "by_size": chosen(LINEAR, ", , sizes", SOME),
    "by_axes": chosen(LINEAR + ", axes = [2, 3]", ", two", SOME),
    "by_more_axes": chosen(LINEAR + ", axes = [-3, 2, 3]", ", three", SOME),
    "twice": chosen(NEAREST, ", scales", [13, 0, 13, 0, 7, 0]),
    "from_behind": chosen(NEAREST, ", scales", [-1, 0, -14, -3]),
    "int32": chosen(NEAREST, ", scales", SOME, kind="int32"),
    "ascending": chosen(NEAREST, ", scales", [0, 3, 5, 13]),
    "first_only": chosen(NEAREST, ", scales", [4, 0, 2]),
    "second_only": chosen(NEAREST, ", scales", [7, 5]),
    "exactly_the_first": chosen(NEAREST, ", scales", [0, 1, 2, 3, 4]),
    "all_of_one": chosen(NEAREST, ", scales", [8, 3, 2, 1, 0, 4]),
}

BODIES = {
    # as anomalib exports it: one map after the other joined
    "nested": """net (float[1, 3, 4, 4] a, float[1, 4, 2, 2] b, float[1, 5, 1, 1] c)
      => (float[1, 5, 4, 4] y) <float[4] s = {1, 1, 2, 2}, float[4] t = {1, 1, 4, 4},
      int64[5] index = {11, 0, 5, 2, 7}> {
        l = Resize <mode = "nearest"> (b, , s)  j = Concat <axis = 1> (a, l)
        k = Resize <mode = "nearest"> (c, , t)  i = Concat <axis = -3> (j, k)
        y = Gather <axis = -3> (i, index) }""",
    "last_axis": """net (float[2, 3] a, float[2, 4] b) => (float[2, 3] y)
      <int64[3] index = {6, 0, 2}> { j = Concat <axis = 1> (a, b)  y = Gather <axis = 1> (j, index) }""",
    "joined_again": """net (float[1, 8, 3, 4] a, float[1, 2, 3, 4] b) => (float[1, 5, 3, 4] y)
      <int64[3] index = {6, 0, 2}> { g = Gather <axis = 1> (a, index)  y = Concat <axis = 1> (b, g) }""",
    "joined_rows": """net (float[2, 3, 8] a, float[2, 3, 2] b) => (float[2, 3, 7] y)
      <int64[5] index = {6, 0, 2, 2, 7}> { g = Gather <axis = 2> (a, index)
      y = Concat <axis = 2> (b, g) }""",
}

STAYS = {
    "everything": chosen(NEAREST, ", scales", list(range(13, -1, -1))),
    "other_axis": model(
        """net (float[1, 3, 4] a, float[1, 3, 4] b) => (float[1, 6, 2] y)
        <int64[2] index = {3, 0}> { j = Concat <axis = 1> (a, b)  y = Gather <axis = 2> (j, index) }"""
    ),
    "one_number": model(
        """net (float[1, 3, 4] a, float[1, 3, 4] b) => (float[1, 4] y)
        <int64 index = {3}> { j = Concat <axis = 1> (a, b)  y = Gather <axis = 1> (j, index) }"""
    ),
    # 4 · 1.2 is 4 again, but the coordinates move
    "moved_channels": model(
        """net (float[1, 4, 2, 2] a) => (float[1, 2, 4, 4] y) <float[4] s = {1, 1.2, 2, 2},
        int64[2] index = {3, 1}> { l = Resize <mode = "nearest"> (a, , s)
        y = Gather <axis = 1> (l, index) }"""
    ),
    "both_read": model(
        """net (float[1, 3, 4] a, float[1, 3, 4] b) => (float[1, 2, 4] y, float[1, 6, 4] j)
        <int64[2] index = {3, 0}> { j = Concat <axis = 1> (a, b)  y = Gather <axis = 1> (j, index) }"""
    ),
    "given_indices": model(
        """net (float[1, 3, 4] a, float[1, 3, 4] b, int64[2] index) => (float[1, 2, 4] y) {
        j = Concat <axis = 1> (a, b)  y = Gather <axis = 1> (j, index) }"""
    ),
}


def distance(kind: str) -> ir.Model:
    """The distance of channels chosen from a map, by indices of a type."""
    rng = np.random.default_rng(1)
    mean = rng.random((3, 20), dtype=np.float32)
    made = distance_model(
        "WhitenedMap", (2, 8, 4, 5), mean, rng.random((2, 6, 16), dtype=np.float32)
    )
    form = made.graph[0]
    index = np.array([6, -8, 2], kind)
    constant = ir.Value(name="index", const_value=ir.tensor(index, name="index"))
    constant.dtype, constant.shape = ir.DataType.from_numpy(index.dtype), ir.Shape([3])
    made.graph.register_initializer(constant)
    node = ir.node("Gather", [made.graph.inputs[0], constant], {"axis": 1}, name="choice")
    node.outputs[0].name, node.outputs[0].dtype = "few", ir.DataType.FLOAT
    node.outputs[0].shape = ir.Shape([2, 3, 4, 5])
    made.graph.insert_before(form, node)
    form.replace_input_with(0, node.outputs[0])
    return made


DISTANCES = {f"distance_{kind}": distance(kind) for kind in ("int64", "int32")}
BODY_MODELS = {name: model(text) for name, text in BODIES.items()}
ALL = MOVED | BODY_MODELS | STAYS | DISTANCES


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """All models in one library, undefined behaviour checked."""
    return build(list(ALL.items()), tmp_path_factory.mktemp("chosen"), ("-O0", *CHECKED[1:]))


def feeds_of(made: ir.Model) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    feeds: dict[str, Array] = {}
    for value in made.graph.inputs:
        shape = [d for d in value.shape or () if isinstance(d, int)]
        numbers: npt.NDArray[np.float64] = rng.standard_normal(shape)
        integers = value.dtype is ir.DataType.INT64
        feeds[value.name or ""] = (
            np.arange(len(numbers)) if integers else numbers.astype(np.float32)
        )
    return feeds


@pytest.mark.parametrize("name", ALL)
def test_the_same_numbers(name: str, library: HostLibrary) -> None:
    """The moved graph gives ONNX Runtime's bits for the graph as it was; so does C++, to rounding."""
    made, feeds = ALL[name], feeds_of(ALL[name])
    moved = with_early_moves(made)
    assert (moved is made) == (name in STAYS or name.startswith(("joined", "distance")))
    found = library.part(name).run(feeds)
    wanted, again = evaluate(made, feeds), evaluate(moved, feeds)
    for key, value in wanted.items():
        np.testing.assert_array_equal(again[key], value)
        np.testing.assert_allclose(found[key], np.asarray(value, float), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MOVED)
def test_only_what_is_chosen_is_enlarged(name: str) -> None:
    """No Resize makes more channels than are chosen, no join more than there are chosen ones."""
    moved = with_early_moves(MOVED[name])
    index = next(v.const_value for n, v in MOVED[name].graph.initializers.items() if n == "index")
    assert index is not None
    few = len(np.unique(index.numpy()))
    for node in moved.graph:
        if node.op_type in {"Resize", "Concat"}:
            shape = node.outputs[0].shape
            assert shape is not None
            assert shape[1] <= few
    resizes = [n for n in moved.graph if n.op_type == "Resize"]
    assert len(resizes) == (0 if name in {"first_only", "exactly_the_first"} else 1)
    last = moved.graph.outputs[0].producer()
    ordered = name not in {"ascending", "exactly_the_first"}
    assert (last is not None and last.op_type == "Gather") == ordered


def test_distances_read_chosen_channels_where_they_lie() -> None:
    """No tensor of chosen channels is made for a distance."""
    for name, made in DISTANCES.items():
        text = " ".join(generate([(name, made)]).files[f"parts/{name}.cpp"].split())
        assert re.search(r"op::whitened_map\(.*op::gathered\(e, index, 1\), u, v\)", text)
        assert "op::gather(" not in text
