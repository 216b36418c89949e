"""Every rule alone: where it applies, where it nearly does, and what it leaves alone.

A row is: rule, model, weights, expected operators. All are executed before and after, and every
rule is run twice: the second time must change nothing.
"""

from __future__ import annotations

import numpy as np
import pytest

from adcompile.passes import approximations, clean_up, fold_affine, subsampling
from adcompile.rewrite.pipeline import known_passes, rules_of
from tests.rewrite.build import model, ops, run_rules

F = np.float32
RNG = np.random.default_rng(7)
RULES = {
    rule.name: rule for module in (clean_up, fold_affine, approximations) for rule in module.RULES
} | {
    rule.name: rule
    for rule in (
        subsampling.max_pool_1x1,
        subsampling.max_pool_1x1_to_slice,
        subsampling.max_pool_1x1_as_3x3,
    )
}


def i64(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, dtype=np.int64)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(F)


CONV = {"w": normal(4, 3, 3, 3), "b": normal(4)}
BN = {"g": normal(4), "s": normal(4), "m": normal(4), "v": RNG.random(4).astype(F) + 0.5}
X4 = "g (float[1,3,6,6] x) => (float[?,?,?,?] y)"

CASES = [
    # identity
    ("identity", "g (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }", {}, ["Relu"]),
    ("identity", "g (float[2] x) => (float[2] y) { a = Relu(x) y = Identity(a) }", {}, ["Relu"]),
    ("identity", "g (float[2] x) => (float[2] y) { y = Identity(x) }", {}, ["Identity"]),
    (
        "identity",
        "g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Identity(y) }",
        {},
        ["Relu", "Identity"],
    ),
    # casts
    (
        "cast-to-same",
        "g (float[2] x) => (float[2] y) { a = Cast<to=1>(x) y = Relu(a) }",
        {},
        ["Relu"],
    ),
    ("cast-to-same", "g (float[2] x) => (double[2] y) { y = Cast<to=11>(x) }", {}, ["Cast"]),
    (
        "cast-of-cast",
        "g (int32[2] x) => (float[2] y) { a = Cast<to=7>(x) y = Cast<to=1>(a) }",
        {},
        ["Cast"],
    ),
    (
        "cast-of-cast",
        "g (float[2] x) => (float[2] y) { a = Cast<to=6>(x) y = Cast<to=1>(a) }",
        {},
        ["Cast", "Cast"],
    ),
    (
        "cast-of-cast",
        "g (bool[2] x) => (int64[2] y, float[2] a) { a = Cast<to=1>(x) y = Cast<to=7>(a) }",
        {},
        ["Cast", "Cast"],
    ),
    # one input, one output
    (
        "only-one-input",
        "g (float[2] x) => (float[2] y) { a = Concat<axis=0>(x) y = Relu(a) }",
        {},
        ["Relu"],
    ),
    (
        "only-one-input",
        "g (float[2] x) => (float[4] y) { y = Concat<axis=0>(x, x) }",
        {},
        ["Concat"],
    ),
    ("only-one-input", "g (float[2] x) => (float[2] y) { a = Max(x) y = Relu(a) }", {}, ["Relu"]),
    (
        "split-into-one",
        "g (float[2] x) => (float[2] y) { a = Split(x, s) y = Relu(a) }",
        {"s": i64(2)},
        ["Relu"],
    ),
    (
        "split-into-one",
        "g (float[2] x) => (float[1] y, float[1] z) { y, z = Split(x, s) }",
        {"s": i64(1, 1)},
        ["Split"],
    ),
    ("dropout", "g (float[2] x) => (float[2] y) { a = Dropout(x) y = Relu(a) }", {}, ["Relu"]),
    (
        "dropout",
        "g (float[2] x) => (float[2] y, bool[2] m) { y, m = Dropout(x) }",
        {},
        ["Dropout"],
    ),
    (
        "dropout",
        "g (float[2] x) => (float[2] y) { a = Dropout(x, r, t) y = Relu(a) }",
        {"r": np.asarray(0.5, F), "t": np.asarray(False)},
        ["Relu"],
    ),
    ("done-twice", "g (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }", {}, ["Relu"]),
    (
        "done-twice",
        "g (float[2] x) => (float[2] y) { a = Relu(x) y = Abs(a) }",
        {},
        ["Relu", "Abs"],
    ),
    (
        "undone",
        "g (float[2] x) => (float[2] y) { a = Neg(x) b = Neg(a) y = Relu(b) }",
        {},
        ["Relu"],
    ),
    (
        "undone",
        "g (float[2] x) => (float[2] y, float[2] a) { a = Neg(x) b = Neg(a) y = Relu(b) }",
        {},
        ["Neg", "Relu"],
    ),
    # transposes
    (
        "transpose-of-nothing",
        "g (float[2,3] x) => (float[2,3] y) { a = Transpose<perm=[0,1]>(x) y = Relu(a) }",
        {},
        ["Relu"],
    ),
    (
        "transpose-of-nothing",
        "g (float[2,3] x) => (float[3,2] y) { y = Transpose(x) }",
        {},
        ["Transpose"],
    ),
    (
        "transpose-of-transpose",
        "g (float[2,3,4] x) => (float[?,?,?] y) "
        "{ a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[0,2,1]>(a) }",
        {},
        ["Transpose"],
    ),
    # neutral constants
    (
        "mul-by-one",
        "g (float[2,3] x) => (float[2,3] y) { a = Mul(c, x) y = Relu(a) }",
        {"c": np.ones(3, F)},
        ["Relu"],
    ),
    (
        "mul-by-one",
        "g (float[3] x) => (float[2,3] y) { y = Mul(x, c) }",
        {"c": np.ones((2, 3), F)},
        ["Mul"],
    ),
    (
        "mul-by-one",
        "g (float[N] x) => (float[?] y) { y = Mul(x, c) }",
        {"c": np.ones(2, F)},
        ["Mul"],
    ),
    (
        "add-zero",
        "g (float[2] x) => (float[2] y) { a = Add(x, c) y = Relu(a) }",
        {"c": np.zeros(1, F)},
        ["Relu"],
    ),
    (
        "add-zero",
        "g (float[2] x) => (float[2] y) { y = Add(x, c) }",
        {"c": np.asarray([0, 1], F)},
        ["Add"],
    ),
    (
        "sub-zero",
        "g (float[2] x) => (float[2] y) { a = Sub(x, c) y = Relu(a) }",
        {"c": np.zeros(2, F)},
        ["Relu"],
    ),
    (
        "sub-zero",
        "g (float[2] x) => (float[2] y) { y = Sub(c, x) }",
        {"c": np.zeros(2, F)},
        ["Sub"],
    ),
    (
        "div-by-one",
        "g (float[2] x) => (float[2] y) { a = Div(x, c) y = Relu(a) }",
        {"c": np.ones(2, F)},
        ["Relu"],
    ),
    (
        "div-by-one",
        "g (float[2] x) => (float[2] y) { y = Div(c, x) }",
        {"c": np.ones(2, F)},
        ["Div"],
    ),
    (
        "pow-one",
        "g (float[2] x) => (float[2] y) { a = Pow(x, c) y = Relu(a) }",
        {"c": np.ones((), F)},
        ["Relu"],
    ),
    (
        "pow-one",
        "g (float[2] x) => (float[2] y) { y = Pow(x, c) }",
        {"c": np.full((), 2, F)},
        ["Pow"],
    ),
    (
        "where-decided",
        "g (float[2] x, float[2] z) => (float[2] y) { a = Where(c, x, z) y = Relu(a) }",
        {"c": np.asarray([True, True])},
        ["Relu"],
    ),
    (
        "where-decided",
        "g (float[2] x, float[3,2] z) => (float[3,2] y) { y = Where(c, x, z) }",
        {"c": np.asarray(True)},
        ["Where"],
    ),
    (
        "where-decided",
        "g (float[2] x, float[2] z) => (float[2] y) { y = Where(c, x, z) }",
        {"c": np.asarray([True, False])},
        ["Where"],
    ),
    # slices, concats, gathers
    (
        "slice-of-slice",
        "g (float[4,5] x) => (float[?,?] y) { a = Slice(x, s, e, a0) y = Slice(a, s, e, a1, t) }",
        {"s": i64(1), "e": i64(4), "a0": i64(0), "a1": i64(-1), "t": i64(2)},
        ["Slice"],
    ),
    (
        "slice-of-slice",
        "g (float[4,5] x) => (float[?,?] y) { a = Slice(x, s, e, a0) y = Slice(a, s, e, a0) }",
        {"s": i64(1), "e": i64(4), "a0": i64(0)},
        ["Slice", "Slice"],
    ),
    (
        "slice-of-slice",
        "g (float[4,5] x) => (float[?,?] y, float[?,?] z) "
        "{ a = Slice(x, s, e, a0) y = Slice(a, s, e, a1) z = Relu(a) }",
        {"s": i64(1), "e": i64(4), "a0": i64(0), "a1": i64(1)},
        ["Slice", "Slice", "Relu"],
    ),
    (
        "concat-of-concat",
        "g (float[2] x, float[3] z) => (float[?] y) "
        "{ a = Concat<axis=0>(x, z) y = Concat<axis=-1>(z, a, x) }",
        {},
        ["Concat"],
    ),
    (
        "concat-of-concat",
        "g (float[2,2] x) => (float[?,?] y) "
        "{ a = Concat<axis=0>(x, x) b = Concat<axis=1>(a, a) y = Relu(b) }",
        {},
        ["Concat", "Concat", "Relu"],
    ),
    (
        "concat-of-concat",
        "g (float[2] x) => (float[?] y, float[?] a) "
        "{ a = Concat<axis=0>(x, x) y = Concat<axis=0>(a, x) }",
        {},
        ["Concat", "Concat"],
    ),
    (
        "gather-of-gather",
        "g (float[5,2] x) => (float[?,?] y) { a = Gather(x, i) y = Gather(a, j) }",
        {"i": i64(4, 2, 0), "j": i64(-1, 0)},
        ["Gather"],
    ),
    (
        "gather-of-gather",
        "g (float[5,2] x) => (float[?,?] y) { a = Gather(x, i) y = Gather<axis=1>(a, j) }",
        {"i": i64(4, 2, 0), "j": i64(0)},
        ["Gather", "Gather"],
    ),
    (
        "unsqueeze-of-gather",
        "g (float[5,2] x) => (float[?,?] y) { a = Gather(x, i) y = Unsqueeze(a, z) }",
        {"i": np.asarray(3, np.int64), "z": i64(0)},
        ["Gather"],
    ),
    (
        "unsqueeze-of-gather",
        "g (float[5,2] x) => (float[?,?] y) { a = Gather(x, i) y = Unsqueeze(a, z) }",
        {"i": np.asarray(3, np.int64), "z": i64(1)},
        ["Gather", "Unsqueeze"],
    ),
    (
        "squeeze-of-gather",
        "g (float[5,2] x) => (float[?] y) { a = Gather<axis=1>(x, i) y = Squeeze(a, z) }",
        {"i": i64(1), "z": i64(1)},
        ["Gather"],
    ),
    (
        "squeeze-of-gather",
        "g (float[5,2] x) => (float[?,?] y) "
        "{ a = Gather<axis=1>(x, i) b = Squeeze(a, z) y = Squeeze(a) }",
        {"i": i64(1), "z": i64(1)},
        ["Gather", "Squeeze", "Squeeze"],
    ),
    (
        "gather-of-shape",
        "g (float[N,2] x) => (int64[1] y) { a = Shape(x) y = Gather(a, i) }",
        {"i": i64(0)},
        ["Shape"],
    ),
    (
        "gather-of-shape",
        "g (float[N,2] x) => (int64[2] y) { a = Shape(x) y = Gather(a, i) }",
        {"i": i64(0, 0)},
        ["Shape", "Gather"],
    ),
    (
        "range-of-vectors",
        "g (int64[1] x) => (int64[?] y) { y = Range(o, x, p) }",
        {"o": np.asarray(0, np.int64), "p": np.asarray(1, np.int64)},
        ["Reshape", "Range"],
    ),
    (
        "range-of-vectors",
        "g (int64 x) => (int64[?] y) { y = Range(o, x, p) }",
        {"o": np.asarray(0, np.int64), "p": np.asarray(1, np.int64)},
        ["Range"],
    ),
    # affine
    (
        "batch-norm-after-linear",
        X4 + " { a = Conv(x, w, b) y = BatchNormalization(a, g, s, m, v) }",
        CONV | BN,
        ["Conv"],
    ),
    (
        "batch-norm-after-linear",
        X4 + " { a = Conv(x, w) y = BatchNormalization<epsilon=0.1>(a, g, s, m, v) }",
        {"w": CONV["w"]} | BN,
        ["Conv"],
    ),
    (
        "batch-norm-after-linear",
        X4 + " { a = ConvTranspose<group=1>(x, w) y = BatchNormalization(a, g, s, m, v) }",
        {"w": normal(3, 4, 2, 2)} | BN,
        ["ConvTranspose"],
    ),
    (
        "batch-norm-after-linear",
        "g (float[1,4,3,3] x) => (float[?,?,?,?] y) "
        "{ a = ConvTranspose<group=2>(x, w) y = BatchNormalization(a, g, s, m, v) }",
        {"w": normal(4, 2, 2, 2)} | BN,
        ["ConvTranspose"],
    ),
    (
        "batch-norm-after-linear",
        "g (float[2,3] x) => (float[?,?] y) "
        "{ a = Gemm<transB=1, alpha=2.0, beta=0.5>(x, w, b) y = BatchNormalization(a, g, s, m, v) }",
        {"w": normal(4, 3), "b": normal(1, 4)} | BN,
        ["Gemm"],
    ),
    (
        "batch-norm-after-linear",
        X4 + " { a = Conv(x, w, b) c = BatchNormalization(a, g, s, m, v) y = Add(a, c) }",
        CONV | BN,
        ["Conv", "BatchNormalization", "Add"],
    ),
    (
        "mul-after-linear",
        X4 + " { a = Conv(x, w, b) y = Mul(c, a) }",
        CONV | {"c": normal(4, 1, 1)},
        ["Conv"],
    ),
    (
        "mul-after-linear",
        X4 + " { a = Conv(x, w, b) y = Mul(a, c) }",
        CONV | {"c": normal(1)},
        ["Conv"],
    ),
    (
        "mul-after-linear",
        X4 + " { a = Conv(x, w, b) y = Mul(a, c) }",
        CONV | {"c": normal(4)},
        ["Conv", "Mul"],
    ),
    (
        "mul-after-linear",
        X4 + " { a = Conv(x, w, b) y = Mul(a, c) }",
        CONV | {"c": normal(2, 4, 1, 1)},
        ["Conv", "Mul"],
    ),
    (
        "div-after-linear",
        X4 + " { a = Conv(x, w, b) y = Div(a, c) }",
        CONV | {"c": normal(4, 1, 1)},
        ["Conv"],
    ),
    (
        "div-after-linear",
        X4 + " { a = Conv(x, w, b) y = Div(a, c) }",
        CONV | {"c": np.zeros((1,), F)},
        ["Conv", "Div"],
    ),
    (
        "add-after-linear",
        X4 + " { a = Conv(x, w) y = Add(a, c) }",
        {"w": CONV["w"], "c": normal(1, 4, 1, 1)},
        ["Conv"],
    ),
    (
        "add-after-linear",
        X4 + " { a = Conv(x, w) y = Add(a, c) z = Relu(a) }",
        {"w": CONV["w"], "c": normal(1, 4, 1, 1)},
        ["Conv", "Add", "Relu"],
    ),
    (
        "sub-after-linear",
        X4 + " { a = Conv(x, w, b) y = Sub(a, c) }",
        CONV | {"c": normal(4, 1, 1)},
        ["Conv"],
    ),
    (
        "sub-after-linear",
        X4 + " { a = Conv(x, w, b) y = Sub(c, a) }",
        CONV | {"c": normal(4, 1, 1)},
        ["Conv", "Sub"],
    ),
    (
        "matmul-with-bias",
        "g (float[2,3] x) => (float[?,?] y) { a = MatMul(x, w) y = Add(b, a) }",
        {"w": normal(3, 4), "b": normal(4)},
        ["Gemm"],
    ),
    (
        "matmul-with-bias",
        "g (float[5,2,3] x) => (float[?,?,?] y) { a = MatMul(x, w) y = Add(a, b) }",
        {"w": normal(3, 4), "b": normal(4)},
        ["MatMul", "Add"],
    ),
    (
        "matmul-with-bias",
        "g (float[2,3] x) => (float[?,?] y) { a = MatMul(x, w) y = Add(a, b) }",
        {"w": normal(3, 4), "b": normal(2, 1)},
        ["MatMul", "Add"],
    ),
    (
        "pad-before-conv",
        X4 + " { a = Pad(x, p) y = Conv<pads=[1,0,0,1]>(a, w, b) }",
        CONV | {"p": i64(0, 0, 1, 2, 0, 0, 1, 0)},
        ["Conv"],
    ),
    (
        "pad-before-conv",
        X4 + " { a = Pad(x, p, f) y = Conv(a, w, b) }",
        CONV | {"p": i64(0, 0, 1, 1, 0, 0, 1, 1), "f": np.asarray(1, F)},
        ["Pad", "Conv"],
    ),
    (
        "pad-before-conv",
        X4 + ' { a = Pad<mode="reflect">(x, p) y = Conv(a, w, b) }',
        CONV | {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)},
        ["Pad", "Conv"],
    ),
    # subsampling
    ("max-pool-1x1", X4 + " { y = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x) }", {}, ["Conv"]),
    (
        "max-pool-1x1",
        X4 + " { y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
        {},
        ["MaxPool"],
    ),
    (
        "max-pool-1x1",
        X4 + " { y = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(x) }",
        {},
        ["MaxPool"],
    ),
    (
        "max-pool-1x1-to-slice",
        X4 + " { y = MaxPool<kernel_shape=[1,1], strides=[2,3]>(x) }",
        {},
        ["Slice"],
    ),
]


