"""A budget on average precision that a quantized detector misses until nodes are promoted."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from adcompile.cli import main
from adcompile.detection.coco import CocoSet
from adcompile.place.schema import read_plan
from adcompile.steps.search_record import SearchRecord
from tests.detection.detector import detector_with_masks

SAMPLES = 4


def annotated_by(model: Path, drawn: CocoSet, folder: Path) -> Path:
    """COCO annotations that are what the float *model* finds: its own precision is 1 by them, and
    whatever quantization changes is a loss."""
    command = ["eval", str(model), "--coco", str(drawn.source), "--images", str(drawn.folder)]
    command += ["--max-samples", str(SAMPLES), "--predictions", str(folder)]
    assert main(command) == 0
    found = json.loads((folder / f"{model.stem}.json").read_text())
    content = json.loads(drawn.source.read_text())
    content["annotations"] = [
        {**one, "id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate(found, 1)
    ]
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def test_a_loss_of_masks_promotes_nodes(
    drawn: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes are promoted until the bound on mask precision holds, and the finished bundle, which runs
    one head as a mosaic and one row by row, measures exactly what the search did."""
    model = tmp_path / "detector.onnx"
    onnx.save(detector_with_masks(threshold=0.2), model)
    annotations = annotated_by(model, drawn, tmp_path / "found")
    capsys.readouterr()
    command = ["build", str(model), "-t", "npu:stx", "--precision", "xint8", "--no-cache"]
    command += ["--calib", str(drawn.folder), "--budget", "segm_loss<=0.15", "--verify", "none"]
    command += ["--coco", str(annotations), "--images", str(drawn.folder)]
    command += ["--eval-samples", str(SAMPLES), "--no-host-code", "-o", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    record = SearchRecord.model_validate(built["search"])
    assert record.reference["segm_map"] > 0.99
    assert record.steps[0].promoted == 0
    assert record.steps[0].metrics["segm_loss"] > 0.15
    assert record.chosen is not None
    assert record.chosen.floats
    assert record.chosen in record.pareto
    plan = read_plan(tmp_path / "out" / "plan.yaml")
    assert {part.options.get("roi_policy") for part in plan.parts} >= {"mosaic", "loop"}
    kept = "\n".join(part.options.get("float_nodes", "") for part in plan.parts).split("\n")
    assert {name for name in kept if name} == set(record.chosen.floats)
    results = built["manifest"]["results"]
    assert results["budget held"] == "yes"
    for name, value in record.chosen.metrics.items():
        assert results[f"budget {name}"] == pytest.approx(value, abs=1e-5)
