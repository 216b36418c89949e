"""R0's case: a quantized network of the DRP-AI quantizer's shape gives bank, threshold and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import make_config
from adcompile.anomaly.detector import open_detector
from adcompile.anomaly.fitting import fit, resolve_backbone
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import embed, patch_rows
from adcompile.anomaly.model_folder import Fitted
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.scoring import patchcore_scores

INPUT, SHALLOW, DEEP = "mera_drp_0_i0", "relu_43", "relu_64"


class QuantizedNetwork:
    """Builds Q/DQ convolutions: int8 weights per output channel within ±64 and without zero points
    other than 0, int32 biases, int8 activations per tensor with scales of any size."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output + "_n", **attributes))
        return output

    def requantize(self, value: str, scale: float) -> str:
        """Quantize and dequantize an activation."""
        step = self.constant(f"{value}_scale", np.float32(scale).reshape(()))
        zero = self.constant(f"{value}_zero", np.int8(0).reshape(()))
        stored = self.node("QuantizeLinear", [value, step, zero], f"{value}_q")
        return self.node("DequantizeLinear", [stored, step, zero], f"{value}_dq")

    def conv(self, value: str, size: tuple[int, int, int], stride: int, output: str) -> str:
        """A convolution of (out, in, kernel) whose weights and bias are dequantized, and a Relu."""
        out, wide, kernel = size
        weights = self.random.integers(-64, 65, (out, wide, kernel, kernel)).astype(np.int8)
        scales = self.random.uniform(0.5, 1.5, out).astype(np.float32)
        scales /= np.float32(40.0 * np.sqrt(wide * kernel * kernel))
        zeros = np.zeros(out, np.int8)
        bias = self.random.integers(-50, 50, out).astype(np.int32)
        names = [
            self.constant(f"{output}_w{i}", v) for i, v in enumerate((weights, scales, zeros))
        ]
        kernels = self.node("DequantizeLinear", names, f"{output}_wdq", axis=0)
        parts = (bias, scales * np.float32(0.02), zeros.astype(np.int32))
        names = [self.constant(f"{output}_b{i}", v) for i, v in enumerate(parts)]
        offset = self.node("DequantizeLinear", names, f"{output}_bdq", axis=0)
        pads = [kernel // 2] * 4
        made = self.node(
            "Conv", [value, kernels, offset], f"{output}_conv", strides=[stride] * 2, pads=pads
        )
        return self.node("Relu", [self.requantize(made, 0.03)], output)


def write_network(path: Path) -> None:
    """Opset 13, static batch 1, 224 pixels; 128×28×28 straight from a Relu, 256×14×14 dequantized."""
    net = QuantizedNetwork()
    value = net.requantize(INPUT, 0.02)
    value = net.requantize(net.conv(value, (16, 3, 7), 2, "stem"), 0.03)
    value = net.node(
        "MaxPool", [value], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    net.conv(value, (128, 16, 3), 2, SHALLOW)
    deep = net.conv(net.requantize(SHALLOW, 0.04), (256, 128, 3), 2, "last")
    last = net.requantize(deep, 0.05)
    net.nodes[-1].output[0] = DEEP
    assert last != DEEP
    shapes = {SHALLOW: [1, 128, 28, 28], DEEP: [1, 256, 14, 14]}
    graph = helper.make_graph(
        net.nodes,
        "quantized",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        net.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "features.onnx"
    write_network(path)
    return path


@pytest.fixture(scope="module")
def fitted(network: Path, twill: DataSet) -> Fitted:
    values = {"backbone": str(network), "layers": ["0", "1"], "coreset_ratio": 0.01}
    return fit(make_config("patchcore", values), twill)


def test_outputs_by_name_and_by_position(network: Path) -> None:
    """Positions, names and nothing at all mean the same two outputs, the finest first."""
    for layers in ([], ["0", "1"], [SHALLOW, DEEP], ["1", "0"]):
        config = make_config("patchcore", {"backbone": str(network), "layers": layers})
        found = resolve_backbone(config, 0)  # type: ignore[arg-type]
        assert found.layers == (SHALLOW, DEEP)
        assert found.channels == (128, 256)
        assert found.size == (224, 224)
        assert found.fixed_batch == 1


def test_the_bank_holds_the_quantized_features(
    network: Path, fitted: Fitted, twill: DataSet
) -> None:
    """Every bank row is an embedding of a training image, made of few distinct values."""
    assert fitted.bank is not None
    assert fitted.bank.shape == (int(len(twill.train) * 784 * 0.01), 384)
    runner = FeatureRunner(load_backbone(network))
    spec = fitted.contract.inputs[INPUT]
    images = np.concatenate(list(batches(twill.train, spec)))
    maps = runner(images)
    assert len(np.unique(maps[1])) < 128
    rows = patch_rows(embed(maps, "nearest"))
    for row in fitted.bank[::9]:
        assert np.abs(rows - row).max(axis=1).min() < 1e-5


def test_the_whole_graph_scores_as_the_formula(
    network: Path, fitted: Fitted, twill: DataSet
) -> None:
    """Score and map of preset r0 from the quantized features; the graph keeps the Q/DQ nodes."""
    assert fitted.bank is not None
    assert fitted.contract.score is not None
    kinds = [node.op_type for node in fitted.model.graph]
    assert kinds.count("QuantizeLinear") == 7
    images = np.concatenate(list(batches(twill.test[:3], fitted.contract.inputs[INPUT])))
    scores, maps = open_detector(fitted.model)(images)
    rows = patch_rows(embed(FeatureRunner(load_backbone(network))(images), "nearest"))
    found = patchcore_scores(rows, fitted.bank, (28, 28), fitted.contract.score)
    assert np.allclose(scores, found.scores, rtol=1e-4)
    assert np.allclose(maps[:, ::8, ::8], found.maps, rtol=1e-3, atol=1e-4)
