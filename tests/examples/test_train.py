"""The training example learns, saves, continues and measures with the package's own evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import train_maskrcnn as script

from adcompile.detection.coco import read_coco
from adcompile.detection.shapes import Recipe, draw_scene, write_set


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 8 training and 4 validation images."""
    folder = tmp_path_factory.mktemp("train")
    recipe = Recipe(sides=(64, 80), objects=(1, 2), radius=(10, 20))
    write_set(folder / "shapes_coco", "train", 8, 1, recipe)
    write_set(folder / "shapes_coco", "val", 4, 2, recipe)
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same detector at 64 pixels and 16 channels."""
    torch.set_num_threads(1)
    build = script.build
    monkeypatch.setattr(script, "build", lambda: build(7, 64, 16))
    monkeypatch.setattr(script, "SIZE", 64)
    monkeypatch.setattr(script, "BATCH", 4)


def _samples(folder: Path) -> list[script.Sample]:
    root = folder / "shapes_coco"
    return script.load(read_coco(root / "annotations" / "train.json", root / "train"), 64)


def test_targets_follow_the_picture(small: Path) -> None:
    """Rule: after any flip or turn, boxes still frame their masks (to the pixel)."""
    rng = np.random.default_rng(0)
    for sample in _samples(small):
        for _ in range(4):
            picture, target = script.vary(sample, rng)
            assert picture.shape == (3, 64, 64)
            assert 0 <= picture.min() <= picture.max() <= 1
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                ys, xs = torch.nonzero(mask, as_tuple=True)
                frame = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                assert np.abs(box.numpy() - np.array(frame)).max() <= 2


def test_training_lowers_the_loss_and_continues(small: Path, tiny: None) -> None:
    """Rule: the loss falls; a checkpoint restores weights, optimiser, schedule and curve."""
    samples = _samples(small)
    run = script.Run(steps=12, rate=2e-3, seed=0)
    run.model.train()
    source = script.batches(samples, np.random.default_rng(0))
    losses = [run.advance(next(source)) for _ in range(10)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    run.curve.append({"step": 10, "loss": losses[-1]})
    run.save(small / "checkpoint.pt")
    other = script.Run(steps=12, rate=2e-3, seed=9)
    other.load(small / "checkpoint.pt")
    assert (other.step, other.curve) == (10, run.curve)
    assert other.schedule.get_last_lr() == run.schedule.get_last_lr()
    ours, theirs = run.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_curve_is_written(small: Path, tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Rule: training writes loss and AP to curve.json and a checkpoint."""
    run = script.Run(steps=2, rate=1e-4, seed=0)
    val = small / "shapes_coco" / "annotations" / "val.json"
    script.train(run, _samples(small), val, small, every=2)
    curve = json.loads((small / "curve.json").read_text())
    assert curve[-1]["step"] == 2
    assert 0 <= curve[-1]["mask_ap"] <= 1
    assert (small / "checkpoint.pt").is_file()
    assert "mask AP" in capsys.readouterr().out


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_trains_and_a_cpu_goes_on(small: Path, tiny: None) -> None:
    """Rule: with torchvision's own operators the loss falls on a GPU; its checkpoint is a CPU's."""
    run = script.Run(steps=12, rate=2e-3, seed=0, device=script.choose("cuda"))
    run.model.train()
    source = script.batches(_samples(small), np.random.default_rng(0))
    losses = [run.advance(next(source)) for _ in range(10)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    val = small / "shapes_coco" / "annotations" / "val.json"
    assert 0 <= script.measure(run.model, val, small / "shapes_coco" / "val", 4).box[0] <= 1
    run.save(small / "gpu.pt")
    saved = torch.load(small / "gpu.pt", weights_only=True)
    moments = saved["optimizer"]["state"][0]["exp_avg"]
    assert moments.device.type == saved["model"]["backbone.body.conv1.weight"].device.type == "cpu"
    other = script.Run(steps=12, rate=2e-3, seed=9)
    other.load(small / "gpu.pt")
    other.model.train()
    assert np.isfinite(other.advance(next(source)))


def test_the_operators_decide_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: torchvision's own operators run where torch does; those computed here on the CPU only."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(script.torchvision_cpu, "install", lambda: False)
    assert script.choose("auto").type == "cuda"
    monkeypatch.setattr(script.torchvision_cpu, "install", lambda: True)
    assert script.choose("auto").type == script.choose("cpu").type == "cpu"
    with pytest.raises(SystemExit, match="compiled operators do not load"):
        script.choose("cuda")


def test_only_drawn_masks_are_trained_on(small: Path) -> None:
    """Rule: a set with polygons is refused with a sentence."""
    root = small / "shapes_coco"
    coco = read_coco(root / "annotations" / "train.json", root / "train")
    polygon = coco.annotations[0].model_copy(update={"segmentation": [[1.0] * 6]})
    with pytest.raises(SystemExit, match="drawn set"):
        script.visible(polygon)
    scene = draw_scene(1, 0, Recipe(sides=(64, 80), objects=(1, 2), radius=(10, 20)))
    assert (script.visible(coco.annotations[0]) == scene.masks[0]).all()
