"""Greedy k-centre: the true farthest row each time, the same on every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adcompile.anomaly.coreset import (
    FIRST_RULES,
    first_pick,
    projection_columns,
    select_coreset,
    sparse_projection,
)
from adcompile.anomaly.search import PATHS
from adcompile.errors import InputError, ToolMissing, UsageError

F32 = NDArray[np.float32]


def plain(rows: F32, count: int, first: int) -> tuple[list[int], list[float]]:
    """The textbook loop in double precision."""
    wide = rows.astype(np.float64)
    nearest = np.full(len(rows), np.inf)
    picks = [first]
    radii: list[float] = []
    for _ in range(count):
        nearest = np.minimum(nearest, np.square(wide - wide[picks[-1]]).sum(axis=1))
        nearest[picks] = -1
        radii.append(max(0.0, float(nearest.max())))
        picks.append(int(nearest.argmax()))
    return picks[:count], radii


def check(rows: F32, count: int, first: int = 0) -> None:
    """Every path picks what the loop picks (data chosen so that sums are exact or far apart)."""
    picks, radii = plain(rows, count, first)
    seen: set[bytes] = set()
    for path in PATHS:
        try:
            got = select_coreset(rows, count, first=first, path=path)
        except ToolMissing:
            continue
        assert got.indices.tolist() == picks, path
        np.testing.assert_allclose(got.squared_radii, radii, rtol=1e-12)
        seen.add(got.squared_radii.tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("columns", [1, 5, 32, 50])
def test_equal_to_the_loop(columns: int) -> None:
    """Features along few directions, and noise."""
    random = np.random.default_rng(columns)
    narrow = random.standard_normal((700, 3)) @ random.standard_normal((3, columns))
    check(narrow.astype(np.float32), 150)
    check(random.standard_normal((700, columns)).astype(np.float32), 150, 5)


def test_ties_go_to_the_lowest_row() -> None:
    """On a grid almost every choice is a tie."""
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
    check(grid, 216)


def test_duplicates_are_never_picked_twice() -> None:
    """When all rows coincide with picks, the others follow in order."""
    rows = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    got = select_coreset(rows, 60, first="first")
    assert sorted(got.indices.tolist()) == list(range(60))
    assert got.radius == 0.0
    check(rows, 60)


@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e15, 1e30])
def test_any_magnitude(size: float) -> None:
    """No overflow, no underflow."""
    random = np.random.default_rng(3)
    check((np.clip(random.standard_normal((300, 8)), -3, 3) * size).astype(np.float32), 60)


@pytest.mark.parametrize("size", [1.0, 1e12, 1e30])
def test_rows_that_the_sample_missed(size: float) -> None:
    """Centre, scale and axes come from every other row here; those between are elsewhere, or far off."""
    random = np.random.default_rng(4)
    rows = np.zeros((1024, 12), np.float32)
    rows[1::2] = (np.clip(random.standard_normal((512, 12)), -3, 3) * size).astype(np.float32)
    check(rows, 80)
    rows[::2] = random.standard_normal((512, 12)).astype(np.float32)
    check(rows, 80, 3)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 120), columns=st.integers(1, 20), seed=st.integers(0, 999),
    levels=st.sampled_from([0, 3]),
)  # fmt: skip
def test_equal_to_the_loop_for_any_rows(count: int, columns: int, seed: int, levels: int) -> None:
    """Arbitrary shapes, with and without ties."""
    random = np.random.default_rng(seed)
    shape = (count, columns)
    rows = random.integers(0, levels, shape) if levels else random.standard_normal(shape)
    check(np.asarray(rows, np.float32), random.integers(1, count + 1).item(), seed % count)


def test_threads_do_not_matter() -> None:
    """Preparation in parallel gives the same picks."""
    rows = np.random.default_rng(0).standard_normal((900, 24)).astype(np.float32)
    results = [select_coreset(rows, 90, threads=n).indices.tolist() for n in (1, 3)]
    assert results[0] == results[1]


def test_first_rules() -> None:
    """Stated, deterministic; a number stands for itself."""
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert first_pick(rows, "first") == 0
    assert first_pick(rows, "random", 7) == first_pick(rows, "random", 7)
    assert len({first_pick(rows, "random", s) for s in range(20)}) > 5
    gap = np.square(rows - rows.mean(axis=0, dtype=np.float64)).sum(axis=1)
    assert first_pick(rows, "farthest-from-mean") == int(gap.argmax())
    for rule in FIRST_RULES:
        chosen = select_coreset(rows, 5, first=rule, seed=2)
        assert chosen.indices[0] == first_pick(rows, rule, 2)


def test_the_projection_keeps_distances() -> None:
    """Sparse, seeded, of the width for eps 0.9, with distances kept on average."""
    assert projection_columns(78400) == 278
    rows = np.random.default_rng(0).standard_normal((60, 900)).astype(np.float32)
    low = sparse_projection(rows, 1)
    assert low.shape == (60, projection_columns(60))
    assert low.tobytes() == sparse_projection(rows, 1).tobytes()
    ratio = np.square(low[0] - low[1:]).sum(axis=1) / np.square(rows[0] - rows[1:]).sum(axis=1)
    assert 0.8 < float(ratio.mean()) < 1.2
    narrow = rows[:, :20].copy()
    assert sparse_projection(narrow, 1) is narrow
    picked = select_coreset(rows, 10, projection=True, seed=1)
    assert (
        picked.indices.tolist()
        == select_coreset(low, 10, seed=1, first=int(picked.indices[0])).indices.tolist()
    )


@pytest.mark.parametrize("path", ["auto", "portable"])
@pytest.mark.parametrize("size", [2e38, 3.3e38])
def test_differences_beyond_float32(path: str, size: float) -> None:
    """Finite rows whose distance from the mean is not: double precision answers."""
    rows = np.random.default_rng(0).normal(size=(900, 40)).astype(np.float32)
    rows[10:, 3] = -size
    rows[5, 3] = size
    expected = select_coreset(rows, 5, first="first", path="numpy")
    found = select_coreset(rows, 5, first="first", path=path)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.indices[1] == 5
    rows[:] = np.where(rows < 0, -size, size)
    assert len(select_coreset(rows, 3, path=path).indices) == 3


@pytest.mark.parametrize("count", [0, 4])
def test_counts_out_of_range_are_refused(count: int) -> None:
    """A ratio that gives no rows, or more than there are."""
    with pytest.raises(InputError, match="rows asked for"):
        select_coreset(np.zeros((3, 2), np.float32), count)


def test_bad_input_is_refused() -> None:
    """NaN, unknown rules, unknown paths, a first row that does not exist."""
    rows = np.zeros((3, 2), np.float32)
    for path in ("auto", "numpy"):
        with pytest.raises(InputError, match="NaN") as caught:
            select_coreset(np.array([[1, 2], [np.nan, 0]], np.float32), 1, path=path)
        assert "row 1" in str(caught.value)
    huge = np.full((40, 400), 3e38, np.float32)
    huge[::2] = -huge[::2]
    with pytest.raises(InputError, match="too large"):
        select_coreset(huge, 2, projection=True)
    with pytest.raises(UsageError, match="first row"):
        select_coreset(rows, 1, first=3)
    with pytest.raises(UsageError, match="path"):
        select_coreset(rows, 1, path="sse9")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(-18, 18), st.floats(-1e3, 1e3))
def test_farthest_from_mean_is_decided_in_double(seed: int, power: int, shift: float) -> None:
    """float32 only rules rows out; with and without kernels the same row, copies included."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((random.integers(1, 200), random.integers(1, 40)))
    rows = np.repeat((rows * 10.0**power + shift).astype(np.float32), 1 + seed % 2, axis=0)
    picked = first_pick(rows, "farthest-from-mean")
    wide = rows.astype(np.longdouble)
    gap = np.sqrt(np.square(wide - wide.mean(axis=0)).sum(axis=1))
    # What rounding a mean of these rows in double precision may move it.
    tie = len(rows) * 2.0**-52 * float(np.abs(rows).max()) * rows.shape[1] ** 0.5
    assert gap[picked] >= gap.max() * (1 - 1e-14) - 2 * tie
    for path in ("auto", "portable"):
        assert select_coreset(rows, 1, path=path).indices.tolist() == [picked], path
