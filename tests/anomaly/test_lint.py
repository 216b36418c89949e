"""The defects of real deployments, each as a contract that contradicts its graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.anomaly import padim, patchcore
from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.lint import RULES, lint, subject_of
from adcompile.anomaly.ops import add_functions
from adcompile.anomaly.padim import Gaussian
from adcompile.anomaly.presets import PRESETS, preset
from adcompile.anomaly.whiten import factor_of
from adcompile.cli import main
from adcompile.contract import CONTRACT_KEY, Contract, Preprocess, parse_contract
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.constants import lift_constants
from adcompile.ir.shapes import infer_shapes
from adcompile.passes.raise_anomaly import RaiseAnomaly
from tests.anomaly.conftest import SIDE, tiny_backbone

Array = npt.NDArray[np.generic]
IMAGENET = Preprocess(size=(8, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNIT = Preprocess(size=(8, 8))
ROLES = {"score": "score", "raw_score": "raw_score", "anomaly_map": "map"}


def rules_of(model: ir.Model, contract: Contract | None = None) -> set[str]:
    """Ids of the rules that speak about a model."""
    found = contract or parse_contract(model.metadata_props[CONTRACT_KEY])
    return {issue.rule for issue in lint(subject_of(model, found))}


def fitted(kind: str, name: str, **score: object) -> tuple[ir.Model, Contract]:
    """A detector of ours with a preset; *score* overrides the contract, not the graph."""
    chosen = preset(kind, name, side=SIDE)
    backbone = load_backbone(tiny_backbone(batch=1))
    numbers = {"threshold": 2.0, "minimum": 1.0, "maximum": 4.0, "std": 0.5}
    normalised = chosen.threshold.normalisation
    full = chosen.score.model_copy(update={**numbers, "normalisation": normalised})
    rng = np.random.default_rng(0)
    if kind == "patchcore":
        rows = rng.random((16, 11), dtype=np.float32)
        model = patchcore.build_model(
            backbone, rows, full, chosen.preprocess, chosen.deep_upsampling
        )
    else:
        patches = backbone.grids[0][0] * backbone.grids[0][1]
        eyes = np.broadcast_to(np.eye(4, dtype=np.float32), (patches, 4, 4)).copy()
        index = np.array([0, 3, 7, 9])
        stats = Gaussian(np.zeros((4, patches), np.float32), eyes, index, factor_of(eyes))
        model = padim.build_model(backbone, stats, full, chosen.preprocess)
    infer_shapes(model)
    contract = parse_contract(model.metadata_props[CONTRACT_KEY])
    assert contract.score is not None
    changed = contract.score.model_copy(update=score)
    return model, contract.model_copy(update={"score": changed})


def written(
    text: str, constants: dict[str, Array] | None = None, *, raised: bool = True
) -> ir.Model:
    """A graph from text, with heads raised."""
    tensors = [ir.tensor(np.asarray(a), name=n) for n, a in (constants or {}).items()]
    head = '<ir_version: 8, opset_import: ["" : 17, "adcompile" : 1]>\n'
    model = ir.from_onnx_text(head + text, initializers=tensors)
    lift_constants(model)
    add_functions(model)
    infer_shapes(model)
    if raised:
        RaiseAnomaly().run(model, Report())
    return model


@pytest.mark.parametrize(
    ("method", "name"),
    [(m, n) for m in ("patchcore", "padim") for n in PRESETS[m]],
)
def test_our_own_models_are_silent(method: str, name: str) -> None:
    """No preset of ours contradicts the graph that is built for it."""
    model, contract = fitted(method, name)
    assert rules_of(model, contract) == set()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"metric": "squared_l2"}, "squared-against-root"),
        ({"weighting": "paper"}, "score-formula"),
        ({"k": 5}, "score-formula"),
        ({"blur_sigma": 4.0}, "score-formula"),
        ({"map_upsampling": "bilinear"}, "score-formula"),
        ({"k": 40}, "few-rows"),
        ({"threshold": 9.0}, "threshold-outside-range"),
        ({"threshold": 0.5}, "threshold-outside-range"),
        ({"threshold": 2.5}, "threshold-differs"),
        ({"maximum": 1.0}, "empty-range"),
        ({"k": 1}, "vanishing-weight"),
        ({"normalisation": "none", "threshold": 8.26}, "threshold-differs"),
        ({"preset": "anomalib"}, "missing-crop"),
        ({"method": "padim"}, "score-formula"),
    ],
)
def test_contracts_against_patchcore(change: dict[str, object], rule: str) -> None:
    """R0's graph with one field of its contract changed."""
    model, contract = fitted("patchcore", "r0", **change)
    assert rule in rules_of(model, contract)


