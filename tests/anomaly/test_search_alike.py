"""Queries with the same last columns, as a deeper feature map enlarged by nearest gives them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adcompile.anomaly.bank import Bank, prepare_bank
from adcompile.anomaly.search import PATHS, Searcher, load_kernels
from adcompile.errors import InputError, ToolMissing

F32 = NDArray[np.float32]
Answer = tuple[bytes, bytes]


def features(rows: int, width: int, own: int, deep: int, factor: int, random: Any) -> F32:
    """[rows · width, own + deep]: the last columns repeat *factor* by *factor* times."""
    small = (-(-rows // factor), -(-width // factor), deep)
    repeated = random.standard_normal(small).repeat(factor, axis=0).repeat(factor, axis=1)
    joined = np.concatenate(
        [random.standard_normal((rows, width, own)), repeated[:rows, :width]], axis=2
    )
    spread = np.exp2(random.uniform(-6, 0, own + deep))
    result: F32 = np.maximum(joined * spread, 0).reshape(rows * width, -1).astype(np.float32)
    return result


def bank_for(queries: F32, rows: int, random: Any) -> Bank:
    """Rows like the queries, some of them the same."""
    picked = queries[random.integers(0, len(queries), rows)]
    noise = np.maximum(random.standard_normal(picked.shape), 0) * random.uniform(0, 0.3)
    keep = random.integers(0, 2, (rows, 1))
    return prepare_bank((picked + noise * keep).astype(np.float32), axes=0)


def answer(bank: Bank, queries: F32, k: int, path: str, threads: int = 1) -> Answer | None:
    """What a path says; None where it cannot run here."""
    try:
        searcher = Searcher(bank, path=path, threads=threads)
    except ToolMissing:
        return None
    with searcher:
        squared, indices = searcher.knn(queries, k)
    return squared.tobytes(), indices.tobytes()


def check(bank: Bank, queries: F32, k: int, threads: int = 1) -> None:
    """Every path gives the bits of NumPy."""
    expected = answer(bank, queries, k, "numpy")
    for path in PATHS:
        got = answer(bank, queries, k, path, threads)
        assert got is None or got == expected, path


class Counts(ctypes.Structure):
    """``adc_search_counts``."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("pairs", "first", "exact", "groups", "dense", "slow", "alike")
    ]


def alike(bank: Bank, queries: F32, k: int) -> int:
    """How many queries the best path here searched in fours."""
    library = load_kernels().library
    if library is None:
        pytest.skip("no C++ compiler")
    counts = Counts()
    with Searcher(bank) as searcher:
        searcher.knn(queries, k)
        library["adc_searcher_counts"](searcher._engine._searcher, ctypes.byref(counts))  # type: ignore[attr-defined]
    return int(counts.alike)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 15)),
    columns=st.tuples(st.integers(1, 140), st.sampled_from((1, 64, 128, 200, 256, 300))),
    factor=st.sampled_from((1, 2, 3, 4)), rows=st.sampled_from((3, 16, 24, 37, 100)),
    k=st.integers(1, 12), threads=st.integers(1, 2), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_every_path_gives_the_bits_of_numpy(
    shape: tuple[int, int], columns: tuple[int, int], factor: int, rows: int, k: int,
    threads: int, seed: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    queries = features(*shape, *columns, factor, random)
    check(bank_for(queries, rows, random), queries, min(k, rows), threads)


@pytest.mark.parametrize(("own", "deep"), [(128, 256), (64, 320), (100, 300), (33, 140)])
@pytest.mark.parametrize("k", [1, 7])
def test_maps_enlarged_twice_are_searched_in_fours(own: int, deep: int, k: int) -> None:
    random = np.random.default_rng(own)
    queries = features(12, 14, own, deep, 2, random)
    bank = bank_for(queries, 37, random)
    check(bank, queries, k)
    assert alike(bank, queries, k) == 168


def test_maps_enlarged_four_times_need_no_other_order() -> None:
    random = np.random.default_rng(4)
    queries = features(8, 12, 96, 256, 4, random)
    bank = bank_for(queries, 37, random)
    check(bank, queries, 7)
    assert alike(bank, queries, 7) == 96


def test_other_maps_are_not() -> None:
    random = np.random.default_rng(5)
    queries = features(12, 14, 128, 256, 1, random)
    assert alike(bank_for(queries, 37, random), queries, 7) == 0


def test_an_odd_row_a_flat_place_and_one_that_differs() -> None:
    """The width is that of the map although it begins with two flat rows; 11 rows are 5 pairs and 1."""
    random = np.random.default_rng(6)
    queries = features(11, 14, 128, 256, 2, random)
    queries[:42, 128:] = queries[0, 128:]
    queries[100, -1] += 1
    bank = bank_for(queries, 37, random)
    check(bank, queries, 7)
    assert 0 < alike(bank, queries, 7) < 154


def test_codes_with_a_step_of_their_own() -> None:
    """One of four queries leaves the range of the codes in a column that is its own."""
    random = np.random.default_rng(7)
    queries = features(12, 14, 128, 256, 2, random)
    bank = bank_for(queries, 37, random)
    queries[[3, 40, 99], 5] = (30, -400, 1e13)
    check(bank, queries, 7)


@pytest.mark.parametrize("column", [3, 130, 383])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_found(column: int, value: float) -> None:
    """Also where four queries have it in common, and where it equals itself only bit by bit."""
    random = np.random.default_rng(8)
    queries = features(12, 14, 128, 256, 2, random)
    bank = bank_for(queries, 37, random)
    queries[[0, 1, 14, 15], column] = value
    with Searcher(bank) as searcher, pytest.raises(InputError, match="NaN"):
        searcher.knn(queries, 3)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_share_what_is_searched_in_fours(threads: int) -> None:
    """Large enough that other threads take part, in blocks that begin anywhere in the map."""
    random = np.random.default_rng(9)
    queries = features(28, 28, 128, 256, 2, random)
    bank = bank_for(queries, 37, random)
    assert answer(bank, queries, 7, "auto", threads) == answer(bank, queries, 7, "numpy")
