"""Every adcompile op, run by ONNX Runtime through its function body, equals its definition."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from adcompile.anomaly import ops
from adcompile.errors import UsageError

Array = npt.NDArray[np.float32]
OPSETS = (13, 17, 21)


def run(text: str, opset: int, **feeds: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    header = f'<ir_version: 9, opset_import: ["" : {opset}, "adcompile" : 1]>\n'
    model = ir.from_onnx_text(header + text)
    assert ops.add_functions(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def uniform(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_knn_is_exact_in_blocks(opset: int, rows: int) -> None:
    """Squared distances ascending with their indices; a bank member has distance 0 exactly."""
    x, bank = uniform(1, rows, 5), uniform(2, 7, 5)
    x[0] = bank[3]
    text = """m (float[n,5] x, float[m,5] b) => (float[n,3] d, int64[n,3] i)
    { d, i = adcompile.KnnSearch <k = 3, block = 4> (x, b) }"""
    distances, indices = run(text, opset, x=x, b=bank)
    every = ((x[:, None] - bank) ** 2).sum(-1)
    order = np.argsort(every, axis=1, kind="stable")[:, :3]
    assert (indices == order).all()
    assert np.allclose(distances, np.take_along_axis(every, order, 1), rtol=1e-5)
    assert distances[0, 0] == 0.0


@pytest.mark.parametrize("opset", OPSETS)
def test_patch_score_is_the_maximum(opset: int) -> None:
    """No weighting: the map is the first distance, the score its maximum, per image."""
    d = np.sort(uniform(3, 12, 3), axis=1)
    text = """m (float[n,3] x) => (float[b] s, float[b,c,e,f] p)
    { s, p = adcompile.PatchScore <grid = [2, 3]> (x) }"""
    score, patch_map = run(text, opset, x=d)
    assert (score == d[:, 0].reshape(2, 6).max(1)).all()
    assert (patch_map == d[:, 0].reshape(2, 1, 2, 3)).all()


@pytest.mark.parametrize("opset", OPSETS)
def test_own_neighbour_weight(opset: int) -> None:
    """(1 - softmax of the farthest of the k) times s, also where exp would overflow."""
    d = np.sort(uniform(4, 12, 3) * 1000, axis=1)
    text = """m (float[n,3] x) => (float[b] s, float[b,c,e,f] p)
    { s, p = adcompile.PatchScoreOwn <grid = [2, 3]> (x) }"""
    score, _ = run(text, opset, x=d)
    for image in range(2):
        patches = d[6 * image : 6 * image + 6].astype(np.float64)
        own = patches[int(patches[:, 0].argmax())]
        weights = [math.exp(value - own[-1]) for value in own]
        expected = sum(weights[:-1]) / sum(weights) * own[0]
        assert score[image] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("opset", OPSETS)
def test_paper_weight(opset: int) -> None:
    """Weight from the neighbours of the nearest bank row, as the paper and anomalib do."""
    x, bank = uniform(5, 12, 4), uniform(6, 7, 4)
    text = """m (float[n,4] x, float[m,4] b) => (float[a] s, float[a,c,e,f] p) {
      d, i = adcompile.KnnSearch <k = 1> (x, b)
      r = Sqrt (d)
      s, p = adcompile.PatchScorePaper <grid = [2, 3], k = 5> (r, i, x, b)
    }"""
    score, _ = run(text, opset, x=x, b=bank)
    every = np.sqrt(((x[:, None] - bank) ** 2).sum(-1))
    for image in range(2):
        near = every[6 * image : 6 * image + 6]
        worst = int(near.min(1).argmax())
        member = int(near[worst].argmin())
        around = np.argsort(((bank - bank[member]) ** 2).sum(1))[:5]
        d = np.sqrt(((x[6 * image + worst] - bank[around]) ** 2).sum(1))
        expected = (1 - np.exp(d)[0] / np.exp(d).sum()) * near[worst].min()
        assert score[image] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_mahalanobis_map(opset: int) -> None:
    """The quadratic form per patch, never below zero."""
    e, mean = uniform(7, 2, 3, 2, 2), uniform(8, 3, 4)
    half = uniform(9, 4, 3, 3)
    inverse = half @ half.transpose(0, 2, 1)
    text = """m (float[n,3,2,2] e, float[3,4] u, float[4,3,3] v) => (float[n,1,2,2] s)
    { s = adcompile.MahalanobisMap (e, u, v) }"""
    (squared,) = run(text, opset, e=e, u=mean, v=inverse)
    gap = e.reshape(2, 3, 4) - mean
    expected = np.einsum("ncp,pcd,ndp->np", gap, inverse, gap).reshape(2, 1, 2, 2)
    assert np.allclose(squared, expected, rtol=1e-5, atol=1e-6)
    (negative,) = run(text, opset, e=e, u=mean, v=-inverse)
    assert (negative == 0).all()


@pytest.mark.parametrize("opset", OPSETS)
def test_maps_and_normalisation(opset: int) -> None:
    """Error map, matrix enlargement and both normalisations follow their formulas."""
    a, b = uniform(10, 2, 3, 2, 2), uniform(11, 2, 3, 2, 2)
    text = """m (float[n,3,2,2] a, float[n,3,2,2] b, float[4,2] r, float[2,5] c)
    => (float[n,1,4,5] y) {
      e = adcompile.SquaredErrorMap (a, b)
      y = adcompile.MapUpsampleBlur (e, r, c)
    }"""
    rows, columns = uniform(12, 4, 2), uniform(13, 2, 5)
    (out,) = run(text, opset, a=a, b=b, r=rows, c=columns)
    assert np.allclose(out[:, 0], rows @ ((a - b) ** 2).mean(1) @ columns, rtol=1e-5)
    text = """m (float[n] x) => (float[n] y, float[n] z) {
      y = adcompile.NormalizeScore <threshold = 2.0, minimum = 1.0, maximum = 4.0> (x)
      z = adcompile.NormalizeScoreCdf <threshold = 2.0, std = 0.5> (x)
    }"""
    y, z = run(text, opset, x=np.array([2.0, 3.0, 100.0, 0.0], dtype=np.float32))
    assert y.tolist() == pytest.approx([0.5, 0.5 + 1 / 3, 1.0, 0.0], rel=1e-6)
    phi = 0.5 * (1 + math.erf(math.log(1.5) / 0.5 / math.sqrt(2)))
    assert z.tolist() == pytest.approx([0.5, phi, 1.0, 0.0], abs=1e-6)


def test_functions_are_added_once_with_what_they_call() -> None:
    """A model gets the functions it uses, their callees too, and nothing twice."""
    header = '<ir_version: 9, opset_import: ["" : 17, "adcompile" : 1]>\n'
    model = ir.from_onnx_text(
        header
        + """m (float[6,1] d, int64[6,1] i, float[6,4] x, float[7,4] b)
    => (float[1] s, float[1,1,2,3] p)
    { s, p = adcompile.PatchScorePaper <grid = [2, 3], k = 5> (d, i, x, b) }"""
    )
    assert ops.add_functions(model) == ("KnnSearch", "PatchScorePaper")
    assert ops.add_functions(model) == ()
    with pytest.raises(UsageError, match="no adcompile op"):
        ops.function("Unknown")
    with pytest.raises(UsageError, match="opset 13 to 21"):
        ops.function("KnnSearch", 11)