def test_a_threshold_on_the_other_scale_is_said() -> None:
    """The message tells a squared threshold, a rooted one and a normalised one apart."""
    for value, words in ((9.0, "squared scale"), (0.5, "normalised"), (1e6, "decided the same")):
        model, contract = fitted("patchcore", "r0", threshold=value)
        texts = [str(i) for i in lint(subject_of(model, contract))]
        assert any(words in t for t in texts), (value, texts)


def test_padim_of_one_layer_squared() -> None:
    """R1's export: squared form of the first layer, no channel choice, no blur."""
    text = """g (float[1, 3, 8, 8] image) => (float[1, 1] raw_score) {
      f = Conv <kernel_shape = [2, 2], strides = [2, 2]> (image, w)
      s = adcompile.MahalanobisMap (f, mean, inverse)
      raw_score = ReduceMax <axes = [2, 3], keepdims = 0> (s)
    }"""
    eyes = np.broadcast_to(np.eye(4, dtype=np.float32), (16, 4, 4)).copy()
    constants: dict[str, Array] = {
        "w": np.ones((4, 3, 2, 2), np.float32),
        "mean": np.zeros((4, 16), np.float32),
        "inverse": eyes,
    }
    score = preset("padim", "anomalib").score.model_copy(
        update={"threshold": 3.0, "minimum": 1.0, "maximum": 6.0, "normalisation": "min_max"}
    )
    contract = Contract(inputs={"image": UNIT}, roles={"raw_score": "score"}, score=score)
    found = rules_of(written(text, constants), contract)
    assert {"channel-index", "squared-against-root", "threshold-differs"} <= found


NORMALISING = """g (float[1, 3, 8, 8] image) => (float[1, 1, 8, 8] error) {
  a = Sub (image, mean) b = Div (a, std)
  t = Conv <kernel_shape = [1, 1]> (b, w1) s = Conv <kernel_shape = [1, 1]> (b, w2)
  error = adcompile.SquaredErrorMap (t, s)
}"""


def normalising(**change: Array) -> ir.Model:
    """Student and teacher that normalise inside, as EfficientAD does."""
    constants: dict[str, Array] = {
        "mean": np.array([0.485, 0.456, 0.406], np.float32)[None, :, None, None],
        "std": np.array([0.229, 0.224, 0.225], np.float32)[None, :, None, None],
        "w1": np.ones((4, 3, 1, 1), np.float32),
        "w2": np.zeros((4, 3, 1, 1), np.float32),
    }
    return written(NORMALISING, constants | change)


def test_normalised_twice_before_the_network() -> None:
    """EfficientAD normalises inside; a host that does it too is named, one that does not is not."""
    assert "double-normalisation" in rules_of(normalising(), Contract(inputs={"image": IMAGENET}))
    assert rules_of(normalising(), Contract(inputs={"image": UNIT})) == set()
    scaled = written(
        """g (float[1, 3, 8, 8] image) => (float[1, 4, 8, 8] y) {
        a = Div (image, n) y = Conv <kernel_shape = [1, 1]> (a, w) }""",
        {"n": np.array(255.0, np.float32), "w": np.ones((4, 3, 1, 1), np.float32)},
    )
    assert "double-scaling" in rules_of(scaled, Contract(inputs={"image": UNIT}))


def test_constants_that_are_nearly_right() -> None:
    """std .255 instead of .225 in the contract or in the graph; mean in the wrong order."""
    slip = IMAGENET.model_copy(update={"std": (0.229, 0.224, 0.255)})
    assert "wrong-constants" in rules_of(written(PLAIN, W), Contract(inputs={"image": slip}))
    turned = IMAGENET.model_copy(update={"mean": (0.406, 0.456, 0.485)})
    assert "wrong-constants" in rules_of(written(PLAIN, W), Contract(inputs={"image": turned}))
    assert rules_of(written(PLAIN, W), Contract(inputs={"image": IMAGENET})) == set()
    wrong = np.array([0.229, 0.224, 0.255], np.float32)[None, :, None, None]
    unit = Contract(inputs={"image": UNIT})
    assert "wrong-constants" in rules_of(normalising(std=wrong), unit)


PLAIN = """g (float[1, 3, 8, 8] image) => (float[1, 4, 8, 8] y) {
  y = Conv <kernel_shape = [1, 1]> (image, w) }"""
W: dict[str, Array] = {"w": np.ones((4, 3, 1, 1), np.float32)}


def test_autoencoders() -> None:
    """R1's VAE: sampling left in, and normalised pixels against a sigmoid's reconstruction."""
    text = """g (float[1, 3, 8, 8] image)
      => (float[1, 3, 8, 8] output, float[1, 3, 8, 8] 41) {
      a = Conv <kernel_shape = [1, 1]> (image, w)
      n = RandomNormalLike (a) 41 = Add (a, n) output = Sigmoid (41)
    }"""
    text = text.replace("41", "v41")
    model = written(text, {"w": np.ones((3, 3, 1, 1), np.float32)})
    found = rules_of(model, Contract(inputs={"image": IMAGENET}))
    assert {"sampling", "reconstruction-scale"} <= found
    assert "reconstruction-scale" not in rules_of(model, Contract(inputs={"image": UNIT}))


