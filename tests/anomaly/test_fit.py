"""PatchCore and PaDiM from images to a saved graph that scores like the NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.anomaly import padim, patchcore, scoring
from adcompile.anomaly.adapt import fit_whitening
from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import (
    PadimConfig,
    PatchcoreConfig,
    describe_parameters,
    load_config,
    make_config,
    parse_values,
    split_words,
)
from adcompile.anomaly.detector import open_detector
from adcompile.anomaly.fitting import fit, recalibrate
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import embed, patch_rows
from adcompile.anomaly.model_folder import (
    Fitted,
    read_config,
    read_contract_of,
    read_evidence,
    save_fitted,
)
from adcompile.anomaly.presets import PRESETS, preset
from adcompile.anomaly.samples import DataSet, SplitOptions, divide, from_arrays
from adcompile.anomaly.selection import choose_rows, row_count
from adcompile.anomaly.threshold import is_anomalous
from adcompile.cli import main
from adcompile.errors import AdcompileError, InputError, ModelError, UsageError
from adcompile.ir import model_io
from tests.anomaly.conftest import SIDE, tiny_backbone


def patchcore_config(**values: object) -> PatchcoreConfig:
    config = make_config("patchcore", {"image_size": SIDE, "coreset_ratio": 0.05, **values})
    assert isinstance(config, PatchcoreConfig)
    return config


@pytest.mark.parametrize("name", sorted(PRESETS["patchcore"]))
@pytest.mark.parametrize("batch", [1, "N"])
def test_graph_equals_numpy_for_every_preset(name: str, batch: int | str, twill: DataSet) -> None:
    """The ONNX graph's score and map equal the NumPy formulas to 1e-4 and 1e-3."""
    chosen = preset("patchcore", name, side=SIDE)
    network = load_backbone(tiny_backbone(batch=batch))
    spec, upsampling = chosen.preprocess, chosen.deep_upsampling
    rows = patchcore.features_of(network, twill.train, spec, upsampling)
    bank = patchcore.build_bank(rows, patchcore_config(preset=name), chosen)
    model = patchcore.build_model(network, bank, chosen.score, spec, upsampling)
    images = np.concatenate(list(batches(twill.test[:3], spec)))
    scores, maps = open_detector(model)(images)
    features = patch_rows(embed(FeatureRunner(network)(images), upsampling))
    found = scoring.patchcore_scores(features, bank, network.grids[0], chosen.score)
    assert np.allclose(scores, found.scores, rtol=1e-4)
    assert np.allclose(
        maps, scoring.finish_maps(found.maps, chosen.score, (SIDE, SIDE)), rtol=1e-3
    )


@pytest.mark.parametrize("name", sorted(PRESETS["padim"]))
def test_padim_graph_equals_numpy(name: str, twill: DataSet) -> None:
    """Score and map of PaDiM's graph equal the NumPy formulas; statistics equal np.cov."""
    chosen = preset("padim", name, side=SIDE)
    network = load_backbone(tiny_backbone())
    spec = chosen.preprocess
    index = padim.channel_index(sum(network.channels), 7, 3)
    runner = FeatureRunner(network)
    gaussian = padim.fit_gaussian(runner, twill.train, spec, index, chosen.covariance, batch=3)
    model = padim.build_model(network, gaussian, chosen.score, spec)
    images = np.concatenate(list(batches(twill.test[:3], spec)))
    scores, maps = open_detector(model)(images)
    embedding = embed(runner(images), "nearest", pool=False)[:, index]
    form = scoring.mahalanobis_map(
        embedding, gaussian.mean, gaussian.inverse, square_root=chosen.score.square_root
    )
    finished = scoring.finish_maps(form, chosen.score, (SIDE, SIDE))
    assert np.allclose(maps, finished, rtol=1e-3, atol=1e-3)
    assert np.allclose(scores, scoring.padim_scores(finished), rtol=1e-4)
    train = np.concatenate(list(batches(twill.train, spec)))
    patch = embed(runner(train), "nearest", pool=False)[:, index, 2, 5].astype(np.float64)
    covariance = np.cov(patch.T) + chosen.covariance * np.eye(7)
    at = 2 * network.grids[0][1] + 5
    assert np.allclose(gaussian.inverse[at] @ covariance, np.eye(7), atol=1e-4)
    assert np.allclose(gaussian.mean[:, at], patch.mean(0), atol=1e-5)


