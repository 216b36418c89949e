"""Which values count regions: row-wise ops, near misses, and gathering of rows."""

from __future__ import annotations

import pytest

from adcompile.place.rows import is_rowwise, roi_rows
from tests.place.cases import CASES, Case, Free, X, floats, integer, ints
from tests.place.nets import two_stage_detector

R = Free(("n", 4, 8, 8))
V = Free(("n", 16))
ROWWISE = {
    "relu": Case("Relu", (R,)),
    "add_rows": Case("Add", (R, R)),
    "add_bias": Case("Add", (R, floats(4, 1, 1))),
    "add_batch_one": Case("Add", (R, floats(1, 4, 8, 8))),
    "conv": Case("Conv", (R, floats(6, 4, 3, 3))),
    "deconv": Case("ConvTranspose", (R, floats(4, 5, 2, 2))),
    "gemm": Case("Gemm", (V, floats(8, 16), floats(8)), {"transB": 1}),
    "matmul": Case("MatMul", (V, floats(16, 8))),
    "flatten": Case("Flatten", (R,), {"axis": 1}),
    "reshape_zero": Case("Reshape", (R, ints(0, -1))),
    "reshape_minus": Case("Reshape", (R, ints(-1, 256))),
    "softmax": Case("Softmax", (V,), {"axis": -1}),
    "reduce": Case("ReduceMean", (R,), {"axes": [2, 3]}),
    "reduce_sum": Case("ReduceSum", (R, ints(-1))),
    "transpose": Case("Transpose", (R,), {"perm": [0, 2, 3, 1]}),
    "slice": Case("Slice", (R, ints(0), ints(2), ints(1))),
    "concat": Case("Concat", (R, R), {"axis": 1}),
    "pad": Case("Pad", (R, ints(0, 0, 1, 1, 0, 0, 1, 1))),
    "unsqueeze": Case("Unsqueeze", (V, ints(1))),
    "squeeze": Case("Squeeze", (Free(("n", 4, 1, 1)), ints(2, 3))),
    "resize": CASES["Resize"],
    "tile": Case("Tile", (V, ints(1, 2))),
    "topk": Case("TopK", (V, ints(3)), outputs=2),
    "gather": Case("Gather", (R, ints(0, 2)), {"axis": 1}),
    "split": Case("Split", (R, ints(2, 2)), {"axis": 1}, outputs=2),
    "argmax": Case("ArgMax", (V,), {"axis": 1}),
}
MIXED = {
    "add_other_batch": Case("Add", (R, Free(("m", 4, 8, 8)))),
    "add_lower_rank_rows": Case("Add", (X, Free(("n", 8)))),
    "conv_rows_as_weights": Case("Conv", (X, Free(("n", 4, 3, 3)))),
    "gemm_transposed": Case("Gemm", (Free((16, "n")), floats(16, 8)), {"transA": 1}),
    "flatten_0": Case("Flatten", (R,), {"axis": 0}),
    "reshape_all": Case("Reshape", (R, ints(-1))),
    "reshape_other": Case("Reshape", (R, ints(-1, 4))),
    "reshape_computed": Case("Reshape", (R, integer(2)), result=V),
    "softmax_0": Case("Softmax", (V,), {"axis": 0}),
    "reduce_0": Case("ReduceMean", (R,), {"axes": [0]}),
    "reduce_all": Case("ReduceMean", (R,)),
    "transpose_0": Case("Transpose", (R,), {"perm": [1, 0, 2, 3]}),
    "transpose_default": Case("Transpose", (V,)),
    "slice_0": Case("Slice", (R, ints(0), ints(2), ints(0))),
    "slice_default": Case("Slice", (R, ints(0), ints(2))),
    "concat_0": Case("Concat", (R, R), {"axis": 0}),
    "pad_0": Case("Pad", (V, ints(1, 0, 0, 0))),
    "unsqueeze_0": Case("Unsqueeze", (V, ints(0))),
    "tile_0": Case("Tile", (V, ints(2, 1))),
    "topk_0": Case("TopK", (V, ints(1)), {"axis": 0}, outputs=2),
    "gather_0": Case("Gather", (R, ints(0)), {"axis": 0}),
    "split_0": Case("Split", (Free((4, 8)), ints(2, 2)), {"axis": 0}, outputs=2),
    "cumsum": Case("CumSum", (V, ints(0).reshape(()))),
    "nonzero": Case("NonZero", (V,)),
    "roialign": Case("RoiAlign", (X, Free(("n", 4)), integer("n"))),
}


def rows_of(case: Case) -> frozenset[str]:
    """Inputs of a case that have a free leading dimension, or all when none has."""
    free = [
        f"i{k}"
        for k, value in enumerate(case.inputs)
        if isinstance(value, Free) and value.shape[:1] == ("n",)
    ]
    return frozenset(free or ["i0"])


@pytest.mark.parametrize("name", ROWWISE)
def test_rowwise_nodes_are_known(name: str) -> None:
    """These compute every row by itself."""
    case = ROWWISE[name]
    assert is_rowwise(case.node(), rows_of(case))


@pytest.mark.parametrize("name", MIXED)
def test_nodes_that_mix_rows_are_not_rowwise(name: str) -> None:
    """These move, join or reduce rows, or use them as something else."""
    case = MIXED[name]
    assert not is_rowwise(case.node(), rows_of(case))


def test_rows_follow_from_roi_align_to_the_outputs() -> None:
    """From the pooled features through both heads, and nothing before them."""
    rows = roi_rows(two_stage_detector().graph)
    assert {"box_feat", "fc", "cls", "prob", "mask_feat", "up", "maps"} <= rows
    assert not {"r1", "p2", "score", "chosen", "rois", "top_box"} & rows
