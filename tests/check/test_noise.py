"""A quantized part that is too noisy: the right node is blamed, or none, and what helps is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.npu.schemes import SCHEMES
from adcompile.check.compare import SNR_CAP
from adcompile.check.localize import Oracle, localize, tensor_errors
from adcompile.check.noise import Level, accumulated, levels, quiet
from adcompile.check.tolerance import Tolerance
from adcompile.interfaces import Array
from adcompile.ir.graph import constant
from adcompile.lower.gains import KEY, read_gains, with_gain, write_gains
from adcompile.lower.quantize import quantize
from tests.lower.networks import Net, samples

BOUND = Tolerance(snr_db=20.0)


def uneven() -> ir.Model:
    """Convolutions whose channels differ by up to 64 times: equalisation has much to do."""
    net = Net(3)
    a = net.node("Relu", [net.conv("x", "c1", 3, 8)], "r1")
    a = net.node("Relu", [net.conv(a, "c2", 8, 8)], "r2")
    net.conv(a, "y", 8, 4)
    model = net.model({"x": [1, 3, 16, 16]}, {"y": [1, 4, 16, 16]})
    for name, index in (("c1", 0), ("c2", 1)):
        node = next(n for n in model.graph if n.name == f"n_{name}")
        factor = np.geomspace(1, 64, 8).astype(np.float32)
        shape = [-1 if i == index else 1 for i in range(4)]
        _scale(node, 1, factor.reshape(shape) if index == 0 else 1 / factor.reshape(shape))
        if index == 0:
            _scale(node, 2, factor)
    return model


def _scale(node: ir.Node, index: int, factor: Array) -> None:
    value = node.inputs[index]
    assert value is not None
    array = np.asarray(constant(value), np.float32) * np.asarray(factor, np.float32)
    value.const_value = ir.tensor(array, name=value.name)


def test_equalised_values_are_compared_with_their_gains() -> None:
    """Without the gains a right layer looks wrong; with them nothing is blamed."""
    model = uneven()
    data = samples(model)
    quantized = quantize(model, data, SCHEMES["a8w8"])
    feeds = next(iter(data))
    gains = read_gains(quantized)
    assert {"c1", "r1"} <= set(gains)
    blind = localize(Oracle(model, feeds), quantized, feeds, BOUND)
    assert blind is not None
    assert blind.value == "c1"
    seeing = Oracle(model, feeds, gains)
    ratios = {
        e.value: e.comparison.metrics["snr_db"]
        for e in tensor_errors(seeing, quantized, feeds, BOUND)
    }
    assert min(ratios.values()) > 20.0
    assert localize(seeing, quantized, feeds, BOUND) is None


def test_a_wrong_layer_behind_gains_is_found() -> None:
    """A weight that was spoilt is blamed, although its inputs have gains."""
    model = uneven()
    data = samples(model)
    quantized = quantize(model, data, SCHEMES["a8w8"])
    feeds = next(iter(data))
    node = next(n for n in quantized.graph if n.name == "n_c2")
    made = node.inputs[1]
    assert made is not None
    stored = made.producer()
    assert stored is not None
    assert stored.inputs[0] is not None
    array = np.array(constant(stored.inputs[0]))
    array[:, 3:] = 0
    stored.inputs[0].const_value = ir.tensor(array, name=stored.inputs[0].name)
    oracle = Oracle(model, feeds, read_gains(quantized))
    found = localize(oracle, quantized, feeds, BOUND)
    assert found is not None
    assert found.value == "c2"
    assert list(found.feeds) == ["r1"]


def deep(count: int) -> ir.Model:
    """A chain of convolutions without biases, which would drown the signal."""
    net = Net(4)
    a = "x"
    for i in range(count):
        names = [
            a,
            net.weight(f"w{i}", 8, 8, 3, 3, scale=0.2),
            net.weight(f"b{i}", 8, scale=1e-6),
        ]
        a = net.node("Conv", names, f"c{i}", kernel_shape=[3, 3], pads=[1] * 4)
        a = net.node("Relu", [a], f"r{i}")
    net.conv(a, "y", 8, 4)
    return net.model({"x": [1, 8, 12, 12]}, {"y": [1, 4, 12, 12]})


def test_noise_that_adds_up_is_told_as_that() -> None:
    """No layer of a deep chain is to blame: how the noise grew is said."""
    model = deep(12)
    data = samples(model)
    scheme = replace(SCHEMES["xint8"], refine_rounding=False)
    quantized = quantize(model, data, scheme)
    feeds = next(iter(data))
    oracle = Oracle(model, feeds, read_gains(quantized))
    errors = tensor_errors(oracle, quantized, feeds, BOUND)
    bound = Tolerance(snr_db=errors[-1].comparison.metrics["snr_db"] + 3.0)
    errors = tensor_errors(oracle, quantized, feeds, bound)
    assert localize(oracle, quantized, feeds, bound, errors) is None
    told = accumulated(errors, bound, [Level(0, "y", 1.0, 12.25)], 0)
    assert "no node is wrong by itself" in told
    assert f"below {bound.snr_db:g} dB from" in told
    assert "12.2 dB at 'y'" in told
    assert accumulated(errors, Tolerance(1e-4, 1e-4), [], 0) == ""


@pytest.mark.parametrize(("rms", "said"), [(0.1, True), (0.5, False)])
def test_a_quiet_sample_is_told(rms: float, said: bool) -> None:
    """Values far smaller than another sample's are named as such, with the factor."""
    loud = Level(0, "y", 1.0, 18.0)
    told = quiet([loud, Level(1, "y", rms, 2.0), Level(1, "z", 1.0, 9.0)], 1)
    assert ("10.0 times smaller there than sample 0 (18.0 dB)" in told) is said
    assert quiet([loud], 1) == ""


def test_levels_leave_out_what_cannot_be_compared() -> None:
    """Whole numbers, other shapes and missing outputs have no ratio."""
    ones = np.ones((2, 2), np.float32)
    expected: dict[str, Array] = {"a": 3 * ones, "b": ones.astype(np.int64), "c": ones, "d": ones}
    found = levels(1, expected, {"a": 3 * ones, "b": ones, "c": np.ones(2, np.float32)})
    assert found == [Level(1, "a", 3.0, SNR_CAP)]


def test_gains_survive_and_strange_ones_are_ignored() -> None:
    """What is written is read; gains of 1 are left out; a foreign text is no error."""
    model = deep(1)
    write_gains(
        model,
        {
            "a": np.array([2, 3], np.float32),
            "b": np.array(0.5, np.float32),
            "c": np.ones(4, np.float32),
        },
    )
    found = read_gains(model)
    assert {n: g.tolist() for n, g in found.items()} == {"a": [2.0, 3.0], "b": [0.5]}
    array = np.ones((1, 2, 3), np.float32)
    assert with_gain(array, found["a"])[0, :, 0].tolist() == [2.0, 3.0]
    assert with_gain(array, found["b"]).max() == 0.5
    assert with_gain(array[:, :1], found["a"]).max() == 1.0  # another shape: left alone
    for text in ("[]", "no json", '{"gains": ["*"], "values": {"a": 0}}', '{"values": {"a": 3}}'):
        model.metadata_props[KEY] = text
        assert read_gains(model) == {}


def test_gains_that_are_nested_too_deeply_are_none() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=8)
    model.metadata_props[KEY] = "[" * 100_000
    assert read_gains(model) == {}
