"""Bundles of every kind through their self-test, by compilers, sanitizers and processors.

The default run takes PatchCore, PaDiM and Mask R-CNN through GCC with AddressSanitizer and
UndefinedBehaviorSanitizer and on aarch64 under qemu; ``-m slow`` takes the other methods (which have
to be trained first) and the other compilers.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adcompile
from adcompile.anomaly.config import make_config
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.samples import DataSet
from adcompile.job import BuildOptions
from adcompile.manifest import read_manifest
from tests.detectors import export_detector, photographs
from tests.host.toolchains import SELFTEST, TOOLCHAINS, Core

KINDS: dict[str, dict[str, object]] = {
    "patchcore": {"coreset_ratio": 0.05},
    "padim": {},
    "efficientad": {"channels": 8, "width": 0.05, "distill": 2, "epochs": 1},
    "vae": {"latent": 8, "epochs": 1, "preset": "local"},
    "maskrcnn": {},
}
TRAINED = ("efficientad", "vae")
ALL = [pytest.param(k, marks=pytest.mark.slow if k in TRAINED else ()) for k in KINDS]
CLASSES = 7
DEFAULT = ("gcc-asan-ubsan", "arm64")


class Bundles:
    """One bundle per kind, with a device part and recorded samples; each built when first asked."""

    def __init__(self, folder: Path, data: DataSet) -> None:
        self._folder = folder
        self._data = data
        self._made: dict[str, Path] = {}

    def __getitem__(self, kind: str) -> Path:
        if kind not in self._made:
            self._made[kind] = self._detector() if kind == "maskrcnn" else self._anomaly(kind)
        return self._made[kind]

    def _anomaly(self, method: str) -> Path:
        if method in TRAINED:
            pytest.importorskip("torch")
        model = fit(make_config(method, {"image_size": 64, **KINDS[method]}), self._data).model
        pictures = (self._data.test[0].path, self._data.test[-1].path)
        options = BuildOptions(precision="fp32", golden=pictures, verify="none", cache=False)
        return adcompile.compile(model, "npu", self._folder / method, options).path

    def _detector(self) -> Path:
        pytest.importorskip("torch")
        exported = export_detector(self._folder)
        options = BuildOptions(
            precision="fp32",
            golden=tuple(photographs()[:2]),
            preprocess="unit",
            verify="none",
            cache=False,
        )
        return adcompile.compile(exported.path, "npu", self._folder / "maskrcnn", options).path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, twill: DataSet) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"), twill)


def passes(core: Core, bundle: Path, out: Path) -> None:
    """The self-test compares the outputs of both samples and finds nothing different."""
    report = core.selftest(bundle, out)
    found = re.search(r"(\d+) tensors compared, 0 different, 0 parts skipped", report)
    assert found is not None, report
    assert int(found[1]) >= 6
    assert report.count("golden/") == 2


@pytest.mark.parametrize("kind", ALL)
def test_with_sanitizers(kind: str, bundles: Bundles, checked: Core, tmp_path: Path) -> None:
    """No read out of bounds, no undefined behaviour, the golden numbers."""
    passes(checked, bundles[kind], tmp_path)


@pytest.mark.parametrize("kind", ALL)
def test_on_arm64(kind: str, bundles: Bundles, arm64: Core, tmp_path: Path) -> None:
    """The golden numbers on the processor of the boards."""
    passes(arm64, bundles[kind], tmp_path)


@pytest.mark.parametrize("kind", ["patchcore", "padim", "maskrcnn"])
def test_no_allocation_per_frame(
    kind: str, bundles: Bundles, checked: Core, tmp_path: Path
) -> None:
    """Buffers are planned: a frame like an earlier one takes no memory, dynamic shapes included."""
    main = Path(__file__).parent / "allocations_main.cpp"
    program = checked.link(bundles[kind], tmp_path, main)
    done = checked.run(program, str(bundles[kind]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert counts
    assert set(counts.values()) == {"0"}, counts


def test_constants_inside_the_program(bundles: Bundles, checked: Core, tmp_path: Path) -> None:
    """Built in, weights.bin and the statistics may be missing; otherwise their absence is an error."""
    bundle = bundles["padim"]
    weights = bundle / "host" / "weights.bin"
    (statistics,) = bundle.glob("parts/*/statistics.adbank")
    files = {"WEIGHTS": weights, "STATISTICS": statistics}
    flags = [f'-DADC_EMBEDDED_{name}="{path}"' for name, path in files.items()]
    embedded = {"weights.cpp": ["-DADC_EMBED_WEIGHTS", *flags]}
    inside = checked.link(bundle, tmp_path / "inside", SELFTEST, embedded)
    beside = checked.link(bundle, tmp_path / "beside", SELFTEST)
    for file in (weights, statistics):
        hidden = file.rename(file.with_suffix(".hidden"))
        try:
            good = checked.run(inside, str(bundle), cwd=tmp_path)
            bad = checked.run(beside, str(bundle), cwd=tmp_path)
        finally:
            hidden.rename(file)
        assert good.returncode == 0, good.stdout + good.stderr
        assert bad.returncode == 2
        assert f"{file.name}: cannot open" in bad.stderr


def test_statistics_of_another_build(bundles: Bundles, checked: Core, tmp_path: Path) -> None:
    """The program holds their digest: one other number, or a shorter file, is refused."""
    bundle = copy_of(bundles["padim"], tmp_path / "copy")
    program = checked.link(bundles["padim"], tmp_path, SELFTEST)
    assert checked.run(program, str(bundle), cwd=tmp_path).returncode == 0
    (file,) = bundle.glob("parts/*/statistics.adbank")
    good = file.read_bytes()
    for data, message in (
        (good[:-4] + bytes(4), "differ from those of this build"),
        (good[:-64], "shorter or longer"),
    ):
        file.write_bytes(data)
        bad = checked.run(program, str(bundle), cwd=tmp_path)
        assert bad.returncode == 2
        assert message in bad.stderr


def copy_of(bundle: Path, to: Path) -> Path:
    """What a program reads of a bundle, to be damaged."""
    statistics = [p.relative_to(bundle).as_posix() for p in bundle.glob("parts/*/*.adbank")]
    for name in ("manifest.json", "golden", "bank", "host/weights.bin", *statistics):
        source, target = bundle / name, to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            shutil.copy(source, target)
    return to


def recorded(bundle: Path, part: str) -> list[Path]:
    """Files of the first golden sample with the outputs of a part."""
    manifest = read_manifest(bundle)
    names = [s.name for p in manifest.parts if p.name == part for s in p.outputs]
    return [bundle / manifest.golden[0].boundaries[n] for n in names]


def test_detection_program(bundles: Bundles, checked: Core, tmp_path: Path) -> None:
    """Boxes of a recorded picture as a table and a drawing; no detection is a stated result."""
    bundle = bundles["maskrcnn"]
    program = checked.link(bundle, tmp_path)
    picture = photographs()[0]
    words = ["-d", str(picture), "--runtime", "recorded", "-o", "drawn", "--min-score", "0"]
    done = checked.run(program, *words, "-b", str(bundle), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "detections.csv").read_text().splitlines()
    assert table[0] == "filename,label,class,score,x1,y1,x2,y2"
    assert len(table) > 1
    drawn = np.asarray(Image.open(tmp_path / "drawn" / f"{picture.stem}_result.png"))
    original = np.asarray(Image.open(picture).convert("RGB"))
    assert drawn.shape == original.shape
    assert (drawn != original).any()

    for refused, sentence in (
        (("-t", "9"), "-t is not for this model: it detects no anomalies"),
        (("-i", "9"), "-i 9: this model takes 64 x 64 pictures"),
        (("-e", "x.plan"), "-e: this bundle has 3 parts on devices, not one"),
    ):
        done = checked.run(program, *words, *refused, "-b", str(bundle), cwd=tmp_path)
        assert done.returncode == 2
        assert sentence in done.stderr

    other = copy_of(bundle, tmp_path / "none")
    for file in recorded(other, "box_head"):
        logits = np.load(file)
        if logits.shape[1] == CLASSES:
            logits[:, 0] = 100.0  # everything is background
            np.save(file, logits)
    done = checked.run(program, *words, "-b", str(other), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{picture.name}: 0 detections" in done.stdout
    assert len((tmp_path / "detections.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(("kind", "device"), [("patchcore", "embedding"), ("padim", "embedding")])
def test_features_that_are_not_numbers(
    kind: str, device: str, bundles: Bundles, checked: Core, tmp_path: Path, twill: DataSet
) -> None:
    """A NaN from the device stops the program or is an anomaly, never normal."""
    other = copy_of(bundles[kind], tmp_path / "copy")
    file = recorded(other, device)[0]
    features = np.load(file)
    features.reshape(-1)[0] = np.nan
    np.save(file, features)
    program = checked.link(bundles[kind], tmp_path)
    words = ["-d", str(twill.test[0].path), "--runtime", "recorded", "-b", str(other)]
    done = checked.run(program, *words, cwd=tmp_path)
    assert "Normal" not in done.stdout
    assert done.returncode == 2 or "Anomaly" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TOOLCHAINS if n not in DEFAULT])
def test_other_toolchains(name: str, bundles: Bundles, tmp_path: Path) -> None:
    """Clang, optimised builds, ThreadSanitizer with two threads."""
    toolchain = TOOLCHAINS[name]
    if toolchain.missing:
        pytest.skip(f"needs {toolchain.missing}")
    core = Core(toolchain, tmp_path / "core", program=False)
    for kind in KINDS:
        passes(core, bundles[kind], tmp_path / kind)
