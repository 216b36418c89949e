"""The C++ bank search as a host project compiles it: sanitizers, other machines, hostile files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.anomaly.search import NATIVE_HEADERS, NATIVE_SOURCES, knn
from adcompile.native import SOURCES
from tests.host.kernel_builds import PARAMETERS, Compiler, Program

DRIVER = Path(__file__).with_name("bank_search_main.cpp")


@pytest.fixture(scope="module", params=PARAMETERS)
def program(request: pytest.FixtureRequest, kernel_compiler: Compiler) -> Program:
    """The driver and the search, compiled with warnings as errors."""
    return kernel_compiler.program(request.param, DRIVER, NATIVE_SOURCES)


def features(count: int, columns: int, seed: int) -> NDArray[np.float32]:
    """Rows along few directions: they are searched along axes."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((count, 4)) @ random.standard_normal((4, columns)) * 4
    return (latent + 0.1 * random.standard_normal((count, columns))).astype(np.float32)


def noise(count: int, columns: int, seed: int) -> NDArray[np.float32]:
    """Rows without structure: they take the dense scan."""
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


def clustered(count: int, columns: int, seed: int) -> NDArray[np.float32]:
    """Rows in tight clusters: neighbours are nearer to each other than int8 codes can tell."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((8, 4))[random.integers(0, 8, count)]
    latent = centres + 1e-3 * random.standard_normal((count, 4))
    return (latent @ random.standard_normal((4, columns))).astype(np.float32)


def rectified(count: int, columns: int, seed: int) -> NDArray[np.float32]:
    """Rows of which every third column says nearly everything."""
    data = np.maximum(noise(count, columns, seed), 0)
    data[:, np.arange(columns) % 3 > 0] *= np.float32(0.01)
    return data


CASES = {
    "features": (features(2700, 96, 0), 2, 3, 32),
    "wide features": (features(700, 200, 7), 1, 9, 64),
    "small bank along axes": (features(480, 100, 8), 2, 3, 16),
    "small bank, far from most": (
        np.concatenate([noise(250, 90, 9) * 9, features(150, 90, 9)]),
        1,
        16,
        32,
    ),
    "small bank, closer than codes": (clustered(400, 64, 12), 1, 5, 16),
    "small noise along axes": (noise(300, 45, 10), 1, 9, 48),
    "small bank of one value": (
        np.concatenate([np.full((60, 40), 3e5, np.float32), noise(110, 40, 11)]),
        1,
        5,
        16,
    ),
    "noise": (noise(900, 70, 1), 1, 9, 0),
    "tiny bank": (noise(170, 33, 2)[:140], 1, 2, None),
    "huge": (np.clip(noise(300, 20, 3), -3, 3) * np.float32(1e37), 1, 2, 32),
    "ties": (np.floor(noise(500, 5, 4)), 2, 20, 32),
    # Few rows for each neighbour: every pair is evaluated.
    "every pair": (noise(157, 70, 8), 2, 11, 0),
    "every pair, ties": (np.floor(noise(160, 5, 9)), 1, 20, 0),
    "every pair, huge": (np.clip(noise(131, 20, 10), -3, 3) * np.float32(1e19), 1, 8, 0),
    "every pair, infinite": (np.clip(noise(131, 20, 10), -3, 3) * np.float32(1e38), 1, 8, 0),
    "every pair, tiny": (noise(150, 33, 11) * np.float32(1e-21), 1, 16, 0),
    # Half of the columns hold what distinguishes the rows.
    "half the columns, nearest": (rectified(260, 130, 13), 2, 1, 0),
    "half the columns, nearest of copies": (np.tile(rectified(50, 96, 14), (5, 1)), 1, 1, 0),
    "half the columns": (rectified(250, 100, 15), 1, 5, 0),
    "half the columns, few rows": (rectified(123, 64, 16), 1, 3, 0),
    "half the columns, nine rows": (rectified(180, 96, 20), 2, 9, 0),
    "half the columns, fifteen rows": (rectified(270, 64, 21), 1, 15, 0),
    "sixteen rows": (noise(265, 64, 22), 1, 16, 0),
    "nearest in noise": (noise(240, 50, 17), 1, 1, 0),
    "nearest, huge": (np.clip(noise(131, 20, 18), -3, 3) * np.float32(1e38), 1, 1, 0),
    "nearest, tiny": (noise(150, 33, 19) * np.float32(1e-21), 1, 1, 0),
    "fewer rows than lanes": (noise(117, 33, 12), 1, 3, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_same_bits_as_numpy(program: Program, tmp_path: Path, case: str) -> None:
    """Every instruction set of every machine gives the same neighbours and distances."""
    data, threads, k, axes = CASES[case]
    rows, queries = data[:-110], data[-110:].copy()
    bank = prepare_bank(rows, axes=axes)
    (tmp_path / "bank").write_bytes(pack_bank(bank))
    (tmp_path / "queries").write_bytes(queries.tobytes())
    squared, indices = knn(bank, queries, k, path="numpy")
    answers = program.run_paths("search", tmp_path / "bank", tmp_path / "queries", k, threads)
    for path, answer in answers.items():
        assert answer == indices.tobytes() + squared.tobytes(), path


def test_misuse_is_answered(program: Program, tmp_path: Path) -> None:
    """Null pointers, wrong k, NaN: a status each, no crash, and the searcher stays usable."""
    (tmp_path / "bank").write_bytes(pack_bank(prepare_bank(noise(40, 6, 5))))
    done = program.run("misuse", tmp_path / "bank")
    assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr.decode()


def test_hostile_files_are_refused(program: Program, tmp_path: Path) -> None:
    """Truncated, extended, with random bytes changed and checksums made right again."""
    from tests.anomaly.test_bank import resealed

    good = pack_bank(prepare_bank(noise(40, 6, 6), axes=32))
    random = np.random.default_rng(0)
    files = [good, good[:100], good[:300], good[:-64], good + bytes(64), b"", bytes(5000)]
    for seal in (False, True):
        for _ in range(60):
            data = bytearray(good)
            for at in random.integers(0, 1800, 2):
                data[at] = int(random.integers(256))
            files.append(resealed(bytes(data)) if seal else bytes(data))
    names: list[Path] = []
    for i, data in enumerate(files):
        names.append(tmp_path / f"{i}")
        names[-1].write_bytes(bytes(data))
    done = program.run("open", *names)
    assert done.returncode == 0, done.stderr.decode()
    answers = done.stdout.decode().splitlines()
    assert len(answers) == len(files)
    assert answers[0].strip() == "0"
    assert all(a.startswith("4 bank file") for a in answers[1:7])
    assert all(a.startswith(("0", "4 bank file")) for a in answers)


def test_the_lists_of_files_are_complete() -> None:
    """What a host project copies is all there is, and compiles on its own."""
    on_disk = {p.name for p in SOURCES.glob("bank_*")}
    assert on_disk == set(NATIVE_SOURCES) | set(NATIVE_HEADERS)


def test_fast_math_is_refused(tmp_path: Path) -> None:
    """Bounds proved for IEEE arithmetic must not be compiled without it."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    source = str(SOURCES / "bank_top.cpp")
    done = subprocess.run(
        ["g++", "-std=c++17", "-Ofast", "-fsyntax-only", source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "needs IEEE arithmetic" in done.stderr
