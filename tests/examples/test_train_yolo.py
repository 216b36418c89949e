"""The example's detector learns, and both forms of its export are recognised and give the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import train_yolo as script

from adcompile.detection.exported import read_exported
from adcompile.detection.recognise import recognise
from adcompile.ir.model_io import load_model
from adcompile.runtime.session import open_session


def test_objects_are_answered_by_cells_inside_them() -> None:
    """The cells whose boxes fit best, each for one object, aiming at their overlap."""
    centre, stride = script.cells()
    boxes = torch.tensor([[16.0, 16.0, 48.0, 48.0], [80.0, 80.0, 96.0, 96.0]])
    corners = torch.cat((centre * stride - 16, centre * stride + 16), 1)
    scores = torch.full((len(centre), 2), 0.5)
    which, cell, aim = script.assign(scores, corners, boxes, torch.tensor([0, 1]))
    at = (centre * stride)[cell]
    assert set(which.tolist()) == {0, 1}
    assert len(set(cell.tolist())) == len(cell)
    assert ((at > boxes[which, :2]) & (at < boxes[which, 2:])).all()
    wanted = script.overlap(corners[cell], boxes[which])
    assert aim[which == 0].max() == pytest.approx(float(wanted[which == 0].max()), rel=1e-5)


def test_training_lowers_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """On two scenes seen again and again."""
    monkeypatch.setattr(script, "vary", lambda sample, rng: sample)
    monkeypatch.setattr(script, "BATCH", 2)
    torch.set_num_threads(1)
    scenes = [script.scene(0), script.scene(1)]
    images = torch.from_numpy(np.stack([s[0] for s in scenes])).permute(0, 3, 1, 2) / 255
    truth = [(torch.from_numpy(b), torch.from_numpy(n)) for _, b, n in scenes]
    losses = []
    for steps in (1, 30):
        network = script.train(steps, scenes, seed=0).train()
        with torch.no_grad():
            losses.append(float(script.loss_of(network(images), truth)))
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.filterwarnings("ignore")
def test_both_exports_are_recognised_and_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = script.Yolo(6).eval()
    feeds = {"images": np.random.default_rng(0).random((1, 3, 160, 160), np.float32)}
    outputs = []
    for head in ("split", "slice"):
        script.export(network, tmp_path / f"{head}.onnx", head)
        model = load_model(tmp_path / f"{head}.onnx")
        exported = read_exported(model.metadata_props)
        found = recognise(model, exported)
        assert found.decoder is not None
        assert found.decoder.preset == "yolov8"
        outputs.append(open_session(tmp_path / f"{head}.onnx").run(feeds)["output0"])
    np.testing.assert_array_equal(outputs[0], outputs[1])
