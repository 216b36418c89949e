"""Support tables: every row accepts something, refusals say why and what helps, TensorRT agrees."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from adcompile.backends.drpai import support as drpai
from adcompile.backends.npu import support as npu
from adcompile.backends.trt import support as trt
from adcompile.interfaces import Facts, Verdict
from adcompile.place.facts import facts_of
from adcompile.place.targets import resolve_target
from tests.place.cases import CASES, VARIANTS, Case

FAMILIES = {"trt": trt, "npu": npu, "drpai": drpai}
ROWS = [(family, op) for family, m in FAMILIES.items() for op in m.TABLE.rows if op != "Constant"]


def verdict(case: Case, target: str, precision: str = "") -> Verdict:
    """What the target's table says about the only node of *case*."""
    resolved = resolve_target(target)
    model = case.model()
    facts = facts_of(model, resolved, precision or resolved.precisions[0])
    return FAMILIES[resolved.family].supports(model.graph[0], facts)


BEST_TARGET = {"trt": "trt:gpu@10.16", "npu": "npu:stx", "drpai": "drpai:v2h"}
# listed by the vendor, yet always on the host: outputs that depend on data, shape arithmetic,
# integer results, and what the layout rule (one image, vectors or C×H×W) excludes
ON_HOST = {
    "trt": {"Shape", "Size", "NonMaxSuppression", "NonZero"},
    "npu": set[str](),
    "drpai": set[str](),
}


@pytest.mark.parametrize(("family", "op"), ROWS)
def test_every_row_accepts_its_op(family: str, op: str) -> None:
    """A row that accepts nothing would be dead text."""
    precisions = FAMILIES[family].TABLE.rows[op].precisions or ("",)
    answers = [verdict(CASES[op], BEST_TARGET[family], precision) for precision in precisions]
    wanted = "unsupported" if op in ON_HOST[family] else "supported"
    assert [a.state for a in answers] == [wanted] * len(answers), [a.reason for a in answers]


REFUSED = [
    ("trt", "", "topk_4000", "TopK with k > 3840"),
    ("trt", "", "resize_symmetric", "half_pixel_symmetric"),
    ("trt", "", "resize_antialias", "antialiasing"),
    ("trt", "", "resize_keep", "aspect ratio"),
    ("trt", "", "resize_tf", "rounds down"),
    ("trt", "", "pool_dilated", "dilation"),
    ("trt", "", "pool_indices", "2 outputs"),
    ("trt:orin-nx@10.3", "", "pad_wrap", "'wrap'"),
    ("trt:orin-nx@8.6", "", "relu_bfloat", "bfloat16 needs TensorRT 9.0"),
    ("trt", "", "scatter_add", "reduction 'add'"),
    ("trt", "", "quantize_5", "zero point"),
    ("trt", "", "quantize_128", "zero point"),
    ("trt", "", "dequantize_bias", "int32 bias"),
    ("trt", "", "conv_double", "float64"),
    ("trt", "", "conv_free", "not static"),
    ("trt", "", "relu_empty", "without elements (1×0×8×8)"),
    ("npu", "xint8", "relu_empty", "without elements"),
    ("trt", "", "reshape_computed", "must be a constant"),
    ("trt", "", "add_shape", "shape arithmetic"),
    ("trt:rtx-ada", "", "RoiAlign", "cannot build RoiAlign"),
    ("trt:orin-nx@8.5", "", "LayerNormalization", "not in TensorRT 8.5"),
    ("trt", "", "NonZero", "output size depends on the data"),
    ("trt", "", "Unique", "does not read"),
    ("npu", "xint8", "ConvTranspose", "not available in xint8"),
    ("npu", "xint8", "Sigmoid", "not available in xint8"),
    ("npu", "a16w8", "Resize", "not available in a16w8"),
    ("npu", "xint8", "PRelu", "no column"),
    ("npu", "xint8", "pool_1x1", "1×1 window"),
    ("npu", "xint8", "conv_batch", "batch of 2"),
    ("npu", "xint8", "conv_computed", "computed weights"),
    ("npu", "xint8", "conv_half", "float16"),
    ("npu", "xint8", "add_int64", "int64"),
    ("npu", "xint8", "resize_cubic", "cubic"),
    ("npu", "xint8", "RoiAlign", "no column"),
    ("drpai", "int8", "add_5d", "5 dimensions"),
    ("drpai", "int8", "conv_batch", "batch of 2"),
    ("drpai", "int8", "DepthToSpace", "not in the translator's list"),
    ("drpai", "int8", "TopK", "not in the translator's operator list"),
    ("drpai", "int8", "conv_computed", "computed weights"),
    ("drpai", "int8", "pool_dilated", "dilation"),
    ("drpai", "int8", "resize_cubic", "cubic"),
]


@pytest.mark.parametrize(("target", "precision", "name", "reason"), REFUSED)
def test_refusals_say_why(target: str, precision: str, name: str, reason: str) -> None:
    """Attributes, shapes, types, precision and toolchain version decide, and the reason says which."""
    answer = verdict({**CASES, **VARIANTS}[name], target, precision)
    assert answer.state == "unsupported"
    assert reason in answer.reason
    assert answer.source


