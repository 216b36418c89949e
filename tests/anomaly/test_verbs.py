"""retrain and eval from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from adcompile.anomaly.config import PatchcoreConfig
from adcompile.anomaly.model_folder import load_fitted
from adcompile.anomaly.r0_config import from_r0
from adcompile.cli import main
from adcompile.errors import FormatError
from tests.anomaly.conftest import SIDE


@pytest.fixture(scope="module")
def model(twill_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted PatchCore folder."""
    folder = tmp_path_factory.mktemp("models") / "m"
    words = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(folder)]
    assert main([*words, "--image-size", str(SIDE), "--coreset-ratio", "0.05"]) == 0
    return folder


def test_retrain_refits_with_the_saved_configuration(
    model: Path, twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same images, same configuration: the same bank; another ratio changes its rows. The result
    names the device."""
    words = ["retrain", str(model), "--data", str(twill_folder), "-o"]
    assert main([*words, str(tmp_path / "same")]) == 0
    capsys.readouterr()
    assert main([*words, str(tmp_path / "less"), "--coreset-ratio", "0.03", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["device"]) == (str(tmp_path / "less"), "cpu")
    old, same, less = (load_fitted(p) for p in (model, tmp_path / "same", tmp_path / "less"))
    assert old.bank is not None
    assert same.bank is not None
    assert less.bank is not None
    assert np.array_equal(old.bank, same.bank)
    assert len(less.bank) < len(old.bank)
    assert main([*words, str(tmp_path / "same")]) == 2


def test_fit_from_a_configuration(model: Path, twill_folder: Path, tmp_path: Path) -> None:
    """--config starts from a saved one, of which single values are replaced."""
    words = ["fit", "patchcore", "--data", str(twill_folder), "-o", str(tmp_path / "m")]
    words += ["--config", str(model / "config.yaml")]
    assert main([*words, "--coreset-ratio", "0.03"]) == 0
    assert load_fitted(tmp_path / "m").config == load_fitted(model).config.model_copy(
        update={"coreset_ratio": 0.03}
    )
    assert main([*words[:-1], str(tmp_path / "none.yaml"), "--coreset-ratio", "0.03"]) == 2


def test_fit_from_r0_s_configuration(
    twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file of R0 is data and configuration; as data alone, what is passed over is said."""
    folders = {"good": twill_folder / "train" / "good", "bad": twill_folder / "test" / "spot"}
    path = tmp_path / "train.yaml"
    path.write_text(
        "coreset_sampling_ratio: 0.05\nnum_neighbors: 3\n"
        f"input_size: [{SIDE}, {SIDE}]\ndevice: null\nbatch_size: 1\n"
        "save_weights_filename: a.pth\n"
        f"train: {{data_paths: ['{folders['good']}']}}\n"
        f"val: {{data_paths: ['{folders['good']}', '{folders['bad']}'], labels: [0, 1]}}\n"
        f"test: {{data_paths: ['{folders['good']}', '{folders['bad']}'], labels: [0, 1]}}\n",
        encoding="utf-8",
    )
    words = ["fit", "patchcore", "--data", str(path), "-o", str(tmp_path / "m")]
    assert main([*words, "--config", str(path), "--coreset-ratio", "0.03"]) == 0
    fitted = load_fitted(tmp_path / "m").config
    assert isinstance(fitted, PatchcoreConfig)
    assert (fitted.k, fitted.image_size, fitted.batch, fitted.coreset_ratio) == (3, SIDE, 1, 0.03)
    assert "--config" not in capsys.readouterr().out
    small = ["--image-size", str(SIDE), "--coreset-ratio", "0.03", "--force"]
    assert main([*words, *small]) == 0
    assert f"--config {path}" in capsys.readouterr().out


def test_values_of_r0() -> None:
    """Its networks are cut at two layers, images are square, and its words are checked."""
    values: dict[str, object] = {"backborn_id": "resnet18", "input_size": [224, 224]}
    wanted = {"backbone": "resnet18", "image_size": 224, "layers": ("layer2", "layer3")}
    assert from_r0(values) == wanted
    assert from_r0({"backborn_id": "resnet18_onnx"}) == {"backbone": "resnet18_onnx"}
    for wrong in ({"input_size": [224, 192]}, {"num_neighbours": 9}):
        with pytest.raises(FormatError):
            from_r0(wrong)


def test_threshold_alone(
    model: Path, tmp_path: Path, twill_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--only-threshold keeps bank and network and needs no images; with images it is refused.
    Nothing was fitted, so the result names no device."""
    words = ["retrain", str(model), "-o", str(tmp_path / "t"), "--only-threshold"]
    assert main([*words, "--threshold", "manual", "--threshold-value", "2.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] is None
    changed = load_fitted(tmp_path / "t")
    assert changed.contract.score is not None
    assert changed.contract.score.threshold == 2.5
    assert main([*words, "--force", "--data", str(twill_folder)]) == 2
    assert main(["retrain", str(model), "-o", str(tmp_path / "u")]) == 2
    assert main(["retrain", str(tmp_path)]) == 2


def test_eval_prints_metrics_and_flips(
    model: Path, tmp_path: Path, twill_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder and its ONNX file agree; an absurd threshold shows every flipped image."""
    high = tmp_path / "high"
    words = ["retrain", str(model), "-o", str(high), "--only-threshold", "--threshold", "manual"]
    assert main([*words, "--threshold-value", "1e6"]) == 0
    capsys.readouterr()
    subjects = [str(model), str(model / "model.onnx"), str(high)]
    assert main(["eval", *subjects, "--data", str(twill_folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    image = found["results"]["m"]["test"]["image"]
    assert image["images"] == 18
    assert found["results"]["model.onnx"] == found["results"]["m"]
    assert found["flips"]["model.onnx"] == []
    flagged = round((image["recall"] * image["anomalous"]) / max(image["precision"], 1e-9))
    assert len(found["flips"]["high"]) == flagged > 0
    assert main(["eval", str(tmp_path / "none"), "--data", str(twill_folder)]) == 2


def test_eval_of_a_model_that_declares_nothing(
    model: Path, twill_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As another exporter writes it: formula and threshold are read from the graph."""
    foreign, proto = tmp_path / "foreign.onnx", onnx.load(model / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, foreign)
    assert main(["eval", str(foreign), str(model), "--data", str(twill_folder), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results["foreign.onnx"]["test"]["image"]["auroc"] > 0.7
    assert main(["eval", str(model / "backbone.onnx"), "--data", str(twill_folder)]) == 2
    assert "names no score, map and input" in capsys.readouterr().err


def test_fitted_folder_as_other_formats(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fit has learned converts into R0's board file with the contract's numbers."""
    score = load_fitted(model).contract.score
    assert score is not None
    assert main(["bank", "convert", str(model), str(tmp_path / "a.bin")]) == 0
    capsys.readouterr()
    assert main(["bank", "info", str(tmp_path / "a.bin"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threshold"] == score.threshold
    assert found["neighbours"] == score.k
    assert (
        main(["bank", "convert", str(tmp_path / "a.bin"), str(tmp_path / "m"), "--to", "fit"]) == 2
    )


def test_eval_of_several_categories(
    twill_folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of models on a folder of categories: a row per category and their average."""
    for name in ("a", "b"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(twill_folder)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / name).symlink_to(model)
    words = ["eval", str(tmp_path / "models"), str(model), "--data", str(tmp_path / "data")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["results"]["models"]) == {"a", "b"}
    one = found["results"]["models"]["a"]["test"]
    assert found["average"]["models"]["image AUROC"] == pytest.approx(one["image"]["auroc"])
    assert found["average"]["models"]["images"] == 2 * one["image"]["images"]
    assert found["flips"] == {"m": []}
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("AUPRO") == 2
    assert "m: 0 decisions differ" in shown