@pytest.fixture(scope="module")
def fitted(twill: DataSet) -> Fitted:
    """PatchCore with the built-in filters."""
    return fit(patchcore_config(), twill)


def test_fit_separates_the_generated_defects(fitted: Fitted, twill: DataSet) -> None:
    """The built-in filters find easy defects; the contract's decision is what metrics counted."""
    test = fitted.metrics["test"]["image"]
    assert float(test["auroc"] or 0) > 0.9
    score = fitted.contract.score
    assert score is not None
    detector = open_detector(fitted.model)
    images = np.concatenate(list(batches(twill.test, detector.preprocess)))
    raw, _ = detector(images)
    right = is_anomalous(raw, score) == np.array([s.label for s in twill.test], dtype=bool)
    assert right.mean() == pytest.approx(test["accuracy"])


def test_score_output_is_normalised_exactly_once(fitted: Fitted, twill: DataSet) -> None:
    """``score`` is (raw - t) / (max - min) + 0.5 of ``raw_score``, clipped."""
    from adcompile.anomaly.threshold import normalise
    from adcompile.runtime.session import open_session

    score = fitted.contract.score
    assert score is not None
    assert score.normalisation == "min_max"
    session = open_session(model_io.to_bytes(fitted.model))
    spec = fitted.contract.inputs["image"]
    found = session.run({"image": np.concatenate(list(batches(twill.test[:4], spec)))})
    assert np.allclose(found["score"], normalise(found["raw_score"], score), atol=1e-6)


def test_folder_round_trip_is_byte_stable(fitted: Fitted, tmp_path: Path, twill: DataSet) -> None:
    """Saved twice, and fitted twice with the same seed: the same bytes; everything reads back."""
    save_fitted(fitted, tmp_path / "a")
    save_fitted(fit(patchcore_config(), twill), tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "memory.bank" in names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert read_config(tmp_path / "a") == fitted.config
    assert read_evidence(tmp_path / "a") == fitted.evidence
    assert read_contract_of(tmp_path / "a") == fitted.contract
    with pytest.raises(UsageError, match="already exists"):
        save_fitted(fitted, tmp_path / "a")
    again = make_config("patchcore", load_config(tmp_path / "a" / "config.yaml"))
    assert again == fitted.config


def test_threshold_changes_without_refitting(fitted: Fitted, twill: DataSet) -> None:
    """Another mode and normalisation from the evidence: bank and raw scores stay the same."""
    changed = recalibrate(fitted, {"threshold": "good_only", "normalisation": "sigma6"})
    before, after = fitted.contract.score, changed.contract.score
    assert before is not None
    assert after is not None
    assert after.normalisation == "sigma6"
    assert after.maximum == pytest.approx(2 * (after.threshold or 0))
    detector = open_detector(changed.model)
    images = np.concatenate(list(batches(twill.test[:3], detector.preprocess)))
    assert (detector(images)[0] == open_detector(fitted.model)(images)[0]).all()
    assert detector.contract == changed.contract
    with pytest.raises(UsageError, match="without refitting"):
        recalibrate(fitted, {"coreset_ratio": 0.5})


def test_quantized_backbone_by_position(twill: DataSet) -> None:
    """A Q/DQ backbone with outputs chosen by position builds bank and graph from its own values."""
    model = tiny_backbone(batch=1, opset=13)
    shallow = next(v for v in model.graph.outputs if v.name == "shallow")
    node = shallow.producer()
    assert node is not None
    scale = ir.Value(name="scale", const_value=ir.tensor(np.float32(0.5), name="scale"))
    zero = ir.Value(name="zero", const_value=ir.tensor(np.int8(0), name="zero"))
    model.graph.initializers["scale"], model.graph.initializers["zero"] = scale, zero
    quantize = ir.node("QuantizeLinear", [shallow, scale, zero])
    restore = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])
    model.graph.insert_after(node, [quantize, restore])
    model.graph.outputs[1] = restore.outputs[0]
    restore.outputs[0].name = "relu_43"
    network = load_backbone(model, ["1", "0"])
    assert network.layers == ("relu_43", "deep")
    result = fit(patchcore_config(whiten=0.0), twill, backbone=network)
    assert result.bank is not None
    assert "QuantizeLinear" in {node.op_type for node in result.model.graph}


