"""Device engines against fakes of the vendor runtimes: calls, order, shapes, failures, leaks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from adcompile.backends.host.build import NATIVE, STRICT, find_compiler

FAKE = Path(__file__).parent / "fake_vendor"
SOURCES = (
    "engine",
    "engine_tensorrt",
    "engine_drpai",
    "engine_onnxruntime",
    "engine_recorded",
    "rows",
    "mosaic",
    "mosaic_layout",
    "mosaic_stage",
    "threads",
    "npy",
    "json",
    "sha256",
    "part",
)
DOUBLED = "y [2, 3]: 2 4 6 8 10 12"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver program, with all engines and sanitizers."""
    program = tmp_path_factory.mktemp("engines") / "driver"
    macros = [f"-DADC_WITH_{n}" for n in ("TENSORRT", "DRPAI", "ONNXRUNTIME")]
    files = [FAKE / "fake_vendor.cpp", FAKE / "engines_driver.cpp"]
    files += [NATIVE / f"{n}.cpp" for n in SOURCES]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [find_compiler(), *STRICT, "-O0", *sanitize, *macros, f"-I{NATIVE}", f"-I{FAKE}"]
    subprocess.run([*command, *map(str, files), "-o", str(program)], check=True)
    return program


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The files of a part: a text plan for the fake, an empty model, provider options."""
    (tmp_path / "net.plan").write_text("in x 0 -1 3\nout y 1 -1 3\nout extra 0 -1 3\n")
    (tmp_path / "net.onnx").write_text("")
    options = {"provider": "VitisAIExecutionProvider", "provider_options": {"cacheKey": "k"}}
    (tmp_path / "session.json").write_text(json.dumps(options))
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    return tmp_path


def run(
    driver: Path, kind: str, bundle: Path, rows: int = 2, **variables: str
) -> tuple[int, list[str]]:
    """Exit code and output lines of one run."""
    done = subprocess.run(
        [str(driver), kind, str(bundle), str(rows)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        timeout=60,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["tensorrt", "drpai", "onnxruntime"])
def test_doubles_and_frees_everything(kind: str, driver: Path, bundle: Path) -> None:
    """Two runs give the result twice (through float16 where the device says so); nothing leaks."""
    code, lines = run(driver, kind, bundle)
    assert code == 0
    assert lines.count(DOUBLED) == 2
    assert lines[-1] == "alive: 0 0"


def test_tensorrt_call_order(driver: Path, bundle: Path) -> None:
    """Shape, upload and address per input; an own address per output, read or not; then enqueue."""
    _, lines = run(driver, "tensorrt", bundle)
    calls = [x.split()[0] + (" " + x.split()[1] if "Address" in x else "") for x in lines]
    order = [c for c in calls if not c.startswith(("cudaMalloc", "y", "alive"))]
    assert order[4:13] == [
        "setInputShape",
        "upload",
        "setTensorAddress x",
        "getTensorShape",
        "setTensorAddress y",
        "getTensorShape",
        "setTensorAddress extra",
        "enqueueV3",
        "download",
    ]
    assert not any("SHARED" in x for x in lines)
    second = lines.index(DOUBLED)
    assert not any(x.startswith("cudaMalloc") for x in lines[second:])  # memory is kept


CALLS = {
    "tensorrt": """createInferRuntime deserializeCudaEngine createExecutionContext cudaStreamCreate
        setInputShape getTensorShape setTensorAddress enqueueV3 cudaMalloc upload download
        cudaStreamSynchronize""",
    "drpai": "LoadModel GetNumOutput GetOutput",  # the others of its interface return nothing
    "onnxruntime": """CreateEnv CreateSessionOptions AddSessionConfigEntry AppendExecutionProvider
        CreateSession CreateCpuMemoryInfo GetAllocatorWithDefaultOptions
        SessionGetInputCount SessionGetInputName AllocatorFree
        CreateTensorWithDataAsOrtValue Run GetTensorTypeAndShape GetTensorElementType
        GetDimensionsCount GetDimensions GetTensorMutableData""",
}


@pytest.mark.parametrize(
    ("kind", "call"), [(kind, call) for kind, calls in CALLS.items() for call in calls.split()]
)
def test_every_failure_is_reported(kind: str, call: str, driver: Path, bundle: Path) -> None:
    """A failing call ends in a sentence and exit code 1, without a leak."""
    code, lines = run(driver, kind, bundle, FAKE_FAIL=call)
    assert code == 1
    assert any(x.startswith("error: ") for x in lines)
    assert lines[-1] == "alive: 0 0"


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ("not a plan\n", "refuses the plan"),
        ("in x 0 -1 4\nout y 0 -1 3\n", "another shape"),
        ("in x 0 -1 3\nout z 0 -1 3\n", "lacks the output 'y'"),
        ("in x 0 -1 3\nin w 0 3\nout y 0 -1 3\n", "input 'w'"),
        ("in x 9 -1 3\nout y 0 -1 3\n", "element type"),
    ],
)
def test_wrong_plans_are_refused(plan: str, why: str, driver: Path, bundle: Path) -> None:
    """Names, shapes and types are compared with the bundle when the plan is opened."""
    (bundle / "net.plan").write_text(plan)
    code, lines = run(driver, "tensorrt", bundle)
    assert code == 1
    assert any(why in x for x in lines)


def test_changed_plan_is_refused(driver: Path, bundle: Path) -> None:
    """A file that the manifest lists must have its size and digest."""
    record = {"files": {"net.plan": {"size": 3, "sha256": "0" * 64}}}
    (bundle / "manifest.json").write_text(json.dumps(record))
    code, lines = run(driver, "tensorrt", bundle)
    assert code == 1
    assert any("not the one that was built" in x for x in lines)


def test_rows_are_cut_padded_and_joined(driver: Path, bundle: Path) -> None:
    """Five rows on a device that takes 4 or 1: two calls, the padding is thrown away."""
    code, lines = run(driver, "tensorrt", bundle, rows=5, ROW_SIZES="4")
    assert code == 0
    shapes = [x for x in lines if x.startswith("setInputShape")]
    assert shapes[:2] == ["setInputShape x 4x3", "setInputShape x 1x3"]
    wanted = " ".join(str(2 * (i + 1)) for i in range(15))
    assert f"y [5, 3]: {wanted}" in lines


def test_no_rows_make_no_call(driver: Path, bundle: Path) -> None:
    """Zero detections: empty results without touching the device."""
    code, lines = run(driver, "tensorrt", bundle, rows=0)
    assert code == 0
    assert "y [0, 3]:" in lines
    assert not any(x.startswith("enqueueV3") for x in lines)


FLAT = json.dumps(
    {
        "inputs": {"x": [1, 1, 2, 3, 1]},
        "outputs": {"y": [1, 1, 2, 3, 1]},
        "grids": [[2, 2], [3, 4]],
    }
)


@pytest.mark.parametrize(
    ("rows", "images"),
    [
        (1, ["1x3x4x6"]),
        (4, ["1x3x4x6"]),
        (5, ["1x3x6x12"]),
        (13, ["1x3x6x12", "1x3x4x6"]),
        (30, ["1x3x6x12", "1x3x6x12", "1x3x6x12"]),
    ],
)
def test_regions_lie_in_images(rows: int, images: list[str], driver: Path, bundle: Path) -> None:
    """One session per grid, opened from its own file with its own cache key; one call per image."""
    for size in (4, 12):
        (bundle / f"rows{size}.onnx").write_text("")
    code, lines = run(driver, "onnxruntime", bundle, rows=rows, MOSAIC=FLAT)
    assert code == 0
    opened = [x for x in lines if x.startswith(("CreateSession ", "AppendExecutionProvider"))]
    assert opened == [
        "AppendExecutionProvider VitisAI cacheKey=k-rows4",
        "CreateSession rows4.onnx",
        "AppendExecutionProvider VitisAI cacheKey=k-rows12",
        "CreateSession rows12.onnx",
    ]
    calls = [x.removeprefix("Run x ") for x in lines if x.startswith("Run")]
    assert calls == images * 2  # the driver runs twice
    wanted = " ".join(str(2 * (i + 1)) for i in range(3 * rows))
    assert lines.count(f"y [{rows}, 3]: {wanted}") == 2
    assert lines[-1] == "alive: 0 0"


def test_no_regions_make_no_image(driver: Path, bundle: Path) -> None:
    """Zero detections on a mosaic part."""
    code, lines = run(driver, "onnxruntime", bundle, rows=0, MOSAIC=FLAT)
    assert code == 0
    assert lines.count("y [0, 3]:") == 2
    assert not any(x.startswith("Run") for x in lines)


def test_a_missing_size_is_no_float_model(driver: Path, bundle: Path) -> None:
    """A bundle without the model of a grid is refused: the float model never stands in for it."""
    other = FLAT.replace("[3, 4]", "[3, 3]")
    code, lines = run(driver, "onnxruntime", bundle, MOSAIC=other)
    assert code == 1
    assert any("part net: the bundle has no model for 9 regions" in x for x in lines)
