"""Banks of few rows: every kind of data that the search of two queries at a time could get wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adcompile.anomaly.bank import Bank, prepare_bank
from adcompile.anomaly.search import PATHS, Searcher
from adcompile.errors import InputError, ToolMissing

F32 = NDArray[np.float32]
Random = np.random.Generator
Answer = tuple[bytes, bytes]


def relu(data: F32, rows: int, random: Random) -> F32:
    """Half of the numbers zero, in columns of unequal spread: half of the columns suffice."""
    spread = np.exp2(random.uniform(-6, 0, data.shape[1])).astype(np.float32)
    result: F32 = np.maximum(data * spread, np.float32(0))
    return result


def tied(data: F32, rows: int, random: Random) -> F32:
    """Integers: many equal distances."""
    return np.round(data)


def scaled(data: F32, rows: int, random: Random) -> F32:
    """Very small or large."""
    return data * np.float32(10.0 ** random.integers(-15, 15))


def shifted(data: F32, rows: int, random: Random) -> F32:
    """Far from the origin."""
    return data + np.float32(1000)


def found(data: F32, rows: int, random: Random) -> F32:
    """Queries that are rows."""
    return np.vstack([data[:rows], data[random.integers(0, rows, len(data) - rows)]])


def doubled(data: F32, rows: int, random: Random) -> F32:
    """Rows that are there several times."""
    return np.vstack([data[random.integers(0, max(1, rows // 2), rows)], data[rows:]])


def close(data: F32, rows: int, random: Random) -> F32:
    """Rows that differ from others in the last digits: float32 hardly tells their distances."""
    like = data[random.integers(0, max(1, rows // 4), rows)]
    noise = data[:rows] * np.float32(10.0 ** random.uniform(-8, -5))
    return np.vstack([like + noise, data[rows:]])


def far(data: F32, rows: int, random: Random) -> F32:
    """Queries far away from all rows."""
    factor = np.float32(10.0 ** random.integers(0, 12))
    return np.vstack([data[:rows], data[rows:] * factor])


def misled(data: F32, rows: int, random: Random) -> F32:
    """Queries differ from the rows most where these hardly differ from each other."""
    data[:, ::2] *= np.float32(0.2)
    data[rows:, ::2] *= np.float32(30)
    return data


def plain(data: F32, rows: int, random: Random) -> F32:
    """Isotropic noise."""
    return data


KINDS: list[Callable[[F32, int, Random], F32]] = [
    plain, relu, tied, scaled, shifted, found, doubled, close, far, misled,
]  # fmt: skip
ROWS = (1, 8, 9, 15, 16, 17, 24, 25, 37, 48, 100, 160)
COLUMNS = (1, 31, 32, 33, 64, 96, 100, 128)


def answer(bank: Bank, queries: F32, k: int, path: str) -> Answer | None:
    """What a path says; None where it cannot run here."""
    try:
        searcher = Searcher(bank, path=path)
    except ToolMissing:
        return None
    with searcher:
        squared, indices = searcher.knn(queries, k)
    return squared.tobytes(), indices.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from(ROWS), columns=st.sampled_from(COLUMNS),
    count=st.integers(1, 40), k=st.integers(1, 17), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_every_path_gives_the_bits_of_numpy(
    kind: Callable[[F32, int, Random], F32], rows: int, columns: int, count: int, k: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    data = random.standard_normal((rows + count, columns)).astype(np.float32)
    data = np.ascontiguousarray(kind(data, rows, random), dtype=np.float32)
    bank = prepare_bank(data[:rows].copy(), axes=0)
    expected = answer(bank, data[rows:], min(k, rows), "numpy")
    for path in PATHS:
        got = answer(bank, data[rows:], min(k, rows), path)
        assert got is None or got == expected, path


@pytest.mark.parametrize("column", range(0, 64, 7))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_found_in_any_column(column: int, value: float) -> None:
    """Also in a column that the int8 copy leaves out."""
    random = np.random.default_rng(column)
    data = relu(random.standard_normal((60, 64)).astype(np.float32), 37, random)
    data[50, column] = value
    with (
        Searcher(prepare_bank(data[:37], axes=0)) as searcher,
        pytest.raises(InputError, match="NaN"),
    ):
        searcher.knn(data[37:], 3)