def test_whitening_makes_unit_covariance() -> None:
    """Whitened rows have nearly unit covariance; kept columns are the leading ones."""
    random = np.random.default_rng(0)
    rows = (random.standard_normal((4000, 5)) @ random.standard_normal((5, 5))).astype(np.float32)
    white = fit_whitening(rows, 1e-6).apply(rows)
    assert np.allclose(np.cov(white.T), np.eye(5), atol=1e-2)
    assert np.allclose(fit_whitening(rows, 1e-6, 2).apply(rows), white[:, :2], atol=1e-3)


def test_selection_rules() -> None:
    """Ratio 0 rows gives one; "dropped" forgets the first pick; "index0" starts at row 0."""
    rows = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    assert (choose_rows(rows, 5) == choose_rows(rows, 5)).all()
    kept, dropped = choose_rows(rows, 5), choose_rows(rows, 5, first="dropped")
    assert (dropped[:4] == kept[1:]).all()
    assert choose_rows(rows, 3, first="index0")[0] == 0
    assert row_count(100, 0.001) == 1
    with pytest.raises(UsageError, match="more rows"):
        row_count(100, 0.1, 101)


def test_arrays_instead_of_files(twill: DataSet) -> None:
    """Images and masks in memory are fitted like files."""
    from adcompile.anomaly.images import read_pixels

    train = from_arrays([read_pixels(s.path) for s in twill.train])
    bad = from_arrays([read_pixels(s.path) for s in twill.test if s.label], 1)
    good = from_arrays([read_pixels(s.path) for s in twill.test if not s.label])
    data = divide("arrays", "arrays", train, [*good, *bad], SplitOptions(validation="same"))
    result = fit(patchcore_config(validation="same"), data)
    assert result.metrics["test"]["image"]["images"] == len(twill.test)


def test_good_images_only(twill: DataSet) -> None:
    """Without anomalous images the threshold is mean + 3 sigma, and no AUROC is invented."""
    data = replace(twill, validation=twill.train[:4], test=())
    result = fit(patchcore_config(), data)
    assert result.contract.score is not None
    scores = np.array(result.evidence.scores)
    expected = scores.mean() + 3 * scores.std(ddof=1)
    assert result.contract.score.threshold == pytest.approx(expected, rel=1e-5)
    assert result.metrics["validation"]["image"]["auroc"] is None


def test_equal_features_are_refused() -> None:
    """Features that carry no information are an error with the reason, not a bank of one point."""
    rows = np.ones((64, 5), dtype=np.float32)
    with pytest.raises(InputError, match="all features are equal"):
        patchcore.build_bank(rows, patchcore_config(), preset("patchcore"))
    with pytest.raises(InputError, match="all features are equal"):
        fit_whitening(rows, 0.01)


def test_equal_images_have_no_score_range() -> None:
    """Validation images that all score alike cannot be normalised: refused, never "OK" for all."""
    same = from_arrays([np.full((SIDE, SIDE, 3), 90, np.uint8)] * 3)
    data = DataSet("flat", "arrays", same, same, ())
    with pytest.raises(InputError, match="maximum must be above"):
        fit(make_config("padim", {"image_size": SIDE, "features": 4}), data)


