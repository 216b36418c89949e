"""Triangular factors of inverse covariances: packing, and what they do to the distance's error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.anomaly import ops, scoring
from adcompile.anomaly.padim import invert
from adcompile.anomaly.statistics import Statistics
from adcompile.anomaly.whiten import dense_of, factor_of, inverse_of, packed_shape
from adcompile.errors import FormatError, InputError
from adcompile.interfaces import Report
from adcompile.ir.evaluate import evaluate
from adcompile.passes.embed_head import EmbedHead
from adcompile.passes.raise_anomaly import RaiseAnomaly
from tests.anomaly.distances import covariances, distance_model

Array = npt.NDArray[np.float32]


def distances(model: ir.Model, feeds: dict[str, Array]) -> Array:
    return np.asarray(evaluate(model, feeds)["s"], np.float32)


@pytest.mark.parametrize(("patches", "channels"), [(1, 1), (16, 2), (17, 5), (70, 9)])
def test_factors_give_the_inverse_back(patches: int, channels: int) -> None:
    """LᵀL is the inverse to float32's precision, the factors are triangles, the rest is zeros."""
    inverse, exact = invert(covariances(patches, channels, 100.0))
    for factor in (factor_of(inverse), exact):
        assert factor.shape == packed_shape(patches, channels)
        lower = dense_of(factor, patches)
        assert np.array_equal(lower, np.tril(lower))
        again = inverse_of(factor, patches)
        assert np.array_equal(again, again.transpose(0, 2, 1))
        gap = np.abs(again - inverse).max(axis=(1, 2)) / np.abs(inverse).max(axis=(1, 2))
        assert gap.max() < 1e-6
    left_over = exact.transpose(0, 2, 1).reshape(-1, exact.shape[1])[patches:]
    assert not left_over.any()


def test_only_the_symmetric_part_counts() -> None:
    """Files of other systems may hold an inverse that is not symmetric to the last digit."""
    inverse, _ = invert(covariances(5, 4, 10.0))
    skew = np.random.default_rng(1).standard_normal((5, 4, 4)).astype(np.float32)
    uneven = (inverse + 0.25 * (skew - skew.transpose(0, 2, 1))).astype(np.float32)
    assert np.allclose(factor_of(uneven), factor_of(inverse), atol=1e-6)


def test_what_is_not_positive_definite_is_named() -> None:
    """Which patches; others before them do not hide it."""
    inverse = np.broadcast_to(np.eye(3, dtype=np.float32), (90, 3, 3)).copy()
    inverse[70] *= -1
    with pytest.raises(InputError, match="not positive definite") as caught:
        factor_of(inverse)
    assert caught.value.where == "patches 64 to 89"


@pytest.mark.parametrize("spread", [1e2, 1e4, 1e6])
def test_factors_are_more_exact_than_the_form(spread: float) -> None:
    """Against double precision, on patches like those of the training images: factors of the float32
    inverse beat the form with it, and factors of the covariance beat both, by far when it is nearly
    singular."""
    patches, channels = 48, 40
    covariance = covariances(patches, channels, spread)
    inverse, exact = invert(covariance)
    lower = np.linalg.cholesky(covariance)
    draws = np.random.default_rng(2).standard_normal((patches, channels, 8))
    x = np.ascontiguousarray((lower @ draws).transpose(2, 1, 0)).astype(np.float32)
    embedding, mean = x.reshape(8, channels, 6, 8), np.zeros((channels, patches), np.float32)
    solved = np.linalg.solve(lower, x.astype(np.float64).transpose(2, 1, 0))
    white = np.asarray(solved, np.float64)
    truth = np.square(white).sum(axis=1).T.reshape(8, 6, 8)

    def error(found: Array) -> float:
        return float(np.sqrt(np.mean(((found - truth) / truth) ** 2)))

    form = error(scoring.mahalanobis_map(embedding, mean, inverse, square_root=False))
    given = error(scoring.whitened_map(embedding, mean, factor_of(inverse), square_root=False))
    own = error(scoring.whitened_map(embedding, mean, exact, square_root=False))
    assert given < form
    assert own <= given * 1.1
    assert own < 1e-6 * max(1.0, np.sqrt(spread) / 100)
    if spread > 1e5:
        assert own < form / 20


def test_a_form_is_raised_to_factors_and_embedded() -> None:
    """MahalanobisMap becomes WhitenedMap, which as plain operators gives the same numbers; what has
    no factor stays."""
    inverse, _ = invert(covariances(20, 6, 1e3))
    mean = np.random.default_rng(3).random((6, 20), dtype=np.float32)
    feeds = {"e": np.random.default_rng(4).random((2, 6, 4, 5), dtype=np.float32)}
    model = distance_model("MahalanobisMap", (2, 6, 4, 5), mean, inverse)
    before = distances(model, feeds)
    report = Report()
    assert RaiseAnomaly().run(model, report)
    assert [n.op_type for n in model.graph] == ["WhitenedMap"]
    after = distances(model, feeds)
    np.testing.assert_allclose(after, before, rtol=1e-4)
    assert EmbedHead().run(model, Report())
    assert {n.op_type for n in model.graph} == {
        "Reshape", "Sub", "Transpose", "MatMul", "Mul", "ReduceSum",
    }  # fmt: skip
    np.testing.assert_allclose(distances(model, feeds), after, rtol=1e-6)
    inverse[3] *= -1
    stays = distance_model("MahalanobisMap", (2, 6, 4, 5), mean, inverse)
    RaiseAnomaly().run(stays, Report())
    assert [n.op_type for n in stays.graph] == ["MahalanobisMap"]


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize(("patches", "channels"), [((1, 1), 1), ((4, 4), 3), ((5, 7), 6)])
def test_the_op_is_its_definition(opset: int, patches: tuple[int, int], channels: int) -> None:
    """The function body equals NumPy; a value that is not finite spoils its own patch only."""
    count = patches[0] * patches[1]
    _, factor = invert(covariances(count, channels, 50.0))
    rng = np.random.default_rng(5)
    mean = rng.random((channels, count), dtype=np.float32)
    shape = (3, channels, *patches)
    x = rng.random(shape, dtype=np.float32)
    model = distance_model("WhitenedMap", shape, mean, factor, opset=opset)
    found = distances(model, {"e": x})
    wanted = scoring.whitened_map(x, mean, factor, square_root=False)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=2e-6)
    x[1, 0, 0, 0] = np.inf
    broken = distances(model, {"e": x})
    assert not np.isfinite(broken[1, 0, 0, 0])
    assert np.isfinite(np.delete(broken.reshape(-1), count)).all()


def test_shapes_that_do_not_fit() -> None:
    """The NumPy formula refuses factors of other patches."""
    _, factor = invert(covariances(4, 3, 2.0))
    mean = np.zeros((3, 20), np.float32)
    with pytest.raises(InputError, match="differ in shape"):
        scoring.whitened_map(np.zeros((1, 3, 4, 5), np.float32), mean, factor, square_root=True)


def test_the_table_lists_the_op() -> None:
    """``ops.NAMES`` has it, so every tool that lists ops does."""
    assert "WhitenedMap" in ops.NAMES
    assert isinstance(ops.function("WhitenedMap"), ir.Function)


def test_factors_whose_inverse_leaves_float32_are_refused() -> None:
    factor = np.full(packed_shape(16, 2), 1e30, np.float32)
    mean = np.zeros((2, 16), np.float32)
    with pytest.raises(FormatError, match="beyond float32"):
        Statistics({"mean": mean, "factor": factor}).inverse()
