"""Device engines against fakes of the vendor runtimes: calls, order, shapes, failures, leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.host.engines import Driver, run

KINDS = ("tensorrt", "drpai", "onnxruntime")
DOUBLED = "y [2, 3]: 2 4 6 8 10 12"
SUMMED = "y [2, 3]: 402 604 806 408 610 812"
# two inputs and two outputs, in another order than the model's, some in float16 on the device
PORTS = "in x 1 {n} 3\nin scale 1 1 3\nout y 1 {n} 3\nout z 1 {n} 2\n"
MODELS = {  # by each runtime's numbers of the types
    "tensorrt": "out z 0 -1 2\nin scale 1 1 3\nout y 1 -1 3\nin x 0 -1 3\n",
    "drpai": "in x 0 6\nin scale 1 3\nout y 1 6\nout z 0 4\n",
    "onnxruntime": "out z 1 -1 2\nin scale 10 1 3\nout y 10 2 3\nin x 1 -1 3\n",
}
FILES = {
    "tensorrt": "net.plan",
    "drpai": "parts/net/compiled/model",
    "onnxruntime": "net.onnx",
}


@pytest.fixture
def pair(bundle: Path) -> Path:
    """A part with two inputs and two outputs."""
    (bundle / "parts" / "net" / "compiled").mkdir()
    for kind, model in MODELS.items():
        (bundle / FILES[kind]).write_text(model)
    return bundle


@pytest.mark.parametrize("kind", KINDS)
def test_doubles_and_frees_everything(kind: str, driver: Driver, bundle: Path) -> None:
    """Three runs give the result (through float16 where the device says so); nothing leaks, and the
    last run takes no memory."""
    code, lines = run(driver.path, kind, bundle)
    assert code == 0, lines
    assert lines.count(DOUBLED) == 3
    assert "took 0" in lines
    assert lines[-1] == "alive: 0"


def is_right(code: int, lines: list[str]) -> bool:
    """Both outputs in all three runs, nothing leaked; the last run took no memory and made no value."""
    if code != 0 or lines.count(SUMMED) != 3 or lines.count("z [2, 2]: 403 605 807 409") != 3:
        return False
    third = [i for i, x in enumerate(lines) if x == "run"][2]
    made = [x for x in lines[third:] if x.startswith(("Create", "cudaMalloc"))]
    return "took 0" in lines and lines[-1] == "alive: 0" and not made


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_told_apart(kind: str, driver: Driver, pair: Path) -> None:
    """By name where the runtime has names, by number where it has not. Every output has memory of its
    own, though the DRP-AI runtime answers in one place; types are converted both ways."""
    (pair / "ports").write_text(PORTS.format(n=2 if kind == "drpai" else -1))
    code, lines = run(driver.path, kind, pair)
    assert is_right(code, lines), lines


CALLS = {
    "tensorrt": """createInferRuntime deserializeCudaEngine createExecutionContext cudaStreamCreate
        setInputShape getTensorShape setTensorAddress enqueueV3 cudaMalloc upload download
        cudaStreamSynchronize""",
    # the others of its interface return nothing
    "drpai": "open ioctl LoadModel GetNumInput GetNumOutput GetInputDataType GetOutput",
    "onnxruntime": """GetApi CreateEnv CreateSessionOptions SetIntraOpNumThreads AddSessionConfigEntry
        AppendExecutionProvider CreateSession CreateCpuMemoryInfo GetAllocatorWithDefaultOptions
        SessionGetCount SessionGetName AllocatorFree SessionGetTypeInfo CastTypeInfoToTensorInfo
        CreateTensorWithDataAsOrtValue Run GetTensorTypeAndShape GetTensorElementType
        GetDimensionsCount GetDimensions GetTensorMutableData""",
}


@pytest.mark.parametrize(
    ("kind", "call"), [(kind, call) for kind, calls in CALLS.items() for call in calls.split()]
)
def test_every_failure_is_reported(kind: str, call: str, driver: Driver, bundle: Path) -> None:
    """A failing call ends in a sentence and exit code 1, without a leak."""
    options = {"threads": "2"} if kind == "onnxruntime" else {}
    code, lines = run(driver.path, kind, bundle, options=options, FAKE_FAIL=call)
    assert any(x.startswith(call) and x.endswith("FAILS") for x in lines)
    assert code == 1
    assert any(x.startswith("error: ") for x in lines)
    assert lines[-1] == "alive: 0"


WRONG = {
    "tensorrt": [
        ("not a plan\n", "refuses the plan (magic tag does not match)"),
        ("in x 0 -1 4\nout y 0 -1 3\n", "'x' has another shape: [?, 4], the bundle says [?, 3]"),
        ("in x 0 -1 3\nout y 0 -1 3 1\n", "'y' has another shape: [?, 3, 1]"),
        ("in x 3 -1 3\nout y 0 -1 3\n", "'x' is int32, the bundle says float32"),
        ("in x 0 -1 3\nout z 0 -1 3\n", "lacks the output 'y'"),
        ("out y 0 -1 3\n", "lacks an input"),
        ("in x 0 -1 3\nin w 0 3\nout y 0 -1 3\n", "input 'w'"),
        ("in x 9 -1 3\nout y 0 -1 3\n", "element type"),
        ("in x 0 4 3\nout y 0 -1 3\n", "does not take 'x' of shape [2, 3]"),
        ("in x 0 -1 3\nout y 0 -1 -1\n", "the size of 'y' depends on the data"),
    ],
    "onnxruntime": [
        ("not a model\n", "CreateSession: the model cannot be read"),
        ("in x 1 -1 4\nout y 1 -1 3\n", "'x' has another shape: [?, 4], the bundle says [?, 3]"),
        ("in x 6 -1 3\nout y 1 -1 3\n", "'x' is int32, the bundle says float32"),
        ("in x 1 -1 3\nout z 1 -1 3\n", "the model lacks 'y'"),
        ("out y 1 -1 3\n", "the model lacks 'x'"),
        ("in x 1 -1 3\nin w 1 3\nout y 1 -1 3\n", "input 'w'"),
        ("in x 8 -1 3\nout y 1 -1 3\n", "element type"),  # a string
        ("in x 0 -1 3\nout y 1 -1 3\n", "'x' of the model is no tensor"),
        ("in x 1 4 3\nout y 1 -1 3\n", "Run: does not take x"),
        ("in x 1 -1 3\nout y 1 4 3\n", "returned [4, 3] for 2 rows"),
    ],
    "drpai": [
        ("not a model\n", "cannot load the model"),
        ("in x 0 6\nin w 0 6\nout y 0 6\n", "has 2 inputs, the bundle says 1"),
        ("in x 0 6\nout y 0 6\nout z 0 6\n", "has 2 outputs, the bundle says 1"),
        ("in x 0 6\nout y 0 7\n", "output 'y' has 7 numbers, expected 6"),
        ("in x 0 6\nout y 3 6\n", "output 'y' is neither float16 nor float32"),
        ("in x 2 6\nout y 0 6\n", "input 0 is neither float16 nor float32"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "model", "why"), [(k, m, w) for k, cases in WRONG.items() for m, w in cases]
)
def test_models_that_do_not_fit_are_refused(
    kind: str, model: str, why: str, driver: Driver, pair: Path
) -> None:
    """Names, numbers, shapes and types are compared with the bundle: when the model is opened, or when
    the runtime first knows them."""
    (pair / FILES[kind]).write_text(model)
    code, lines = run(driver.path, kind, pair)
    assert code == 1
    assert any(x.startswith("error: ") and why in x for x in lines), lines
    assert lines[-1] == "alive: 0"


# engine, what it does right, a slip, what the fake says to it
SLIPS = [
    (
        "tensorrt",
        "b.device.reserve(b.bytes())",
        "bound_out_[0].device.reserve(64)",
        "shared memory",
    ),
    ("tensorrt", "b.device.reserve(b.bytes())", "b.device.reserve(1)", "too little memory"),
    (
        "tensorrt",
        "context_->setInputShape(b.name.c_str(), dims)",
        "(dims.nbDims >= 0)",
        "depends on the data",
    ),
    (
        "tensorrt",
        "context_->setTensorAddress(b.name.c_str(), device)",
        "(device != nullptr)",
        "no address for",
    ),
    ("tensorrt", 'check(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");', "", ""),
    ("tensorrt", "for (Binding& b : bound_out_) place(b);", "", "no address for"),
    ("drpai", "return {port.dtype, shape, to};", "return {port.dtype, shape, data};", ""),
    ("drpai", "feed(static_cast<int>(i), in[i]", "feed(static_cast<int>(i), in[0]", ""),
    ("drpai", "type == InOutDataType::FLOAT16 ? DType::kFloat16 :", "", ""),
    (
        "onnxruntime",
        "given_[i] = inputs_[i].value.get();",
        "given_[i] = inputs_[0].value.get();",
        "",
    ),
    (
        "onnxruntime",
        "names_out_.push_back(port.name);",
        "names_out_.insert(names_out_.begin(), port.name);",
        "",
    ),
    ("onnxruntime", "if (!outputs_[i].fixed) outputs_[i].value.reset(made_[i]);", "", ""),
    ("onnxruntime", "data == input.data && ", "data != input.data && ", ""),
]
_ALWAYS = (0, 6, 9)  # one of each engine; the others take as long again


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "why"),
    [
        pytest.param(*s, marks=() if i in _ALWAYS else pytest.mark.slow)
        for i, s in enumerate(SLIPS)
    ],
)
def test_slips_are_noticed(
    kind: str, right: str, wrong: str, why: str, driver: Driver, pair: Path
) -> None:
    """The fakes can fail: an engine with one of these slips does not pass the test of two inputs."""
    (pair / "ports").write_text(PORTS.format(n=2 if kind == "drpai" else -1))
    code, lines = run(driver.sabotaged(f"engine_{kind}", right, wrong), kind, pair)
    assert not is_right(code, lines)
    assert not why or any(why in x for x in lines), lines


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_options_are_refused(kind: str, driver: Driver, bundle: Path) -> None:
    """A slip in ``--device-option`` is not ignored."""
    code, lines = run(driver.path, kind, bundle, options={"treads": "2"})
    assert code == 1
    why = "error: part net: its runtime has no option 'treads' (known: plan"
    assert any(x.startswith(why) for x in lines)


def test_tensorrt_call_order(driver: Driver, bundle: Path) -> None:
    """Shape, upload and address per input; an own address per output, read or not; then enqueue."""
    _, lines = run(driver.path, "tensorrt", bundle)
    start = lines.index("run")
    calls = [x.split()[0] + (" " + x.split()[1] if "Address" in x else "") for x in lines[start:]]
    order = [c for c in calls if not c.startswith(("cudaMalloc", "y"))]
    assert order[1:11] == [
        "setInputShape",
        "upload",
        "setTensorAddress x",
        "getTensorShape",
        "setTensorAddress y",
        "getTensorShape",
        "setTensorAddress extra",
        "enqueueV3",
        "download",
        "cudaStreamSynchronize",
    ]
    second = lines.index(DOUBLED)
    assert not any(x.startswith("cudaMalloc") for x in lines[second:])  # memory is kept


def test_drpai_memory_is_the_drivers(driver: Driver, bundle: Path) -> None:
    """The area of the driver plus the room of the pre-processing, or as the caller says."""
    _, lines = run(driver.path, "drpai", bundle)
    assert lines[:3] == ["open /dev/drpai0", "ioctl", "LoadModel /parts/net/compiled 0x2438e0000"]
    assert lines.count("Run") == 3
    options = {"drpai_offset": "0x10"}
    _, lines = run(driver.path, "drpai", bundle, options=options)
    assert "LoadModel /parts/net/compiled 0x240000010" in lines
    options = {"drpai_address": "0x1000", "drpai_frequency": "2", "plan": "/elsewhere"}
    _, lines = run(driver.path, "drpai", bundle, options=options)
    assert lines[0] == "LoadModel /elsewhere 0x1000"
    assert lines.count("Run 2") == 3


def test_onnxruntime_makes_values_once(driver: Driver, pair: Path) -> None:
    """One value per input as long as its memory stays where it is, one per output of fixed size; what
    the runtime must make itself is looked at anew."""
    (pair / "ports").write_text(PORTS.format(n=-1))
    _, lines = run(driver.path, "onnxruntime", pair)
    first, second, third = (i for i, x in enumerate(lines) if x == "run")
    made = [x for x in lines if x.startswith("CreateTensor")]
    assert made == [f"CreateTensorWithDataAsOrtValue {s}" for s in ("2x3", "2x3", "1x3")]
    assert lines[second:third] != lines[first:second]
    assert not any(x.startswith("Create") for x in lines[second:])
    assert lines[second:].count("GetTensorMutableData") == 2  # of z, whose size is free


def test_changed_plan_is_refused(driver: Driver, bundle: Path) -> None:
    """A file that the manifest lists must have its size and digest."""
    record = {"files": {"net.plan": {"size": 3, "sha256": "0" * 64}}}
    (bundle / "manifest.json").write_text(json.dumps(record))
    code, lines = run(driver.path, "tensorrt", bundle)
    assert code == 1
    assert any("not the one that was built" in x for x in lines)


def test_rows_are_cut_padded_and_joined(driver: Driver, bundle: Path) -> None:
    """Five rows on a device that takes 4 or 1: two calls, the padding is thrown away."""
    code, lines = run(driver.path, "tensorrt", bundle, rows=5, ROW_SIZES="4")
    assert code == 0
    shapes = [x for x in lines if x.startswith("setInputShape")]
    assert shapes[:2] == ["setInputShape x 4x3", "setInputShape x 1x3"]
    wanted = " ".join(str(2 * (i + 1)) for i in range(15))
    assert f"y [5, 3]: {wanted}" in lines


@pytest.mark.parametrize("kind", ["tensorrt", "onnxruntime"])
def test_no_rows_make_no_call(kind: str, driver: Driver, bundle: Path) -> None:
    """Zero detections: empty results without touching the device."""
    code, lines = run(driver.path, kind, bundle, rows=0)
    assert code == 0
    assert "y [0, 3]:" in lines
    assert not any(x.startswith(("enqueueV3", "Run")) for x in lines)


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
def test_regions_lie_in_images(rows: int, images: list[str], driver: Driver, bundle: Path) -> None:
    """One session per grid, opened from its own file with its own cache key; one call per image, which
    takes no memory."""
    for size, image in ((4, "1 3 4 6"), (12, "1 3 6 12")):
        (bundle / f"rows{size}.onnx").write_text(f"in x 1 {image}\nout y 1 {image}\n")
    code, lines = run(driver.path, "onnxruntime", bundle, rows=rows, MOSAIC=FLAT)
    assert code == 0
    sessions = [x for x in lines if x.startswith("CreateSession ")]
    assert sessions == ["CreateSession rows4.onnx", "CreateSession rows12.onnx"]
    keys = [x.rpartition("cache_key=")[2] for x in lines if x.startswith("AppendExecution")]
    assert len(set(keys)) == 2
    calls = [x.removeprefix("Run x ") for x in lines if x.startswith("Run")]
    assert calls == images * 3  # the driver runs three times
    wanted = " ".join(str(2 * (i + 1)) for i in range(3 * rows))
    assert lines.count(f"y [{rows}, 3]: {wanted}") == 3
    assert "took 0" in lines
    assert lines[-1] == "alive: 0"


def test_no_regions_make_no_image(driver: Driver, bundle: Path) -> None:
    """Zero detections on a mosaic part."""
    for size, image in ((4, "1 3 4 6"), (12, "1 3 6 12")):
        (bundle / f"rows{size}.onnx").write_text(f"in x 1 {image}\nout y 1 {image}\n")
    code, lines = run(driver.path, "onnxruntime", bundle, rows=0, MOSAIC=FLAT)
    assert code == 0
    assert lines.count("y [0, 3]:") == 3
    assert not any(x.startswith("Run") for x in lines)


def test_a_missing_size_is_no_float_model(driver: Driver, bundle: Path) -> None:
    """A bundle without the model of a grid is refused: the float model never stands in for it."""
    other = FLAT.replace("[2, 2]", "[1, 3]").replace("[3, 4]", "[3, 3]")
    code, lines = run(driver.path, "onnxruntime", bundle, MOSAIC=other)
    assert code == 1
    assert any("part net: the bundle has no model for 3 regions" in x for x in lines)