def test_one_training_image(twill: DataSet) -> None:
    """PatchCore works from one image; PaDiM needs two and says so."""
    single = replace(twill, train=twill.train[:1])
    assert fit(patchcore_config(coreset_ratio=0.5), single).bank is not None
    config = PadimConfig(image_size=SIDE)
    with pytest.raises(InputError, match="at least two"):
        fit(config, single)


def test_broken_backbones_are_refused(twill: DataSet) -> None:
    """NaN features, two inputs, wrong outputs, free size without a size: each says what is wrong."""
    model = tiny_backbone()
    value = model.graph.initializers["w2"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(np.nan), name="w2")
    with pytest.raises(InputError, match="not finite"):
        fit(patchcore_config(), twill, backbone=load_backbone(model))
    with pytest.raises(UsageError, match="no output 'layer9'"):
        load_backbone(tiny_backbone(), ["layer9"])
    with pytest.raises(UsageError, match="any image size"):
        load_backbone(tiny_backbone(side="S"))
    assert load_backbone(tiny_backbone(side="S"), side=32).size == (32, 32)
    with pytest.raises(UsageError, match="64×64 only"):
        load_backbone(tiny_backbone(), side=32)
    two = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[1] a, float[1] b) => (float[1] c)'
        "{ c = Add(a, b) }"
    )
    with pytest.raises(ModelError, match="one input"):
        load_backbone(two)


def test_configuration_names() -> None:
    """One name each: other systems' names are answered with ours; types and ranges are checked."""
    with pytest.raises(UsageError, match="is called coreset_ratio here"):
        make_config("patchcore", {"coreset_sampling_ratio": 0.1})
    with pytest.raises(UsageError, match="no parameter 'ratoi'"):
        make_config("patchcore", {"ratoi": 0.1})
    with pytest.raises(UsageError, match="coreset_ratio is not valid"):
        make_config("patchcore", {"coreset_ratio": 0})
    with pytest.raises(UsageError, match="no method"):
        make_config("cnn", {})
    values = parse_values(["--coreset-ratio", "0.5", "--layers=a,b", "--preset", "r2"])
    assert values == {"coreset_ratio": 0.5, "layers": ["a", "b"], "preset": "r2"}
    with pytest.raises(UsageError, match="needs a value"):
        parse_values(["--k"])
    with pytest.raises(UsageError) as near:
        make_config("patchcore", {"backbonne": "resnet18"})
    assert near.value.fix == "did you mean --backbone?"
    mixed = split_words(["--k", "3", "patchcore", "--seed=1", "more"])
    assert mixed == (["patchcore", "more"], {"k": 3, "seed": 1})
    listed = dict(describe_parameters())
    assert "--seed 0" in listed["every method"]
    assert "--coreset-ratio 0.1" in listed["patchcore"]
    assert "--seed" not in listed["padim"]


def test_k_above_the_bank_is_refused(twill: DataSet) -> None:
    """Own-neighbour weighting with fewer rows than k never becomes a detector."""
    with pytest.raises(UsageError, match="fewer rows than k"):
        fit(patchcore_config(coreset_rows=5), twill)


def test_command_line_fits(
    twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """fit writes the folder and a table; a second run needs --force; bad options exit 2."""
    words = ["fit", "padim", "--data", str(twill_folder), "-o", str(tmp_path / "m")]
    words += ["--image-size", str(SIDE), "--features", "20"]
    assert main(words) == 0
    assert "twill" in capsys.readouterr().out
    assert (tmp_path / "m" / "stats.npz").is_file()
    assert main(words) == 2
    assert main([*words, "--force", "--json"]) == 0
    assert main(["fit", "padim", "--data", str(tmp_path), "-o", str(tmp_path / "n")]) == 2


def test_interrupted_fit_leaves_nothing(
    twill: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: Fitted
) -> None:
    """An error while writing leaves neither a folder nor a scratch folder."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model_io, "save_model", fail)
    with pytest.raises(KeyboardInterrupt):
        save_fitted(fitted, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    assert issubclass(UsageError, AdcompileError)
