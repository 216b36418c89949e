"""Quantized device models of a Mask R-CNN, run by the C++ program through the real ONNX Runtime.

The library comes from the onnxruntime wheel, the header from amd-quark's (it declares version 1.17 of an
interface that only grows).
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import adcompile
from adcompile.backends.host.build import NATIVE
from adcompile.backends.simulation import simulate
from adcompile.job import BuildOptions
from adcompile.manifest import PartRecord, read_manifest
from adcompile.runtime.executor import Array
from tests.detectors import export_detector, photographs
from tests.host.toolchains import SELFTEST, Core

HERE = Path(__file__).parent
CAPACITY = 9
POLICIES = {
    "mosaic": {"roi_policy": "mosaic", "roi_capacity": str(CAPACITY)},
    "bucket": {"roi_policy": "bucket", "roi_buckets": f"2,{CAPACITY}"},
    "loop": {"roi_policy": "loop"},
}
COUNTS = (0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 3 * CAPACITY + 2)
# mosaics of two sizes by default; the others take as long again
TRIED = [pytest.param(p, marks=() if p == "bucket" else pytest.mark.slow) for p in POLICIES]
ON_CPU = ("--runtime", "onnxruntime", "--device-option", "provider=cpu")


@dataclass(frozen=True)
class OnnxRuntime:
    """Header and library, with the name under which programs look for it."""

    include: Path
    library: Path

    def flags(self) -> list[str]:
        """What the compiler and the linker need."""
        return ["-DADC_WITH_ONNXRUNTIME", "-isystem", str(self.include)]

    def libraries(self) -> list[str]:
        return [str(self.library), f"-Wl,-rpath,{self.library.parent}"]


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs {name}")
    return Path(found.submodule_search_locations[0])


@pytest.fixture(scope="module")
def ort(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntime:
    folder = tmp_path_factory.mktemp("onnxruntime")
    headers = sorted(_package("quark").rglob("onnxruntime_c_api.h"))
    libraries = sorted((_package("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not headers or not libraries:
        pytest.skip("needs the header of amd-quark and the library of onnxruntime")
    (folder / "libonnxruntime.so.1").symlink_to(libraries[-1])
    return OnnxRuntime(headers[-1].parent, folder / "libonnxruntime.so.1")


class Bundles:
    """An a8w8 bundle per policy, each built when first asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = export_detector(folder).path
        self._calibration = folder / "calibration"
        self._calibration.mkdir()
        for path in photographs()[:3]:
            shutil.copy(path, self._calibration)

    def __getitem__(self, policy: str) -> Path:
        out = self._folder / policy
        if not out.exists():
            options = BuildOptions(
                precision="a8w8",
                calib=self._calibration,
                golden=tuple(photographs()[:2]),
                preprocess="unit",
                verify="none",
                cache=False,
                backend_options=POLICIES[policy],
            )
            result = adcompile.compile(self._model, "npu", out, options)
            assert not [n for n in result.notes if "C++" in n]
        return out


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    pytest.importorskip("torch")
    return Bundles(tmp_path_factory.mktemp("bundles"))


def link(
    core: Core,
    bundle: Path,
    out: Path,
    ort: OnnxRuntime,
    main: str | Path = SELFTEST,
    kernels: Path | None = None,
) -> Path:
    """A program of the bundle with the engine; *kernels* stands for ``mosaic.cpp``."""
    engine = {"engine.cpp": ort.flags(), "engine_onnxruntime.cpp": ort.flags()}
    sources = {"mosaic.cpp": kernels} if kernels else {}
    return core.link(bundle, out, main, engine, ort.libraries(), sources)


def heads(bundle: Path) -> list[PartRecord]:
    """Region parts on the device."""
    return [p for p in read_manifest(bundle).parts if p.rows and p.placement == "device"]


