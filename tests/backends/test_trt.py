"""TensorRT: a real plan, recipes by version, plan headers, half precision."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from adcompile.backends.trt.backend import TrtBackend
from adcompile.backends.trt.executor import TrtExecutor
from adcompile.backends.trt.plan_header import PlanHeader, check_version, read_header
from adcompile.backends.trt.trtexec import build_options
from adcompile.errors import FormatError, ToolMissing, UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part, Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import tensor_spec
from adcompile.lower.actions import run_actions
from adcompile.lower.half import to_half
from adcompile.lower.observe import observe
from adcompile.manifest import PartRecord
from adcompile.place.targets import resolve_target
from tests.lower.networks import Net, head, residual, samples, snr

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None


def made(
    target: str, precision: str, work: Path, kind: str = "", **options: str
) -> tuple[PartRecord, FileSet, Part]:
    model = head() if kind else residual()
    part = Part(
        "backbone", "device", "backbone", model,
        tuple(tensor_spec(v) for v in model.graph.inputs),
        tuple(tensor_spec(v) for v in model.graph.outputs),
        rows=kind,
    )  # fmt: skip
    data = samples(model, 2, rows=3)
    ctx = LowerContext(resolve_target(target), precision, data, [], work, options, Report())
    backend, out = TrtBackend(), FileSet()
    return backend.emit(part, backend.lower(part, ctx), ctx, out), out, part


@pytest.mark.skipif(not HAS_RTX, reason="tensorrt-rtx is not installed")
@pytest.mark.parametrize(("precision", "rows"), [("fp16", ""), ("int8", ""), ("fp32", "roi")])
def test_a_real_plan_is_built_here(tmp_path: Path, precision: str, rows: str) -> None:
    """The builder takes our typed files, also with a range of rows; the header is a plan's."""
    record, out, _ = made("trt:rtx-ada", precision, tmp_path, rows)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    out.write_into(bundle)
    (action,) = run_actions(bundle, out.actions)
    assert (action.state, action.detail) == ("done", "")
    header = read_header(bundle / record.files["plan"])
    assert header.family == "TensorRT-RTX"
    assert header.size == (bundle / record.files["plan"]).stat().st_size


def test_without_a_gpu_the_simulation_says_so(tmp_path: Path) -> None:
    """The typed file runs on the CPU; requiring the device is a missing tool."""
    record, out, part = made("trt:orin-nx", "fp16", tmp_path)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    out.write_into(bundle)
    executor = TrtExecutor()
    executor.open(record, bundle, {})
    feeds = next(iter(samples(part.model, 1)))
    found, wanted = executor.run(feeds), evaluate(part.model, feeds)
    assert executor.simulated
    assert "simulating trt" in executor.where
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=0.02)
    executor.close()
    with pytest.raises(ToolMissing, match="GPU"):
        TrtExecutor().open(record, bundle, {"require_device": "true"})


@pytest.mark.parametrize("version", ["8.5", "8.6", "10.3", "10.16"])
def test_recipe_is_a_shell_script_for_its_version(tmp_path: Path, version: str) -> None:
    """`sh -n` accepts it, options fit the version, and the action waits for the board."""
    record, out, _ = made(f"trt:orin-nx@{version}", "fp16", tmp_path)
    script = out.text(record.files["recipe"])
    path = tmp_path / "build.sh"
    path.write_text(script)
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert ("--stronglyTyped" in script) == (version.startswith("10"))
    assert ("--buildOnly" in script) == (version == "8.5")
    assert "--timingCacheFile" in script
    assert out.actions[0].state == "pending"


