"""From feature maps to rows: pools, resizes, transposes and joins of many sizes against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.backends.host.build import find_compiler
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from tests.host.support import CHECKED, Array, assert_like_reference, build, model, printed
from tests.host.toolchains import TOOLCHAINS, Toolchain

# input shape, attributes: borders, strides, dilations, whole planes, bands of large planes, depth
POOLS = [
    ((1, 5, 14, 14), "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"),
    ((2, 3, 7, 5), "kernel_shape = [7, 5]"),
    ((1, 2, 9, 11), "kernel_shape = [2, 3], strides = [2, 3], pads = [1, 0, 0, 2]"),
    ((1, 2, 9, 11), "kernel_shape = [4, 4], pads = [3, 2, 3, 2]"),
    ((1, 1, 3, 2), "kernel_shape = [5, 5], pads = [2, 3, 2, 3]"),
    ((1, 2, 8, 9), "kernel_shape = [3, 2], dilations = [2, 3], pads = [2, 1, 2, 1]"),
    ((1, 24, 90, 130), "kernel_shape = [5, 3], pads = [2, 1, 2, 1]"),
    ((1, 1, 130, 70), "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 0]"),
    ((1, 1, 2, 5000), "kernel_shape = [2, 7], pads = [1, 3, 1, 3]"),
    ((2, 3, 41), "kernel_shape = [8], strides = [3], pads = [4, 3]"),
    ((1, 2, 5, 6, 7), "kernel_shape = [3, 2, 3], pads = [1, 0, 1, 1, 1, 1]"),
    ((1, 2, 4, 6, 7), "kernel_shape = [1, 3, 1], strides = [1, 2, 1]"),
    ((1, 2, 9, 9, 70), "kernel_shape = [3, 3, 3], strides = [2, 1, 2]"),
]
TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16}


def dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def pool(kind: str, shape: tuple[int, ...], attributes: str, dtype: str = "float") -> ir.Model:
    free = ", ".join("abcdefg"[: len(shape)])
    return model(
        f"net ({dtype}[{dims(shape)}] x) => ({dtype}[{free}] y) {{ y = {kind} <{attributes}> (x) }}",
        opset=19,
    )


def pools() -> dict[str, ir.Model]:
    made: dict[str, ir.Model] = {}
    for i, (shape, attributes) in enumerate(POOLS):
        made[f"max_{i}"] = pool("MaxPool", shape, attributes)
        for padded in (0, 1):
            text = f"{attributes}, count_include_pad = {padded}"
            made[f"mean_{i}_{padded}"] = pool("AveragePool", shape, text)
    for dtype in ("double", "float16"):
        made[f"max_{dtype}"] = pool("MaxPool", *POOLS[0], dtype)
    made["max_int8"] = pool("MaxPool", *POOLS[2], "int8")
    return made


def head(dtype: str, resize: str, inputs: str, *, batch: int = 1) -> ir.Model:
    """Two maps, the second enlarged to the first; joined, and turned into rows."""
    return model(
        f"""net ({dtype}[{batch}, 5, 6, 10] a, {dtype}[{batch}, 9, 3, 5] b) => ({dtype}[n, 14] rows)
        <float[4] scales = {{1, 1, 2, 2}}, float[2] two = {{2, 2}}, int64[4] sizes = {{1, 9, 6, 10}},
         int64[2] shape = {{-1, 14}}> {{
          large = Resize <{resize}> (b, {inputs})
          joined = Concat <axis = 1> (a, large)
          turned = Transpose <perm = [0, 2, 3, 1]> (joined)
          rows = Reshape (turned, shape)
        }}""",
        opset=18,
    )


NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
LINEAR = 'mode = "linear"'


def heads() -> dict[str, ir.Model]:
    return {
        "nearest": head("float", NEAREST, ", scales"),
        "linear": head("float", LINEAR, ", scales"),
        "cubic": head("float", 'mode = "cubic"', ", scales"),
        "by_size": head("float", LINEAR, ", , sizes"),
        "by_axes": head("float", f"{LINEAR}, axes = [2, 3]", ", two"),
        "batch": head("float", LINEAR, ", scales", batch=3),
        "int8": head("int8", NEAREST, ", scales"),
        "uint8": head("uint8", LINEAR, ", scales"),
    }


OTHERS = {
    # a map of another type of move, rows that do not fit the runs, and a value that others read
    "middle": "y = Transpose <perm = [0, 2, 1, 3]> (a)  z = Concat <axis = 3> (y, y)",
    "front": "y = Transpose <perm = [3, 1, 2, 0]> (a)  z = Concat <axis = 1> (y, b)",
    "inner": "y = Transpose <perm = [0, 2, 3, 1]> (a)  z = Concat <axis = 2> (y, y2)"
    "  y2 = Transpose <perm = [0, 2, 3, 1]> (a)",
    "reversed": "y = Transpose (a)  y2 = Transpose (a)  z = Concat <axis = 3> (y, y2)",
    "first": "y = Transpose <perm = [0, 2, 3, 1]> (a)  z = Concat <axis = 0> (y, y3)"
    "  y3 = Transpose <perm = [0, 2, 3, 1]> (a)",
}


def other(body: str) -> ir.Model:
    lines = body.split("  ")
    lines.sort(key=lambda line: line.startswith("z"))  # what z reads comes before it
    text = "\n".join(lines)
    return model(
        f"net (float[2, 3, 5, 7] a, float[7, 4, 5, 2] b) => (float[p, q, r, s] z) {{ {text} }}"
    )


def transposes() -> dict[str, ir.Model]:
    made: dict[str, ir.Model] = {}
    sizes = [(1, 9), (3, 5), (17, 4), (300, 500)]
    cases = [("float", size) for size in sizes]
    cases += [(dtype, (33, 50)) for dtype in ("float", "int32", "int64", "float16", "uint8")]
    for dtype, (rows, columns) in cases:
        made[f"{dtype}_{rows}_{columns}"] = model(
            f"""net ({dtype}[2, {rows}, {columns}] x) => ({dtype}[a, b, c] y) {{
              y = Transpose <perm = [0, 2, 1]> (x) }}"""
        )
    return made


def models() -> dict[str, ir.Model]:
    others = {f"other_{name}": other(body) for name, body in OTHERS.items()}
    turned = {f"turned_{name}": made for name, made in transposes().items()}
    return pools() | {f"head_{name}": made for name, made in heads().items()} | others | turned


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """All models in one library, undefined behaviour checked."""
    made = models() | narrow_and_wide()
    return build(list(made.items()), tmp_path_factory.mktemp("rows"), ("-O0", *CHECKED[1:]))


def feeds_of(made: ir.Model) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    feeds: dict[str, Array] = {}
    for value in made.graph.inputs:
        if value.is_initializer() or value.dtype is None:
            continue
        shape = [d for d in value.shape or () if isinstance(d, int)]
        limit = 100 if value.dtype.is_integer() else 1
        low = 0 if value.dtype is ir.DataType.UINT8 else -limit
        numbers = rng.uniform(low, limit, shape)
        feeds[value.name or ""] = numbers.astype(value.dtype.numpy())
    return feeds


@pytest.mark.parametrize("name", models())
def test_equals_onnx_runtime(name: str, library: HostLibrary) -> None:
    """Every case, on one thread and on two."""
    made = models()[name]
    for threads in (1, 2):
        library.threads(threads)
        assert_like_reference(library, name, made, feeds_of(made))


def narrow_and_wide() -> dict[str, ir.Model]:
    """Types that ONNX Runtime does not average."""
    return {f"mean_{d}": pool("AveragePool", *POOLS[0], d) for d in ("double", "float16")}


def test_means_of_narrow_and_wide_floats(library: HostLibrary) -> None:
    """Sums are made in float for 16 bits, in double for 64."""
    shape = POOLS[0][0]
    x = np.random.default_rng(1).uniform(-1, 1, shape)
    wanted = window_sums(x) / window_sums(np.ones_like(x))
    for dtype, tolerance in (("double", 1e-13), ("float16", 2e-3)):
        part = library.part(f"mean_{dtype}")
        got = part.run({"x": x.astype(TYPES[dtype])})["y"]
        assert got.dtype == TYPES[dtype]
        np.testing.assert_allclose(got.astype(np.float64), wanted, atol=tolerance, rtol=tolerance)


def window_sums(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over 3 x 3 neighbours."""
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))
    return np.asarray(windows.sum(axis=(4, 5)), np.float64)


