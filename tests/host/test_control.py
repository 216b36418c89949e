"""Control flow, buffer planning and dynamic shapes: generated C++ against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from adcompile.errors import InputError
from tests.host.support import CHECKED, Array, assert_like_reference, build, model

F = np.float32

# Two carried values that swap: each next value looks at the other's memory.
SWAP = """
g (int64 n, float[3] a, float[3] b) => (float[3] p, float[3] q) {
  yes = Constant <value = bool {1}> ()
  p, q = Loop (n, yes, a, b) <body = body (int64 i, bool c, float[3] x, float[3] y)
    => (bool c2, float[3] x2, float[3] y2) {
      c2 = Identity (c)
      x2 = Identity (y)
      y2 = Add (x, y)
  }>
}"""

# A list that grows by one row per trip, and a scan output; the outer value `w` is captured.
GROW = """
g (int64 n, float[2] w) => (float[r, 2] rows, float[s, 2] seen) {
  yes = Constant <value = bool {1}> ()
  none = Constant <value = float[0, 2] {}> ()
  zero = Constant <value_ints = [0]> ()
  rows, seen = Loop (n, yes, none) <body = body (int64 i, bool c, float[k, 2] have)
    => (bool c2, float[m, 2] more, float[2] one) {
      c2 = Identity (c)
      f = Cast <to = 1> (i)
      one = Add (w, f)
      row = Unsqueeze (one, zero)
      more = Concat <axis = 0> (have, row)
  }>
}"""

# A loop that stops by its own condition, inside a branch; the other branch passes a value through.
BRANCH = """
g (bool pick, float[4] x) => (float[4] y) {
  y = If (pick) <
    then_branch = t () => (float[4] a) {
      many = Constant <value = int64 {100}> ()
      yes = Constant <value = bool {1}> ()
      a = Loop (many, yes, x) <body = body (int64 i, bool c, float[4] v) => (bool go, float[4] w) {
        w = Add (v, v)
        top = ReduceMax <keepdims = 0> (w)
        limit = Constant <value = float {50.0}> ()
        go = Less (top, limit)
      }>
    },
    else_branch = e () => (float[4] b) { b = Identity (x) }
  >
}"""

SCAN = """
g (float[2] start, float[5, 2] xs) => (float[2] last, float[5, 2] sums) {
  last, sums = Scan <num_scan_inputs = 1, body = body (float[2] acc, float[2] x)
    => (float[2] next, float[2] out) {
      next = Add (acc, x)
      out = Mul (next, x)
  }> (start, xs)
}"""

# What a detector does: order, suppress, look up, pool regions, put rows back.
DETECT = """
g (float[1, 8, 12, 12] map, float[40, 4] boxes, float[40] scores) => (float[n, 8, 2, 2] pooled) {
  one = Constant <value_ints = [1]> ()
  zero = Constant <value_ints = [0]> ()
  b3 = Unsqueeze (boxes, zero)
  zz = Constant <value_ints = [0, 1]> ()
  s3 = Unsqueeze (scores, zz)
  limit = Constant <value_ints = [1000]> ()
  iou = Constant <value_floats = [0.5]> ()
  low = Constant <value_floats = [0.3]> ()
  kept = NonMaxSuppression (b3, s3, limit, iou, low)
  two = Constant <value = int64 {2}> ()
  keep = Gather <axis = 1> (kept, two)
  chosen = Gather <axis = 0> (boxes, keep)
  k = Shape (keep)
  images = ConstantOfShape <value = int64[1] {0}> (k)
  regions = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 2,
    spatial_scale = 0.25, coordinate_transformation_mode = "output_half_pixel">
    (map, chosen, images)
  shape = Shape (regions)
  base = ConstantOfShape <value = float[1] {0.0}> (shape)
  range_0 = Constant <value = int64 {0}> ()
  range_1 = Constant <value = int64 {1}> ()
  scalar = Squeeze (k, zero)
  order = Range (range_0, scalar, range_1)
  tail = Constant <value_ints = [-1, 1, 1, 1]> ()
  column = Reshape (order, tail)
  full = Expand (column, shape)
  pooled = ScatterElements <axis = 0> (base, full, regions)
}"""

TEXTS = {"swap": SWAP, "grow": GROW, "branch": BRANCH, "scan": SCAN, "detect": DETECT}


def boxes(count: int, seed: int) -> Array:
    """Random boxes x1 y1 x2 y2 on a 48 × 48 picture."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 18, (count, 2))], axis=1).astype(F)