@pytest.mark.parametrize("policy", TRIED)
def test_selftest_runs_the_quantized_parts(
    policy: str, bundles: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """Golden data through every part, devices included, and by recorded answers."""
    bundle = bundles[policy]
    program = link(checked, bundle, tmp_path, ort)
    done = checked.run(program, str(bundle), *ON_CPU, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"\d+ tensors compared, 0 different, 0 parts skipped", done.stdout)
    for part in heads(bundle):
        ran = re.findall(rf"^  {part.name} +[\d.]+ ms\n( +.* equal \(.*\n)+", done.stdout, re.M)
        assert len(ran) == 2, done.stdout  # one per golden sample
        laid_out = f"{part.name:20} regions as tiles" in done.stdout
        assert laid_out == (policy != "loop")
    done = checked.run(program, str(bundle), "--runtime", "recorded", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def region_rows(part: PartRecord, count: int) -> dict[str, Array]:
    """Random regions of a part."""
    rng = np.random.default_rng(count)
    found: dict[str, Array] = {}
    for spec in part.inputs:
        shape = [count, *(d for d in spec.shape[1:] if isinstance(d, int))]
        found[spec.name] = np.abs(rng.standard_normal(shape)).astype(np.float32)
    return found


@pytest.mark.parametrize("policy", TRIED)
def test_regions_equal_python(
    policy: str, bundles: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """The numbers of the Python simulation, bit for bit, for any number of regions."""
    bundle = bundles[policy]
    program = link(checked, bundle, tmp_path, ort, HERE / "device_main.cpp")
    parts = heads(bundle)
    assert parts
    for part in parts:
        for count in COUNTS:
            place = tmp_path / "rows" / part.name / str(count)
            place.mkdir(parents=True)
            for i, array in enumerate(region_rows(part, count).values()):
                np.save(place / f"in{i}.npy", array)
    done = checked.run(program, str(bundle), str(tmp_path / "rows"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for part in parts:
        sessions = simulate(part, bundle, {"threads": "1"})
        for count in COUNTS:
            place = tmp_path / "rows" / part.name / str(count)
            feeds = region_rows(part, count)
            # a row at a time under loop, as the device would run them
            rows = range(count) if policy == "loop" and count else [slice(None)]
            pieces = [
                sessions.run(
                    {n: a[r : r + 1] if isinstance(r, int) else a for n, a in feeds.items()}
                )
                for r in rows
            ]
            for i, spec in enumerate(part.outputs):
                wanted = np.concatenate([piece[spec.name] for piece in pieces])
                found = np.load(place / f"out{i}.npy")
                np.testing.assert_array_equal(found, wanted, f"{part.name} {count}")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("t % grid.columns * tile.pitch_x", "(t + 1) % grid.columns * tile.pitch_x"),
        pytest.param("at += tile.pitch_x", "at += tile.width", marks=pytest.mark.slow),
    ],
)
def test_wrong_tiles_fail_the_selftest(
    right: str, wrong: str, bundles: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """An off-by-one tile, a gutter that is not kept: noticed without a device, and with one."""
    source = (NATIVE / "mosaic.cpp").read_text()
    assert source.count(right) == 1
    (tmp_path / "mosaic.cpp").write_text(source.replace(right, wrong))
    bundle = bundles["bucket"]
    program = link(checked, bundle, tmp_path, ort, SELFTEST, tmp_path / "mosaic.cpp")
    for words in ((), ON_CPU):
        done = checked.run(program, str(bundle), *words, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "DIFFERENT: wrong" in done.stdout
    assert "dB of signal to noise" in done.stdout


@pytest.mark.slow
def test_a_wrong_gutter_in_the_layout_is_refused(
    bundles: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """A layout beside the manifest's stops the program; one beside the device model's as well, and the
    width of its images is named."""
    bundle = tmp_path / "bundle"
    shutil.copytree(bundles["mosaic"], bundle)
    right, wrong = "[14,14,15,15,0]", "[14,14,15,16,0]"
    info = bundle / "host" / "src" / "bundle_info.cpp"
    assert right in info.read_text()
    info.write_text(info.read_text().replace(right, wrong))
    program = link(checked, bundle, tmp_path, ort)
    done = checked.run(program, str(bundle), *ON_CPU, cwd=tmp_path)
    assert done.returncode == 2
    assert "manifest.json has another 'options.mosaic'" in done.stderr
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace(right, wrong))
    done = checked.run(program, str(bundle), *ON_CPU, cwd=tmp_path)
    assert done.returncode == 2
    assert "48" in done.stderr  # 3 tiles of 16; the model was made for 45