def text_of(made: ir.Model) -> str:
    return " ".join(generate([("part", made)]).files["parts/part.cpp"].split())


def test_rows_are_written_where_they_belong() -> None:
    """The join takes both maps as pieces; the deep one is transposed while it is small."""
    text = text_of(heads()["linear"])
    assert "op::concat(ws.fixed<float>(0, Shape{1, 6, 10, 14}), 3, op::transposed(a," in text
    assert "op::resized(ws.scratch()," in text
    assert "op::transpose(ws.fixed<float>(3392, Shape{1, 3, 5, 9}), b, Shape{0, 2, 3, 1})" in text
    assert "op::resize(" not in text


SHRINK = """net (float[1, 4, 8, 8] a) => (float[1, 4, 4, 4] y) <float[4] scales = {1, 1, 0.5, 0.5}> {
  small = Resize <mode = "linear"> (a, , scales)
  y = Transpose <perm = [0, 2, 3, 1]> (small)
}"""
SHARED = """net (float[1, 4, 4, 4] a) => (float[1, 8, 4, 4] joined, float[1, 4, 4, 8] y) {
  joined = Concat <axis = 1> (a, a)
  y = Transpose <perm = [0, 2, 3, 1]> (joined)
}"""
FLAT = """net (float[4] a, float[4] b) => (float[8] y) {
  joined = Concat <axis = 0> (a, b)
  y = Transpose <perm = [0]> (joined)
}"""


@pytest.mark.parametrize("text", [SHRINK, SHARED, FLAT])
def test_transposes_stay_where_moving_them_gains_nothing(text: str) -> None:
    """A map that shrinks, a join that something else reads, a permutation that does nothing."""
    made = text_of(model(text))
    assert "op::transposed(" not in made
    assert "op::resized(" not in made


MAIN = "feature_rows_main.cpp"
OFTEN = ("arm64-fast",)
MACHINES = [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in TOOLCHAINS]


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the program of digests prints when nothing is vectorised."""
    plain = Toolchain(find_compiler(), ("-O0",))
    return printed(MAIN, plain, tmp_path_factory.mktemp("plain") / "a")


@pytest.mark.parametrize("name", MACHINES)
def test_same_bits_on_every_machine(name: str, digests: str, tmp_path: Path) -> None:
    """Compilers, instruction sets, sanitizers and threads change no bit of any result."""
    toolchain = TOOLCHAINS[name]
    if toolchain.missing:
        pytest.skip(f"needs {toolchain.missing}")
    assert printed(MAIN, toolchain, tmp_path / "program") == digests
    lines = digests.splitlines()
    assert len(lines) == 18
    assert lines[:9] == lines[9:]  # one thread, three threads
