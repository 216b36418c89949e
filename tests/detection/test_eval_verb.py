"""``adcompile eval`` on detectors: float, simulated and device side by side, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from adcompile.backends.npu import executor
from adcompile.backends.npu.session import PROVIDER
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.detection.coco import CocoSet
from adcompile.detection.precision import ROWS
from tests.backends.test_npu_session import FakeDevice
from tests.detection.detector import detector_with_masks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small two-stage detector."""
    path = tmp_path_factory.mktemp("model") / "detector.onnx"
    onnx.save(detector_with_masks(), path)
    return path


@pytest.fixture(scope="module")
def bundle(model: Path, drawn: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = BuildOptions(
        precision="a8w8", calib=drawn.folder, golden_count=1, host_code=False, cache=False
    )
    return compile(model, "npu:stx", tmp_path_factory.mktemp("b") / "out", options).path


def arguments(drawn: CocoSet, *subjects: Path) -> list[str]:
    paths = ["--coco", str(drawn.source), "--images", str(drawn.folder), "--max-samples", "3"]
    return ["eval", *map(str, subjects), *paths]


def test_twelve_rows_for_boxes_and_masks(
    model: Path,
    bundle: Path,
    drawn: CocoSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Float, simulated and the device in one table; predictions of each in COCO's result format."""
    device = FakeDevice()
    providers = (PROVIDER, "CPUExecutionProvider")
    monkeypatch.setattr(executor, "available_providers", lambda: providers)
    monkeypatch.setattr(executor, "open_session", device.open)
    folder = tmp_path / "predictions"
    base = arguments(drawn, model, bundle)
    assert main([*base, "--predictions", str(folder), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert list(results) == ["detector.onnx", "out (simulated)", "out on npu:stx"]
    for result in results.values():
        assert result["images"] == 3
        assert set(result["box"]) == set(result["mask"]) == set(ROWS)
    assert results["out (simulated)"] == results["out on npu:stx"]
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["detector.json", "out__simulated_.json", "out_on_npu_stx.json"]
    entries = json.loads((folder / "detector.json").read_text())
    assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(entries[0])
    assert device.opened
    assert main(base) == 0
    table = capsys.readouterr().out
    assert table.count("box ") == table.count("mask ") == len(ROWS)
    assert "loss of" in table


def test_the_simulation_is_called_so(
    bundle: Path, drawn: CocoSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the device there is one column, and its name says what it is."""
    assert main([*arguments(drawn, bundle), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["out (simulated)"]
    assert main([*arguments(drawn, bundle), "--no-cpu-fallback"]) == 3


def test_bad_sets_are_named(
    model: Path, drawn: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing images, classes that the model does not have: exit code 2 and the names."""
    text = drawn.source.read_text()
    gone = tmp_path / "gone.json"
    gone.write_text(text.replace('"000001.png"', '"nowhere.png"'))
    base = ["eval", str(model), "--images", str(drawn.folder), "--max-samples", "2"]
    assert main([*base, "--coco", str(gone)]) == 2
    assert "nowhere.png" in capsys.readouterr().err
    assert main([*base, "--coco", str(gone), "--skip-missing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["detector.onnx"]["skipped"] == ["nowhere.png"]
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps(["background", "cat", "dog"]))
    assert main([*base, "--coco", str(drawn.source), "--classes", str(classes)]) == 2
    assert "the model has no class" in capsys.readouterr().err


def test_a_budget_on_average_precision(
    model: Path, drawn: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``build --budget bbox_loss<=…`` measures the chain of parts and then the bundle."""
    command = ["build", str(model), "-t", "npu:stx", "--precision", "a8w8", "--no-cache"]
    command += ["--calib", str(drawn.folder), "--budget", "bbox_loss<=0.5", "--verify", "none"]
    command += ["--coco", str(drawn.source), "--images", str(drawn.folder)]
    command += ["--eval-samples", "3", "--no-host-code", "-o", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert [p["part"] for p in record["search"]["parts"]]
    assert set(record["search"]["reference"]) >= {"bbox_map", "segm_map"}
    assert record["search"]["chosen"]["promoted"] == 0
    assert record["manifest"]["results"]["budget held"] == "yes"
    assert "budget bbox_map" in record["manifest"]["results"]
    command[command.index("bbox_loss<=0.5")] = "mask_ap>=0.5"
    command[-2] = str(tmp_path / "other")
    assert main(command) == 2