def test_recipe_runs_against_a_stand_in(tmp_path: Path) -> None:
    """With a fake trtexec the script writes the plan; another version on the board is refused, and what
    may help is said where it fails."""
    record, out, _ = made("trt:orin-nx@10.3", "fp16", tmp_path)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    out.write_into(bundle)
    tool = tmp_path / "trtexec"

    def run(number: str) -> subprocess.CompletedProcess[str]:
        tool.write_text(
            f"#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v{number}]'\n"
            'for a in "$@"; do case $a in --saveEngine=*) echo plan > "${a#*=}";; esac; done\n'
        )
        tool.chmod(0o755)
        return started()

    def started() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(bundle / record.files["recipe"])],
            env={"TRTEXEC": str(tool), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    tool.write_text("#!/bin/sh\necho '[E] some layer' >&2; case $* in *--onnx*) exit 1;; esac\n")
    tool.chmod(0o755)
    failed = started()
    assert failed.returncode == 1
    assert "fp32" in failed.stderr
    assert "--pin NODE=host" in failed.stderr
    assert "dla_core" not in failed.stderr
    assert not (bundle / record.files["plan"]).exists()
    refused = run("8601")
    assert (refused.returncode, "has 8.6" in refused.stderr) == (2, True)
    assert run("100300").returncode == 0
    assert (bundle / record.files["plan"]).read_text() == "plan\n"


def test_options_are_known_to_the_version() -> None:
    """What one version takes, another lacks."""
    assert "--int8" in build_options((8, 6), "int8", profile={}, workspace_mib=64)
    assert "--int8" not in build_options((11, 1), "int8", profile={}, workspace_mib=64)
    rows = {"x": [[1, 3], [4, 3], [8, 3]]}
    shapes = build_options((10, 3), "fp32", profile=rows, workspace_mib=64)
    assert "--optShapes=x:4x3" in shapes


def test_wishes_reach_the_builder(tmp_path: Path) -> None:
    """Scratch memory and level stand in the recipe, the memory also in the action that builds here."""
    record, out, _ = made("trt:orin-nx@10.3", "fp16", tmp_path, workspace_mib="777", opt_level="4")
    script = out.text(record.files["recipe"])
    assert "--memPoolSize=workspace:777" in script
    assert "--builderOptimizationLevel=4" in script
    _, out, _ = made("trt:rtx-ada", "fp16", tmp_path, workspace_mib="777")
    argv = out.actions[0].argv
    assert argv[argv.index("--workspace-mib") + 1] == "777"


@pytest.mark.parametrize(
    ("target", "precision", "rows", "words"),
    [("trt:orin-nx@10.16", "fp16", "", "support ended"), ("trt:orin-nx", "int8", "", "explicit"),
     ("trt:orin-nx", "fp32", "", "no fp32"), ("trt:orin-nx", "fp16", "roi", "fixed shapes only")],
)  # fmt: skip
def test_what_the_dla_cannot_build(
    tmp_path: Path, target: str, precision: str, rows: str, words: str
) -> None:
    """A version without it, formats that it does not take, a part with any number of rows."""
    with pytest.raises(UsageError, match=words):
        made(target, precision, tmp_path, rows, dla_core="0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"short", "too short"),
        (b"\x08" + bytes(80), "not a TensorRT plan"),
        (b"vtrt" + bytes(12) + (999).to_bytes(8, "little") + bytes(60), "truncated"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    """A short file, an ONNX file, a truncated copy."""
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_header(path)


def test_a_plan_of_another_version_is_refused() -> None:
    """Major and minor must be the runtime's."""
    header = PlanHeader("TensorRT", (10, 3, 0, 26), 100)
    check_version(header, "10.3.1", "p")
    with pytest.raises(FormatError, match="another TensorRT"):
        check_version(header, "10.7.0", "p")


def test_values_beyond_half_stay_in_float() -> None:
    """A layer whose result passes 65504 is kept in float32, and nothing becomes infinite."""
    net = Net()
    a = net.node("Mul", ["x", net.constant("big", np.float32(40000.0))], "a")
    net.node("Mul", [a, net.constant("small", np.float32(1e-4))], "y")
    model = net.model({"x": [1, 8]}, {"y": [1, 8]})
    data = samples(model, 2)
    seen = observe(model, ["a"], data)
    half, kept = to_half(model, seen)
    assert {k.node for k in kept} >= {"n_a"}
    assert snr(model, half, data) > 50.0
    careless, _ = to_half(residual(), {})
    assert snr(residual(), careless, samples(residual(), 1)) > 40.0


def test_constants_of_nodes_keep_their_type() -> None:
    """Constant and ConstantOfShape have no float input that could make them half; readers and
    outputs of the model get what they expect."""
    body = (
        "c = Constant<value_floats = [1.5, -2.0]>() s = Constant<value_ints = [2]>() "
        "z = ConstantOfShape<value = float[1] {0.25}>(s) a = Mul(x, c) y = Add(a, z) "
    )
    model = model_io.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 17]> '
            f"g (float[1,2] x) => (float[1,2] y, float[2] c, float[2] z) {{ {body} }}"
        )
    )
    half, _ = to_half(model, {})
    onnx.checker.check_model(model_io.to_proto(half), full_check=True)
    feeds = {"x": np.asarray([[3.0, 4.0]], np.float32)}
    for name, array in evaluate(model, feeds).items():
        np.testing.assert_allclose(evaluate(half, feeds)[name], array, atol=1e-2)
    assert {n.op_type: n.outputs[0].dtype for n in half.graph}["Mul"] == ir.DataType.FLOAT16
