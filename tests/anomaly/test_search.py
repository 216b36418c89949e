"""Exact nearest neighbours: equal to brute force in double precision, on every path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adcompile.anomaly.bank import prepare_bank
from adcompile.anomaly.search import PATHS, Searcher, knn
from adcompile.errors import InputError, ToolMissing, UsageError

F32 = NDArray[np.float32]


def usable_paths() -> list[str]:
    """The instruction sets of this machine; at least NumPy and the portable kernels."""
    bank = prepare_bank(np.zeros((1, 1), np.float32))
    found: list[str] = []
    for path in PATHS:
        try:
            Searcher(bank, path=path).close()
        except ToolMissing:
            continue
        found.append(path)
    return found


USABLE = usable_paths()


def brute_force(rows: F32, queries: F32, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every pair in double precision, ties to the lowest index."""
    gaps = queries[:, None, :].astype(np.float64) - rows[None].astype(np.float64)
    squared = (gaps * gaps).sum(axis=2)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, 1), order


def check(rows: F32, queries: F32, k: int) -> None:
    """All paths give the same bits, and these are brute force's neighbours, ties aside."""
    squared, indices = brute_force(rows, queries, k)
    first: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
    banks = {axes: prepare_bank(rows, axes=axes) for axes in (0, 32)}
    for path, axes in itertools.product(USABLE, banks):
        got, at = knn(banks[axes], queries, k, path=path, threads=2)
        gaps = queries[:, None, :].astype(np.float64) - rows[at].astype(np.float64)
        truth = (gaps * gaps).sum(axis=2)
        differs = at != indices
        # Double sums in another order may differ in the last digits: only then may rows swap.
        np.testing.assert_allclose(truth[differs], squared[differs], rtol=1e-13, atol=0)
        np.testing.assert_allclose(got, squared, rtol=1e-5, atol=0)
        assert (np.diff(got, axis=1) >= 0).all()
        assert all(len(set(line)) == k for line in at.tolist())
        first = first or (got, at)
        assert got.tobytes() == first[0].tobytes(), path
        assert at.tobytes() == first[1].tobytes(), path


def textured(count: int, columns: int, seed: int) -> F32:
    """Rows that vary mostly along few directions, as features do."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((count, 4)) @ (random.standard_normal((4, columns)) * 5)
    return (latent + 0.1 * random.standard_normal((count, columns))).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 3, 31, 32, 33, 200])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 700])
def test_any_shape(rows: int, columns: int) -> None:
    """Rows and columns need not fill panels, groups or vectors."""
    data = textured(rows + 60, columns, rows + columns)
    check(data[:rows], data[rows:], min(9, rows))


@pytest.mark.parametrize("k", [1, 16, 17, 64])
def test_any_k(k: int) -> None:
    """Up to 64 neighbours."""
    data = textured(1100, 48, k)
    check(data[:1000], data[1000:], k)


def test_features_are_searched_along_axes() -> None:
    """Where most rows can be skipped the bank says so; on noise, or when small, it does not pay."""
    features = textured(9000, 64, 2)
    noise = np.random.default_rng(1).standard_normal((9000, 64)).astype(np.float32)
    assert "axes" in prepare_bank(features).sections
    assert "axes" not in prepare_bank(features[:300]).sections
    assert "axes" not in prepare_bank(noise).sections
    check(features, textured(50, 64, 2), 3)
    check(noise, features[:50], 3)


def test_axes_that_leave_everything_are_still_exact() -> None:
    """Noise along 32 of 200 axes: whole groups have to be compared by all columns."""
    noise = np.random.default_rng(2).standard_normal((1500, 200)).astype(np.float32)
    check(noise[:1400], noise[1400:], 9)


def test_rows_far_from_the_origin() -> None:
    """A common offset 10,000 times the spread costs accuracy of float32 sums, not exactness."""
    data = textured(900, 40, 5) * 0.01 + np.float32(5e3)
    check(data[:800], data[800:], 5)


def test_duplicates_come_in_order_of_index() -> None:
    """Equal distances: the lowest index first, also when far more rows tie than k."""
    data = np.tile(textured(5, 20, 3), (90, 1))
    bank = prepare_bank(data)
    for path in USABLE:
        squared, indices = knn(bank, data[:5], 9, path=path)
        assert indices.tolist() == [[i + 5 * n for n in range(9)] for i in range(5)]
        assert not squared.any()


def test_quantised_features_tie_everywhere() -> None:
    """Small integers make exact ties at every rank."""
    random = np.random.default_rng(7)
    check(
        random.integers(0, 3, (900, 6)).astype(np.float32),
        random.integers(0, 3, (40, 6)).astype(np.float32),
        10,
    )


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e-18, 1e10, 1e18, 1e30, 1e38])
def test_any_magnitude(size: float) -> None:
    """Neither overflow nor underflow of float32 changes the neighbours."""
    data = (np.clip(textured(260, 12, 9) / 40, -2, 2) * size).astype(np.float32)
    check(data[:200], data[200:], 4)


def test_queries_far_outside_the_bank() -> None:
    """A query millions of times farther away than the bank is wide is still answered exactly."""
    data = textured(500, 16, 4)
    check(data[:400], data[400:] * np.float32(1e9), 3)


def rectified(count: int, columns: int, seed: int) -> F32:
    """Rows of which a third of the columns says nearly everything, as behind a ReLU."""
    random = np.random.default_rng(seed)
    data = np.maximum(random.standard_normal((count, columns)), 0)
    data[:, random.permutation(columns)[: columns - columns // 3]] *= 0.01
    return data.astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 160),
    columns=st.integers(2, 300),
    k=st.sampled_from([1, 1, 2, 9, 20]),
    copies=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_half_of_the_columns_may_decide(
    rows: int, columns: int, k: int, copies: int, seed: int
) -> None:
    """Small banks are compared in half of their columns first; duplicates and own rows included."""
    data = rectified(rows + 14, columns, seed)
    bank = np.tile(data[:rows], (copies, 1))[:160]
    check(bank, np.concatenate([data[rows:], bank[:3]]), min(k, len(bank)))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("value", [1e12, 1e19, 1e38, -3e38])
def test_columns_that_are_not_compared_may_be_huge(value: float, k: int) -> None:
    """A query's outlier in a column that hardly differs within the bank."""
    data = rectified(90, 64, 3)
    quiet = int(data.std(axis=0).argmin())
    data[60:75, quiet] = value
    check(data[:50], data[50:], k)


