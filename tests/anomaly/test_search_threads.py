"""Threads of a search: where they run is theirs to choose, within what the process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.bank import prepare_bank
from adcompile.anomaly.search import Searcher, load_kernels

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or load_kernels().library is None,
    reason="threads choose their processor on Linux only, in the C++ kernels",
)


def allowed() -> set[str]:
    """The processors each thread of this process may use, as the kernel lists them."""
    found: set[str] = set()
    for status in Path("/proc/self/task").glob("*/status"):
        lines = status.read_text().splitlines()
        found |= {line for line in lines if line.startswith("Cpus_allowed_list")}
    return found


def test_threads_that_moved_may_run_wherever_they_could() -> None:
    data = np.random.default_rng(0).standard_normal((1200, 64)).astype(np.float32)
    before = allowed()
    with Searcher(prepare_bank(data[:400]), threads=4) as searcher:
        for _ in range(20):
            searcher.knn(data[400:], 3)
        assert allowed() == before


def test_all_threads_on_one_processor() -> None:
    data = np.random.default_rng(1).standard_normal((1200, 64)).astype(np.float32)
    with Searcher(prepare_bank(data[:400]), threads=1) as searcher:
        expected = searcher.knn(data[400:], 3)
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        with Searcher(prepare_bank(data[:400]), threads=3) as searcher:
            for _ in range(5):
                found = searcher.knn(data[400:], 3)
                np.testing.assert_array_equal(found, expected)
    finally:
        os.sched_setaffinity(0, mine)
