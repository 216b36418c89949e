"""Mosaic: many regions in one image give the values of row by row."""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.errors import FormatError, InputError, Unsupported
from adcompile.ir.evaluate import evaluate
from adcompile.lower.mosaic import mosaic, resize_mosaic, square_grid
from adcompile.lower.rows import bucket_sizes, policy_costs, size_for
from adcompile.runtime.tiles import pack, parse_mosaic, unpack
from tests.lower.networks import head, residual


@pytest.mark.parametrize("deconv", [False, True])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_values_are_those_of_row_by_row(count: int, deconv: bool) -> None:
    """Largest difference 1e-5, for a box-like and a mask-like head."""
    model = head(deconv=deconv)
    grid = square_grid(count)
    packed, layout = mosaic(model, grid)
    rows = np.random.default_rng(count).standard_normal((count, 4, 7, 7)).astype(np.float32)
    image = pack(rows, layout.inputs["x"], grid)
    found = unpack(evaluate(packed, {"x": image})["y"], layout.outputs["y"], grid, count)
    wanted = evaluate(model, {"x": rows})["y"]
    assert found.shape == wanted.shape
    assert float(np.abs(found - wanted).max()) < 1e-5


def test_a_smaller_grid_is_cut_from_a_larger() -> None:
    """Buckets come from one model: sizes and gutter masks are cut."""
    model = head()
    large, layout = mosaic(model, (3, 4))
    small = resize_mosaic(large, layout, (1, 2))
    rows = np.random.default_rng(0).standard_normal((2, 4, 7, 7)).astype(np.float32)
    image = pack(rows, layout.inputs["x"], (1, 2))
    found = unpack(evaluate(small, {"x": image})["y"], layout.outputs["y"], (1, 2), 2)
    np.testing.assert_allclose(found, evaluate(model, {"x": rows})["y"], atol=1e-5)


def test_layout_survives_text_and_refuses_nonsense() -> None:
    """The runtime reads what the build wrote, and nothing else."""
    _, layout = mosaic(head(), (2, 2))
    assert parse_mosaic(layout.dump()) == layout
    for text in ("", "{}", '{"inputs":{},"outputs":{},"grids":[[1,1]]}', "[" * 100):
        with pytest.raises(FormatError):
            parse_mosaic(text)
    with pytest.raises(InputError):
        pack(np.zeros((5, 4, 7, 7), np.float32), layout.inputs["x"], (2, 2))


def test_a_part_that_mixes_rows_is_refused_by_node() -> None:
    """A model with a shortcut over a strided pool still has a form; a transposed one has not."""
    with pytest.raises(Unsupported, match="mosaic"):
        mosaic(_transposed(), (2, 2))
    mosaic(residual(), (2, 2))


def _transposed() -> object:
    from tests.lower.networks import Net

    net = Net()
    net.node("Transpose", ["x"], "y", perm=[1, 0, 2, 3])
    return net.model({"x": ["n", 4, 7, 7]}, {"y": [4, "n", 7, 7]})


def test_buckets_waste_least() -> None:
    """Every count is covered, and more buckets never waste more."""
    counts = [3, 3, 4, 20, 21, 90]
    waste = []
    for most in (1, 2, 3, 6):
        sizes = bucket_sizes(counts, most)
        assert len(sizes) <= most
        assert max(sizes) == 90
        waste.append(sum(size_for(c, sizes) - c for c in counts))
    assert waste == sorted(waste, reverse=True)
    assert waste[-1] == 0
    assert bucket_sizes([]) == (1,)


def test_costs_prefer_few_calls_for_many_rows() -> None:
    """The report orders policies by work plus calls."""
    costs = policy_costs([90, 100], 10**7, 100, tile_share=0.8)
    assert costs[0].policy in ("mosaic", "bucket")
    assert {c.policy for c in costs} == {"loop", "mosaic", "bucket", "host"}
    assert policy_costs([2, 90, 2, 2], 10**7, 100, tile_share=0.8)[0].policy == "bucket"
    assert policy_costs([1, 0, 1], 100, 100, tile_share=0.8)[0].policy == "host"
    assert {c.policy for c in policy_costs([5], 10**9, 100)} == {"loop", "host"}