@pytest.mark.parametrize(("name", "text", "weights", "expected"), CASES)
def test_rule(name: str, text: str, weights: dict[str, np.ndarray], expected: list[str]) -> None:
    """The rule alone gives the expected operators, and the results stay."""
    used = {k: v for k, v in weights.items()}
    m = model(text, used)
    report = run_rules(m, RULES[name])
    assert ops(m) == expected
    assert all(record.rule == name for record in report.rewrites)


def test_every_registered_rule_has_a_case() -> None:
    """No rule goes untested: one that applies, and (but for trivial ones) one that does not.

    The heads of anomaly detectors have their cases in ``tests/anomaly/test_recognise.py`` and
    ``test_anomalib_onnx.py``: they need a bank and whole exports.
    """
    registered = {
        rule.name
        for name, kind in known_passes().items()
        if kind.__module__.startswith("adcompile.passes") and name != "raise-anomaly"
        for rule in rules_of(kind)
        if rule.exactness == "exact"
    }
    assert registered - {name for name, *_ in CASES} == set()


@pytest.mark.parametrize(
    ("name", "text", "weights", "expected", "bound"),
    [
        (
            "maxpool-1x1-as-3x3",
            X4 + " { y = MaxPool<kernel_shape=[1,1], strides=[2,2]>(x) }",
            {},
            "MaxPool",
            9,
        ),
        ("silu-as-hard-swish", X4 + " { a = Sigmoid(x) y = Mul(a, x) }", {}, "HardSwish", 0.15),
        ("sigmoid-as-hard-sigmoid", X4 + " { y = Sigmoid(x) }", {}, "HardSigmoid", 0.08),
        (
            "gelu-as-tanh-gelu",
            X4 + " { a = Div(x, r) b = Erf(a) c = Add(b, o) d = Mul(x, c) y = Mul(d, h) }",
            {"r": np.asarray(2**0.5, F), "o": np.asarray(1, F), "h": np.asarray(0.5, F)},
            "Gelu",
            0.001,
        ),
    ],
)
def test_approximate_rules_wait_for_permission(
    name: str, text: str, weights: dict[str, np.ndarray], expected: str, bound: float
) -> None:
    """Without --allow nothing happens and the refusal says so; with it, the error has a bound."""
    from adcompile.ir.evaluate import evaluate
    from tests.rewrite.build import feeds

    m = model(text, weights, opset=20)
    before = ops(m)
    report = run_rules(m, RULES[name])
    assert ops(m) == before
    assert report.refusals[0][2] == f"approximate; allow it with --allow {name}"
    reference = evaluate(m, feeds(m))["y"]
    allowed = run_rules(m, RULES[name], allow=[name])
    assert ops(m) == [expected]
    assert allowed.rewrites[0].exactness == "approximate"
    assert 0 < np.abs(evaluate(m, feeds(m))["y"] - reference).max() < bound
