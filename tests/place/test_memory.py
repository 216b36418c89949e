"""The estimate of a part's memory: counted by hand on small graphs, and said when it is too much."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import Unsupported
from adcompile.ir import model_io
from adcompile.place.memory import activation_bytes, weight_bytes

BODY = (
    "a = Conv<kernel_shape = [1, 1]>(x, w) r = Relu(a) b = Conv<kernel_shape = [1, 1]>(r, v) "
    "s = Add(b, r) y = Flatten(s)"
)


def graph(body: str = BODY) -> ir.Model:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,4,10,10] x) => (float[1,800] y) '
        f"<float[8,4,1,1] w, float[8,8,1,1] v> {{ {body} }}"
    )
    proto = onnx.parser.parse_model(text)
    proto = onnx.shape_inference.infer_shapes(proto)
    sizes = {"w": (8, 4, 1, 1), "v": (8, 8, 1, 1)}
    for name, dims in sizes.items():
        count = dims[0] * dims[1]
        proto.graph.initializer.append(
            onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, dims, [0.5] * count)
        )
    return model_io.from_proto(proto)


@pytest.mark.parametrize(
    ("precision", "weights", "tensors"),
    [("fp32", 384, 9600), ("fp16", 192, 4800), ("a16w8", 96, 4800), ("int8", 96, 2400)],
)
def test_counted_by_hand(precision: str, weights: int, tensors: int) -> None:
    """Weights are 8x4 and 8x8 numbers. Most is alive at the sum: b, r and s, of 800 numbers each; r is
    in the memory of a, y in that of s."""
    model = graph()
    nodes, outputs = list(model.graph), list(model.graph.outputs)
    assert weight_bytes(nodes, precision) == weights
    assert activation_bytes(nodes, outputs, precision, 1) == tensors


@pytest.mark.parametrize(
    ("old", "new", "tensors"),
    [
        ("Add(b, r)", "Sqrt(b)", 1600),
        ("Add(b, r)", "Add(b, a)", 2400),
        ("Conv<kernel_shape = [1, 1]>(r, v)", "Relu(r)", 2400),
    ],
)
def test_what_is_read_later_stays(old: str, new: str, tensors: int) -> None:
    """Without the shortcut two tensors are alive at once; what is read again is not overwritten."""
    model = graph(BODY.replace(old, new))
    assert activation_bytes(list(model.graph), list(model.graph.outputs), "int8", 1) == tensors


def test_too_much_is_said_before_the_board_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A note by default, an error under --strict; what the user's board gives counts."""
    path = tmp_path / "wide.onnx"
    model_io.save_model(wide(), path)
    assert main(["plan", str(path), "-t", "trt:orin-nx"]) == 0
    assert "the board gives" not in capsys.readouterr().out
    assert main(["plan", str(path), "-t", "trt:orin-nx", "-O", "memory_mib=1"]) == 0
    assert "the board gives 1;" in capsys.readouterr().out
    options = BuildOptions(strict=True, backend_options={"memory_mib": "1"}, cache=False)
    with pytest.raises(Unsupported, match="MiB") as error:
        compile(path, "trt:orin-nx", tmp_path / "b", options)
    assert "memory_mib" in error.value.fix


def test_the_known_limit_of_a_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RZ/V2H's evaluation board gives the DRP-AI 512 MiB unless its memory map is changed."""
    path = tmp_path / "wide.onnx"
    model_io.save_model(wide(side=4096), path)
    assert main(["plan", str(path), "-t", "drpai:v2h"]) == 0
    assert "gives 512 (the DRP-AI area" in capsys.readouterr().out


def wide(side: int = 256) -> ir.Model:
    """Two convolutions over a large image: 16 numbers a pixel."""
    body = (
        "a = Conv<kernel_shape = [1, 1]>(x, w) r = Relu(a) y = Conv<kernel_shape = [1, 1]>(r, v)"
    )
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"g (float[1,3,{side},{side}] x) => (float[1,16,{side},{side}] y) {{ {body} }}"
    )
    for name, width in (("w", 3), ("v", 16)):
        proto.graph.initializer.append(
            onnx.helper.make_tensor(
                name, onnx.TensorProto.FLOAT, (16, width, 1, 1), [0.25] * 16 * width
            )
        )
    return model_io.from_proto(proto)