FIXED = [
    ("npu", "xint8", "ConvTranspose", "a8w8", "quantized"),
    ("npu", "xint8", "Sigmoid", "HardSigmoid", "approximate"),
    ("npu", "xint8", "pool_1x1", "depthwise", "exact"),
    ("npu", "xint8", "PRelu", "Relu", "exact"),
    ("npu", "xint8", "Gather", "bf16", "quantized"),
    ("trt", "", "resize_antialias", "turn it off", "approximate"),
    ("trt", "", "conv_free", "--input-shape i0", "exact"),
    ("trt:orin-nx@8.5", "", "LayerNormalization", "8.6", "exact"),
    ("drpai", "int8", "resize_cubic", "linear", "approximate"),
]


@pytest.mark.parametrize(("target", "precision", "name", "fix", "exactness"), FIXED)
def test_refusals_suggest_a_fix_with_its_exactness(
    target: str, precision: str, name: str, fix: str, exactness: str
) -> None:
    """A suggestion names what to do and what that does to the numbers."""
    answer = verdict({**CASES, **VARIANTS}[name], target, precision)
    assert fix in answer.fix
    assert answer.fix_exactness == exactness


CAUTIONS = [
    ("npu", "xint8", "conv_dilated", "dilated"),
    ("npu", "xint8", "conv_huge", "kernel above 16"),
    ("npu", "xint8", "pool_big", "window above 20"),
    ("npu", "xint8", "resize_linear", "fall back"),
    ("npu", "bf16", "Relu", "BF16 column"),
    ("drpai", "int8", "conv_grouped", "grouped Conv"),
]


@pytest.mark.parametrize(("target", "precision", "name", "text"), CAUTIONS)
def test_doubtful_configurations_are_accepted_with_a_caution(
    target: str, precision: str, name: str, text: str
) -> None:
    """Limits known only from older compilers warn; they do not decide."""
    answer = verdict({**CASES, **VARIANTS}[name], target, precision)
    assert answer.state == "supported"
    assert text in answer.reason


def test_unknown_is_not_a_guess() -> None:
    """What the vendor says nothing about is unknown, neither yes nor no."""
    assert verdict(VARIANTS["conv_3d"], "npu").state == "unknown"
    assert verdict(VARIANTS["custom"], "trt").state == "unknown"
    assert verdict(Case("RandomNormalLike", (CASES["Relu"].inputs[0],)), "trt").state == "unknown"


@pytest.mark.parametrize("target", ["npu:stx", "npu:phx", "drpai:v2h", "trt"])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Sigmoid", "Relu"])
def test_fp32_means_in_any_precision(target: str, op: str) -> None:
    """``--precision fp32`` simulates the split without numbers, so nothing is lost to a precision."""
    assert verdict(CASES[op], target, "fp32")


def test_tables_list_known_ops_only() -> None:
    """A misspelt op in a table would never match."""
    import onnx

    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    for module in FAMILIES.values():
        assert set(module.TABLE.rows) <= known
    unknown = {op for m in FAMILIES.values() for op in m.TABLE.refused} - known
    assert unknown <= {"BitCast", "CumProd", "SwiGLU"}  # newer than the installed onnx


def test_rows_are_judged_by_row() -> None:
    """A free leading dimension is fine where it counts regions, and only for row-wise ops."""
    case = Case("Conv", (VARIANTS["conv_free"].inputs[0], CASES["Conv"].inputs[1]))
    model = case.model()
    target = resolve_target("npu")
    plain = facts_of(model, target, "xint8")
    rows = Facts(target, "xint8", 17, frozenset({"i0", "o0"}))
    assert not npu.supports(model.graph[0], plain)
    assert npu.supports(model.graph[0], rows)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of a case to TensorRT-RTX's complaint, "" where it built a plan."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    folder = tmp_path_factory.mktemp("oracle")
    for name, case in {**CASES, **VARIANTS}.items():
        (folder / f"{name}.onnx").write_bytes(case.proto().SerializeToString())
    result = folder / "result.jsonl"
    script = Path(__file__).parent / "oracle.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(result)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    records = [json.loads(line) for line in result.read_text().splitlines()]
    return {record["name"]: record["error"] for record in records}


@pytest.mark.parametrize("name", [*CASES, *VARIANTS])
def test_tensorrt_agrees_with_the_table(name: str, oracle: dict[str, str]) -> None:
    """What the table accepts for TensorRT-RTX builds, what it refuses does not.

    Policies (free shapes, shape arithmetic, float64) refuse more than TensorRT does.
    """
    answer = verdict({**CASES, **VARIANTS}[name], "trt:rtx-ada")
    if answer:
        assert oracle[name] == ""
    elif answer.source != "policy" and name not in {"conv_double"}:
        assert oracle[name] != "", answer.reason
