"""Quantized device models of a Mask R-CNN, run by the C++ program through the real ONNX Runtime."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.backends.host.build import NATIVE
from adcompile.backends.simulation import simulate
from adcompile.manifest import PartRecord
from adcompile.runtime.bundle import load
from adcompile.runtime.executor import Array
from tests.detectors import photographs
from tests.host.device_models import (
    LARGE,
    ON_CPU,
    SMALL,
    Bundles,
    OnnxRuntime,
    heads,
    judged_as_by_verify,
    link,
)
from tests.host.toolchains import PROGRAM, SELFTEST, Core

HERE = Path(__file__).parent
CAPACITY = 9
FEW = 4  # regions that a mosaic of the large detector holds
POLICIES = {
    "mosaic": {"roi_policy": "mosaic", "roi_capacity": str(CAPACITY)},
    "bucket": {"roi_policy": "bucket", "roi_buckets": f"2,{CAPACITY}"},
    "loop": {"roi_policy": "loop"},
}
COUNTS = (0, 1, CAPACITY - 1, CAPACITY, CAPACITY + 1, 3 * CAPACITY + 2)
# mosaics of two sizes by default; the others take as long again
TRIED = [
    pytest.param("a8w8", "bucket"),
    *(
        pytest.param(precision, policy, marks=pytest.mark.slow)
        for precision, policy in (
            ("a8w8", "mosaic"),
            ("a8w8", "loop"),
            ("xint8", "bucket"),
            ("xint8", "mosaic"),
        )
    ),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Of the small detector."""
    pytest.importorskip("torch")
    return Bundles(tmp_path_factory.mktemp("bundles"), SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Of the large one."""
    pytest.importorskip("torch")
    return Bundles(tmp_path_factory.mktemp("large"), LARGE)


@pytest.mark.parametrize(("precision", "policy"), TRIED)
def test_selftest_runs_the_quantized_parts(
    precision: str,
    policy: str,
    bundles: Bundles,
    checked: Core,
    ort: OnnxRuntime,
    tmp_path: Path,
) -> None:
    """Golden data through every part, devices included, and by recorded answers."""
    bundle = bundles.build(precision, POLICIES[policy])
    program = link(checked, bundle, tmp_path, ort)
    done = checked.run(program, str(bundle), *ON_CPU, cwd=tmp_path)
    right = judged_as_by_verify(bundle, done.stdout)
    assert done.returncode == (0 if right else 1), done.stderr
    assert re.search(r"\d+ tensors compared, \d+ different, 0 parts skipped", done.stdout)
    for part in heads(bundle):
        ran = re.findall(rf"^  {part.name} +[\d.]+ ms\n( +.* fits \(.*\n)+", done.stdout, re.M)
        assert len(ran) == 2, done.stdout  # one per golden sample
        laid_out = f"{part.name:20} regions as tiles" in done.stdout
        assert laid_out == (policy != "loop")
    done = checked.run(program, str(bundle), "--runtime", "recorded", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    noise_is_explained(bundle, checked, program, tmp_path)


def noise_is_explained(bundle: Path, core: Core, program: Path, tmp_path: Path) -> None:
    """A part below its bound: the ratio of the build tells coarse quantization from a wrong device."""
    other = tmp_path / "noisy"
    shutil.copytree(bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    part = next(p for p in manifest["parts"] if p["placement"] == "device")
    golden = other / manifest["golden"][0]["boundaries"][part["outputs"][0]["name"]]
    array = np.load(golden)
    np.save(golden, array[..., ::-1].copy())  # as far from the device's as two images are
    for built, verdict in (
        (None, "unknown from the build; `adcompile verify` measures"),
        (-30.0, "-30 dB when it was built: its quantization is too coarse for this data"),
        (60.0, "60 dB when it was built: this device or its runtime computes other numbers"),
    ):
        results = {} if built is None else {f"part {part['name']} isolated snr_db": built}
        (other / "manifest.json").write_text(json.dumps({**manifest, "results": results}))
        done = core.run(program, str(other), *ON_CPU, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert re.search(
            rf"^{part['name']}: \S+ dB here, {re.escape(verdict)}", done.stdout, re.M
        ), done.stdout


def region_rows(part: PartRecord, count: int) -> dict[str, Array]:
    """Random regions of a part."""
    rng = np.random.default_rng(count)
    found: dict[str, Array] = {}
    for spec in part.inputs:
        shape = [count, *(d for d in spec.shape[1:] if isinstance(d, int))]
        found[spec.name] = np.abs(rng.standard_normal(shape)).astype(np.float32)
    return found


@pytest.mark.parametrize(("precision", "policy"), TRIED)
def test_regions_equal_python(
    precision: str,
    policy: str,
    bundles: Bundles,
    checked: Core,
    ort: OnnxRuntime,
    tmp_path: Path,
) -> None:
    """The numbers of the Python simulation, bit for bit, for any number of regions."""
    bundle = bundles.build(precision, POLICIES[policy])
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
    bundle = bundles.build("a8w8", POLICIES["bucket"])
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
    shutil.copytree(bundles.build("a8w8", POLICIES["mosaic"]), bundle)
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


def test_a_frame_allocates_nothing(
    bundles: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """Host and device parts of a frame like an earlier one: not a block is taken by this program (what
    ONNX Runtime takes for itself does not count)."""
    bundle = bundles.build("a8w8", POLICIES["bucket"])
    program = link(checked, bundle, tmp_path, ort, HERE / "device_allocations_main.cpp")
    done = checked.run(program, str(bundle), "onnxruntime", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert {p.name for p in heads(bundle)} < set(counts)
    assert set(counts.values()) == {"0"}, counts


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["a8w8", "xint8"])
def test_whole_pictures_equal_python(
    precision: str, large: Bundles, checked: Core, ort: OnnxRuntime, tmp_path: Path
) -> None:
    """A larger detector on photographs with no box, one, and more than a mosaic holds: the program finds
    what Python finds, and its self-test passes."""
    bundle = large.build(precision, {"roi_policy": "mosaic", "roi_capacity": str(FEW)})
    program = link(checked, bundle, tmp_path, ort, SELFTEST)
    done = checked.run(program, str(bundle), *ON_CPU, cwd=tmp_path)
    assert done.returncode == (0 if judged_as_by_verify(bundle, done.stdout) else 1), done.stderr
    done = checked.run(program, str(bundle), "--runtime", "recorded", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in photographs():
        shutil.copy(path, pictures)
    program = link(checked, bundle, tmp_path / "program", ort, PROGRAM)
    words = ["-d", str(pictures), "-b", str(bundle), "--min-score", "0", "--csv", "found.csv"]
    done = checked.run(program, *words, *ON_CPU, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    with (tmp_path / "found.csv").open() as table:
        for row in csv.DictReader(table):
            found[row["filename"]].append(row)
    counts: set[int] = set()
    with load(bundle) as opened:
        for path in sorted(pictures.iterdir()):
            wanted, rows = opened(path), found[path.name]
            counts.add(len(rows))
            assert [int(r["label"]) for r in rows] == wanted["labels"].tolist(), path.name
            scores = [float(r["score"]) for r in rows]
            np.testing.assert_allclose(scores, wanted["scores"], atol=1e-4, err_msg=path.name)
            with Image.open(path) as picture:
                scale = np.array(picture.size * 2) / LARGE.size
            boxes = np.array([[float(r[k]) for k in ("x1", "y1", "x2", "y2")] for r in rows])
            pixels = wanted["boxes"].reshape(-1, 4) * scale
            np.testing.assert_allclose(boxes.reshape(-1, 4), pixels, atol=0.02, err_msg=path.name)
    assert {0, 1} <= counts
    assert max(counts) > FEW