@pytest.fixture(scope="module")
def models() -> dict[str, ir.Model]:
    return {name: model(text) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def library(models: dict[str, ir.Model], tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    return build(list(models.items()), tmp_path_factory.mktemp("control"), CHECKED)


def random(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape).astype(F)


@pytest.mark.parametrize("trips", [0, 1, 2, 7])
def test_carried_values_that_look_at_each_other(
    trips: int, library: HostLibrary, models: dict[str, ir.Model]
) -> None:
    """A swap in a loop is not torn by moving one value over the other."""
    feeds = {"n": np.array(trips), "a": random(3), "b": random(3) + 1}
    assert_like_reference(library, "swap", models["swap"], feeds)


@pytest.mark.parametrize("trips", [0, 1, 40])
def test_loop_that_appends(trips: int, library: HostLibrary, models: dict[str, ir.Model]) -> None:
    """A growing carried value and a scan output, from no trip to many."""
    part = library.part("grow")
    for count in (trips, trips + 3, trips):  # buffers are reused between runs
        w = np.array([0.5, -1.0], F)
        got = part.run({"n": np.array(count), "w": w})
        wanted = w + np.arange(count, dtype=F)[:, np.newaxis]
        np.testing.assert_array_equal(got["rows"], wanted.reshape(count, 2))
        np.testing.assert_array_equal(got["seen"], wanted.reshape(count, 2))
    part.close()


@pytest.mark.parametrize("pick", [True, False])
def test_loop_inside_a_branch(
    pick: bool, library: HostLibrary, models: dict[str, ir.Model]
) -> None:
    """The loop's own condition ends it; the other arm hands its input through."""
    feeds = {"pick": np.array(pick), "x": np.array([1, 2, 3, 4], F)}
    assert_like_reference(library, "branch", models["branch"], feeds)


def test_scan(library: HostLibrary, models: dict[str, ir.Model]) -> None:
    """State and stacked results of a Scan."""
    assert_like_reference(
        library, "scan", models["scan"], {"start": random(2), "xs": random(5, 2)}
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_detector_head(seed: int, library: HostLibrary, models: dict[str, ir.Model]) -> None:
    """Suppression, region pooling and row scatter, with a data-dependent number of rows."""
    scores = np.random.default_rng(seed).uniform(0, 1, 40).astype(F)
    feeds = {"map": random(1, 8, 12, 12), "boxes": boxes(40, seed), "scores": scores}
    assert_like_reference(library, "detect", models["detect"], feeds)


def test_no_detection_is_an_empty_result(library: HostLibrary) -> None:
    """No score above the limit: zero rows of the right shape, no crash."""
    part = library.part("detect")
    feeds = {"map": random(1, 8, 12, 12), "boxes": boxes(40, 0), "scores": np.zeros(40, F)}
    assert part.run(feeds)["pooled"].shape == (0, 8, 2, 2)
    part.close()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("boxes", {"boxes": np.zeros((40, 4))}),
        ("scores", {"scores": np.zeros((41,), F)}),
        ("map", {"map": np.zeros((8, 12, 12), F)}),
    ],
)
def test_wrong_input_is_refused_by_name(
    name: str, change: dict[str, Array], library: HostLibrary
) -> None:
    """Element type, size and rank are checked before anything runs."""
    part = library.part("detect")
    feeds = {"map": random(1, 8, 12, 12), "boxes": boxes(40, 0), "scores": np.zeros(40, F)}
    with pytest.raises(InputError, match=f"'{name}'"):
        part.run({**feeds, **change})
    part.close()


def test_bad_index_is_an_error_not_a_read(tmp_path: Path) -> None:
    """An index out of range stops with a sentence."""
    made = model("g (float[4] x, int64[2] i) => (float[2] y) { y = Gather <axis = 0> (x, i) }")
    part = build([("look", made)], tmp_path).part("look")
    with pytest.raises(InputError, match="index 4 out of 4"):
        part.run({"x": np.zeros(4, F), "i": np.array([0, 4])})
    part.close()


def test_appending_loop_has_no_copy_of_the_list() -> None:
    """The growing Concat writes into the carried buffer itself."""
    text = generate([("grow", model(GROW))]).parts[0].text
    assert "op::append(" in text
    assert "op::concat(" not in text


def test_expanded_row_indices_are_never_built() -> None:
    """Expand of a column of row numbers before ScatterElements disappears."""
    text = generate([("detect", model(DETECT))]).parts[0].text
    assert "op::scatter_rows(" in text
    assert "op::expand(" not in text


def test_same_model_same_text() -> None:
    """Generation is deterministic."""
    first, second = (generate([("d", model(DETECT))]) for _ in range(2))
    assert first.files == second.files
    assert first.weights.file() == second.weights.file()
