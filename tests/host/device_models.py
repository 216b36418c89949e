"""Quantized Mask R-CNN bundles, and what links their C++ programs with the real ONNX Runtime.

The library comes from the onnxruntime wheel, the header from amd-quark's (it declares version 1.17 of an
interface that only grows).
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import adcompile
from adcompile.check.verify import verify_bundle
from adcompile.job import BuildOptions
from adcompile.manifest import PartRecord, read_manifest
from tests.detectors import export_detector, photographs
from tests.host.toolchains import SELFTEST, Core

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


def find_onnxruntime(folder: Path) -> OnnxRuntime:
    """The installed library, with a link of its real name in *folder*."""
    headers = sorted(_package("quark").rglob("onnxruntime_c_api.h"))
    libraries = sorted((_package("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not headers or not libraries:
        pytest.skip("needs the header of amd-quark and the library of onnxruntime")
    (folder / "libonnxruntime.so.1").symlink_to(libraries[-1])
    return OnnxRuntime(headers[-1].parent, folder / "libonnxruntime.so.1")


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs {name}")
    return Path(found.submodule_search_locations[0])


@dataclass(frozen=True)
class Detector:
    """What a random detector is like: image size, channels, and how few boxes it finds."""

    size: int
    channels: int
    background: float


SMALL = Detector(size=64, channels=16, background=5.0)
# the network that examples/train_maskrcnn.py trains; on photographs it finds none, one or several
LARGE = Detector(size=160, channels=64, background=7.5)


class Bundles:
    """Bundles of one detector for the NPU, each built when first asked."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        self._folder = folder
        made = export_detector(folder, detector.size, detector.channels, detector.background)
        self._model = made.path
        self._calibration = folder / "calibration"
        self._calibration.mkdir()
        for path in photographs()[:3]:
            shutil.copy(path, self._calibration)

    def build(self, precision: str, policy: dict[str, str]) -> Path:
        """The bundle of a precision and a policy for regions."""
        out = self._folder / "-".join([precision, *policy.values()]).replace(",", "_")
        if not out.exists():
            options = BuildOptions(
                precision=precision,
                calib=self._calibration,
                golden=tuple(photographs()[:2]),
                preprocess="unit",
                verify="none",
                cache=False,
                backend_options=policy,
            )
            result = adcompile.compile(self._model, "npu", out, options)
            assert not [n for n in result.notes if "C++" in n]
        return out


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


WHOLE_RUN = re.compile(r"^  whole run .*\n((?:    .*\n)+)", re.M)


def whole_runs(report: str) -> list[str]:
    """A self-test's lines about the outputs of the whole run of each sample."""
    return WHOLE_RUN.findall(report)


def judged_as_by_verify(bundle: Path, report: str) -> bool:
    """True when verify calls the outputs of all samples right. The report must say the same of each,
    and may find nothing different but them."""
    assert "DIFFERENT" not in WHOLE_RUN.sub("", report), report
    runs = whole_runs(report)
    found = verify_bundle(bundle, isolate=False)
    assert len(runs) == found.samples
    for sample, comparison in found.outputs:
        (line,) = [x for x in runs[sample].splitlines() if f"    {comparison.name} " in x]
        assert ("DIFFERENT" in line) is not comparison.ok, (line, comparison)
        if "matched" in comparison.metrics:
            assert f" {100 * comparison.metrics['matched']:.0f} % of " in line, comparison
    return all(comparison.ok for _, comparison in found.outputs)