@pytest.mark.parametrize("path", USABLE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_a_bad_number_is_found_in_any_column(path: str, bad: float, k: int) -> None:
    """Also in those that are not compared first."""
    data = rectified(90, 64, 4)
    with Searcher(prepare_bank(data[:60], axes=0), path=path) as searcher:
        for column in range(64):
            queries = data[60:].copy()
            queries[17, column] = bad
            with pytest.raises(InputError, match="NaN"):
                searcher.knn(queries, k)
        searcher.knn(data[60:], k)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 40),
    k=st.integers(1, 12),
    exponent=st.integers(-120, 110),
    levels=st.sampled_from([0, 2, 5]),
    seed=st.integers(0, 2**16),
)
def test_equal_to_brute_force(
    rows: int, columns: int, k: int, exponent: int, levels: int, seed: int
) -> None:
    """For arbitrary shapes, magnitudes and amounts of duplication."""
    random = np.random.default_rng(seed)
    shape = (rows + 7, columns)
    data = random.integers(0, levels, shape) if levels else random.standard_normal(shape)
    scaled = np.ldexp(np.asarray(data, np.float64), exponent).astype(np.float32)
    check(scaled[:rows], scaled[rows:], min(k, rows))


@settings(max_examples=8, deadline=None)
@given(
    rows=st.integers(1, 3000), columns=st.integers(1, 1600), k=st.integers(1, 64), data=st.data()
)
def test_equal_to_brute_force_for_large_shapes(
    rows: int, columns: int, k: int, data: st.DataObject
) -> None:
    """Widths and lengths of real banks, with duplicates of rows among rows and queries."""
    rows = min(rows, 400_000 // columns)
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    pool = textured(rows + 6, columns, rows)
    bank = pool[random.integers(0, rows, rows)] if data.draw(st.booleans()) else pool[:rows]
    check(bank, np.concatenate([pool[rows:], bank[:2]]), min(k, rows))


def test_threads_do_not_change_the_result() -> None:
    """Any number of threads, more than there is work included."""
    data = textured(1300, 32, 6)
    bank = prepare_bank(data[:900])
    results = [knn(bank, data[900:], 3, threads=n) for n in (1, 2, 5)]
    assert {r[0].tobytes() for r in results} == {results[0][0].tobytes()}
    assert {r[1].tobytes() for r in results} == {results[0][1].tobytes()}


def test_a_searcher_serves_many_calls() -> None:
    """Scratch memory of one call does not leak into the next; no queries give no rows."""
    data = textured(400, 33, 8)
    bank = prepare_bank(data[:300])
    with Searcher(bank, threads=2) as searcher:
        for k in (5, 1, 9):
            squared, indices = searcher.knn(data[300:], k)
            fresh = knn(bank, data[300:], k, path="numpy")
            assert squared.tobytes() == fresh[0].tobytes()
            assert indices.tobytes() == fresh[1].tobytes()
        assert searcher.knn(data[:0], 2)[1].shape == (0, 2)


@pytest.mark.parametrize("path", USABLE)
@pytest.mark.parametrize(
    ("queries", "k", "word"),
    [
        (np.zeros((2, 3), np.float32), 1, "width"),
        (np.zeros((2, 4), np.float32), 0, "k is 0"),
        (np.zeros((2, 4), np.float32), 65, "k is 65"),
        (np.zeros((2, 4), np.float32), 11, "larger than the bank"),
        (np.full((2, 4), np.nan, np.float32), 1, "NaN"),
        (np.full((2, 4), np.inf, np.float32), 1, "NaN"),
        (np.zeros((2, 4)), 1, "float64"),
    ],
)
def test_bad_queries_are_refused(path: str, queries: F32, k: int, word: str) -> None:
    """Never "OK": a sentence says what does not fit."""
    with (
        Searcher(prepare_bank(np.zeros((10, 4), np.float32)), path=path) as searcher,
        pytest.raises(InputError, match=word),
    ):
        searcher.knn(queries, k)


def test_unknown_options_are_refused() -> None:
    """A path that does not exist, threads out of range."""
    bank = prepare_bank(np.zeros((1, 1), np.float32))
    with pytest.raises(UsageError, match="path"):
        Searcher(bank, path="sse9")
    with pytest.raises(UsageError, match="threads"):
        Searcher(bank, threads=0)
