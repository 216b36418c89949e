"""The C++ coreset selection under sanitizers and on other machines: the same picks everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.coreset import select_coreset
from adcompile.anomaly.search import CORESET_HEADERS, CORESET_SOURCES, NATIVE_SOURCES
from adcompile.native import SOURCES
from tests.host.kernel_builds import PARAMETERS, Compiler, Program
from tests.host.test_bank_search import clustered, features, noise

DRIVER = Path(__file__).with_name("coreset_main.cpp")


@pytest.fixture(scope="module", params=PARAMETERS)
def program(request: pytest.FixtureRequest, kernel_compiler: Compiler) -> Program:
    """The driver and the selection, compiled with warnings as errors."""
    return kernel_compiler.program(request.param, DRIVER, NATIVE_SOURCES + CORESET_SOURCES)


HALVES = np.where(np.arange(256) % 32 % 3 == 1, np.float32(1), np.float32(0.1))
"""Rows that differ mostly in some columns of each 32, so that these are compared first."""
GRID = np.stack(np.meshgrid(*[np.arange(6.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
FAR = np.concatenate([noise(1500, 20, 6), noise(3, 20, 7) * np.float32(1e6)])
CASES = {
    # rows, picks, threads
    "features": (features(2300, 96, 0), 230, 3),
    "wide features": (features(700, 200, 7), 150, 2),
    "clusters": (clustered(900, 64, 12), 200, 2),
    "noise": (noise(600, 70, 1), 120, 2),
    "as many picks as make cells": (features(1500, 64, 3), 900, 2),
    "half of the columns": (noise(700, 256, 5) * HALVES, 160, 2),
    "all rows, mostly ties": (GRID, 216, 2),
    "copies": (np.repeat(noise(40, 33, 2), 9, axis=0), 100, 1),
    "outliers that a sample misses": (FAR, 60, 2),
    "huge": (np.clip(noise(300, 20, 3), -3, 3) * np.float32(1e30), 60, 1),
    "tiny": (noise(300, 33, 11) * np.float32(1e-21), 60, 1),
    "one row": (noise(1, 5, 4), 1, 2),
}


@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_numpy(program: Program, tmp_path: Path, case: str) -> None:
    """Every instruction set of every machine makes the same picks, from the row that it chose."""
    rows, count, threads = CASES[case]
    (tmp_path / "rows").write_bytes(rows.tobytes())
    expected = select_coreset(rows, count, path="numpy")
    wanted = expected.indices.tobytes() + expected.squared_radii.tobytes()
    answers = program.run_paths("select", tmp_path / "rows", rows.shape[1], count, -1, threads)
    for path, answer in answers.items():
        assert answer == wanted, path


def test_kernels_agree(program: Program) -> None:
    """What only guesses, or only bounds, would not show in the picks: compared with other kernels."""
    assert set(program.run_paths("kernels").values()) == {b"ok\n"}


def test_misuse_is_answered(program: Program) -> None:
    """Null pointers, numbers out of range, NaN: a status each, no crash."""
    done = program.run("misuse")
    assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr.decode()


def test_the_lists_of_files_are_complete() -> None:
    """What Python compiles and hashes is all there is."""
    on_disk = {p.name for p in SOURCES.glob("coreset*")}
    assert on_disk == set(CORESET_SOURCES) | set(CORESET_HEADERS)
