"""PaDiM's distance in generated C++: against double precision, ONNX Runtime, and other machines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.anomaly.padim import invert
from adcompile.anomaly.statistics import FILE, read_statistics
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from adcompile.errors import InputError
from adcompile.ir.evaluate import evaluate
from tests.anomaly.distances import covariances, distance_model
from tests.host.support import CHECKED, build, printed
from tests.host.toolchains import TOOLCHAINS

Array = npt.NDArray[np.float32]
OPS = ("WhitenedMap", "MahalanobisMap")
SHAPES = {
    "one": (1, 1, 1, 1),
    "group": (1, 3, 4, 4),
    "odd": (3, 7, 5, 7),
    "many": (2, 34, 9, 8),
}


def case(op_type: str, name: str) -> tuple[ir.Model, Array, npt.NDArray[np.float64]]:
    """A model, its input, and the distances in double precision."""
    shape = SHAPES[name]
    channels, patches = shape[1], shape[2] * shape[3]
    inverse, factor = invert(covariances(patches, channels, 1e3))
    rng = np.random.default_rng(3)
    mean = rng.random((channels, patches), dtype=np.float32)
    x = rng.random(shape, dtype=np.float32)
    matrix = factor if op_type == "WhitenedMap" else inverse
    gap = (x.reshape(shape[0], channels, -1) - mean.astype(np.float64)).transpose(2, 0, 1)
    form = np.einsum("pnc,pcd,pnd->np", gap, inverse.astype(np.float64), gap)
    return distance_model(op_type, shape, mean, matrix), x, form.reshape(shape[0], 1, *shape[2:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case in one library, undefined behaviour checked. The first one's statistics are the bank
    file."""
    made = tmp_path_factory.mktemp("distance")
    build([(f"{o}_{n}", case(o, n)[0]) for o in OPS for n in SHAPES], made, ("-O0", *CHECKED[1:]))
    return made


@pytest.fixture(scope="module")
def library(folder: Path) -> HostLibrary:
    return HostLibrary(folder / "libhost.so", folder / "weights.bin")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("op_type", OPS)
def test_distances(op_type: str, name: str, library: HostLibrary) -> None:
    """Right to float32's precision, one thread or three, and broken where ONNX Runtime's is."""
    model, x, wanted = case(op_type, name)
    part = library.part(f"{op_type}_{name}")
    found: list[bytes] = []
    for threads in (1, 3):
        library.threads(threads)
        got = np.asarray(part.run({"e": x})["s"], np.float32)
        np.testing.assert_allclose(got, wanted, rtol=1e-4)
        found.append(got.tobytes())
    assert found[0] == found[1]
    rng = np.random.default_rng(4)
    places = rng.choice(x.size, max(x.size // 50, 1), replace=False)
    x.reshape(-1)[places] = rng.choice([np.inf, -np.inf, np.nan], len(places))
    broken, other = part.run({"e": x})["s"], evaluate(model, {"e": x})["s"]
    np.testing.assert_array_equal(np.isfinite(broken), np.isfinite(other))
    if op_type == "WhitenedMap":
        np.testing.assert_array_equal(np.isnan(broken), np.isnan(other))


def test_factors_lie_in_the_bank_file_only() -> None:
    """The program reads its statistics there; with 80 places for 72 patches they are still smaller."""
    model, _, _ = case("WhitenedMap", "many")
    generated = generate([("part", model)])
    assert generated.statistics is not None
    assert generated.statistics.path == FILE
    assert generated.weights.size == 0
    kept = read_statistics(generated.statistics.data)
    assert kept.kind == "whitened"
    inverse, _ = invert(covariances(72, 34, 1e3))
    assert generated.statistics.size < 0.65 * inverse.nbytes
    assert "resources_.statistics.view<float>" in generated.files["parts/part.cpp"]


@pytest.mark.parametrize("place", [200, -200])
def test_damaged_factors_are_refused(place: int, folder: Path, tmp_path: Path) -> None:
    """One byte of the file: in the table, or in a factor."""
    shutil.copy(folder / "weights.bin", tmp_path)
    data = bytearray((folder / FILE).read_bytes())
    data[place] ^= 1
    (tmp_path / FILE).write_bytes(data)
    library = HostLibrary(folder / "libhost.so", tmp_path / "weights.bin")
    with pytest.raises(InputError, match="cannot open the host part") as caught:
        library.part("WhitenedMap_one")
    assert "differ from those of this build" in caught.value.why


OFTEN = ("arm64-fast",)
MACHINES = [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in TOOLCHAINS]


@pytest.mark.parametrize("name", MACHINES)
def test_every_machine(name: str, tmp_path: Path) -> None:
    """Compilers, instruction sets and sanitizers: a few roundings from double precision; threads
    change no bit."""
    toolchain = TOOLCHAINS[name]
    if toolchain.missing:
        pytest.skip(f"needs {toolchain.missing}")
    lines = printed("distance_main.cpp", toolchain, tmp_path / "program").splitlines()
    assert len(lines) == 32
    assert lines[:16] == lines[16:]
    assert max(float(line.split()[-2]) for line in lines) < 2e-6