def test_outputs_that_are_mistaken() -> None:
    """Score and map swapped; an output that an exporter numbered."""
    model, contract = fitted("patchcore", "r0")
    swapped = {"score": "map", "anomaly_map": "score", "raw_score": "raw_score"}
    wrong = contract.model_copy(update={"roles": swapped})
    assert "output-roles" in rules_of(model, wrong)
    named = {"score": "out", "anomaly_map": "565"}
    for value in model.graph.outputs:
        value.name = named.get(value.name or "", value.name)
    unknown = contract.model_copy(update={"roles": {"raw_score": "raw_score"}})
    assert "unnamed-outputs" in rules_of(model, unknown)


def test_normalised_again() -> None:
    """A normalised score that is normalised once more; a raw role for a normalised output."""
    text = """g (float[1, 4] x) => (float[1, 4] score) {
      a = adcompile.NormalizeScore <threshold: float = 2.0, minimum: float = 0.0,
        maximum: float = 4.0> (x)
      score = adcompile.NormalizeScore <threshold: float = 0.5, minimum: float = 0.0,
        maximum: float = 1.0> (a) }"""
    model = written(text, raised=False)
    contract = Contract(roles={"score": "raw_score"})
    texts = [i.where for i in lint(subject_of(model, contract)) if i.rule == "normalised-twice"]
    assert len(texts) == 2


def test_softmax_that_overflows() -> None:
    """exp of distances without subtracting the maximum, as R0's and R2's Python do."""
    text = """g (float[4, 6] x) => (float[4, 3] e) {
      d, i = adcompile.KnnSearch <k: int = 3> (x, bank) e = Exp (d) }"""
    rows: dict[str, Array] = {"bank": np.eye(6, dtype=np.float32)}
    assert "overflowing-softmax" in rules_of(written(text, rows), Contract())
    safe = text.replace("e = Exp (d)", "m = ReduceMax <axes = [1]> (d) s = Sub (d, m) e = Exp (s)")
    assert "overflowing-softmax" not in rules_of(written(safe, rows), Contract())


def test_one_range_for_score_and_map() -> None:
    """R0 normalises the weighted score and the map with the same three numbers."""
    numbers = "<threshold: float = 2.0, minimum: float = 0.0, maximum: float = 4.0>"
    text = f"""g (float[4, 6] x) => (float[1] score, float[1, 1, 2, 2] anomaly_map) {{
      d, i = adcompile.KnnSearch <k: int = 3> (x, bank)
      raw, m = adcompile.PatchScoreOwn <grid: ints = [2, 2]> (d)
      score = adcompile.NormalizeScore {numbers} (raw)
      anomaly_map = adcompile.NormalizeScore {numbers} (m) }}"""
    rows: dict[str, Array] = {"bank": np.eye(6, dtype=np.float32)}
    assert "shared-range" in rules_of(written(text, rows), Contract())


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """lint exits 1 with ids and 0 in silence; build and check say the same, --strict refuses."""
    path = tmp_path / "m.onnx"
    model, contract = fitted("patchcore", "r0")
    model_io.save_model(model, path)
    assert main(["lint", str(path)]) == 0
    assert "0 contradictions" in capsys.readouterr().out
    wrong = contract.model_dump(mode="json")
    wrong["score"]["metric"] = "squared_l2"
    file = tmp_path / "contract.json"
    file.write_text(json.dumps(wrong))
    assert main(["lint", str(path), "--contract", str(file), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [i["rule"] for i in found["issues"]] == ["squared-against-root"]
    words = [str(path), "--target", "drpai", "--contract", str(file), "--precision", "fp32"]
    build = ["build", *words, "-o", str(tmp_path / "out"), "--no-host-code"]
    assert main([*build, "--strict"]) == 1
    assert "squared-against-root" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(build) == 0
    assert "[squared-against-root]" in capsys.readouterr().out
    assert main(["lint", "--rules", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["rules"]) == set(RULES)
    assert main(["lint"]) == 2


def test_open_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with a free batch is named by the verb; a build fixes it and says nothing."""
    chosen = preset("patchcore", "r0", side=SIDE)
    full = chosen.score.model_copy(update={"threshold": 2.0, "minimum": 1.0, "maximum": 4.0})
    rows = np.random.default_rng(0).random((16, 11), dtype=np.float32)
    backbone = load_backbone(tiny_backbone())
    model = patchcore.build_model(backbone, rows, full, chosen.preprocess, "nearest")
    path = tmp_path / "m.onnx"
    model_io.save_model(model, path)
    assert main(["lint", str(path)]) == 1
    assert "open-batch" in capsys.readouterr().out
