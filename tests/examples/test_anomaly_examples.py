"""Pretraining gives weights that fit; the anomaly journey runs the documented commands in order."""

from __future__ import annotations

import sys
from pathlib import Path

import anomaly
import numpy as np
import pretrain
import pytest
import torch

from adcompile.anomaly.synth.recipes import paint, recipe
from adcompile.anomaly.torch_backbones import export_backbone
from adcompile.errors import FormatError


def run(module: object, *words: str) -> object:
    """The module's main with a command line."""
    old, sys.argv = sys.argv, ["example", *words]
    try:
        return module.main()  # type: ignore[attr-defined]
    finally:
        sys.argv = old


GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    ],
)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_pretrained_weights_load_and_repeat(device: str, tmp_path: Path) -> None:
    """Two steps twice: the same tensors, without a classifier, and ``--weights FILE`` takes them."""
    states = []
    for name in ("a.pth", "b.pth"):
        path = tmp_path / name
        words = ["-o", str(path), "--steps", "2", "--batch", "4", "--size", "32"]
        run(pretrain, *words, "--classes", "5", "--threads", "1", "--device", device)
        states.append(torch.load(path, weights_only=True))
    assert {tensor.device.type for tensor in states[0].values()} == {"cpu"}
    assert states[0].keys() == states[1].keys()
    assert not any(name.startswith("fc.") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    model = export_backbone("resnet18", ["layer2"], str(tmp_path / "a.pth"), 64, 0)
    assert [value.name for value in model.graph.outputs] == ["layer2"]
    states[0].pop("layer1.0.conv1.weight")
    torch.save(states[0], tmp_path / "c.pth")
    with pytest.raises(FormatError, match=r"missing: layer1\.0\.conv1\.weight"):
        export_backbone("resnet18", ["layer2"], str(tmp_path / "c.pth"), 64, 0)


def test_a_missing_gpu_ends_pretraining(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence instead of a traceback."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no such GPU"):
        run(pretrain, "-o", str(tmp_path / "a.pth"), "--device", "cuda")


def test_a_full_gpu_ends_pretraining(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Too little memory in the middle of the training: one sentence as well."""

    def train(options: object, device: torch.device) -> None:
        raise torch.cuda.OutOfMemoryError("tried to allocate 9 GiB")

    monkeypatch.setattr(pretrain, "choose_device", torch.device)
    monkeypatch.setattr(pretrain, "describe", str)
    monkeypatch.setattr(pretrain, "train", train)
    with pytest.raises(SystemExit, match="too little memory"):
        run(pretrain, "-o", str(tmp_path / "a.pth"), "--device", "cuda")
    assert not list(tmp_path.iterdir())


def test_recipes_are_different_textures() -> None:
    """Pictures of one class share colours and wavelength; classes differ; values stay sane."""
    random = np.random.default_rng(0)
    kinds = [recipe(random) for _ in range(6)]
    images, labels = pretrain.batch(kinds, 12, 32, random)
    assert images.shape == (12, 3, 32, 32)
    assert torch.isfinite(images).all()
    assert set(labels.tolist()) <= set(range(6))
    means = np.array([paint(kind, 64, random).mean(axis=(0, 1)) for kind in kinds])
    assert np.ptp(means, axis=0).min() > 0.05


def test_the_journey(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """synth, then per method fit, build and verify per target, eval; failures give exit code 1."""
    lines: list[list[str]] = []

    def fake(words: list[str]) -> int:
        lines.append(words)
        return int(words[0] == "verify" and "padim-trt" in words[1])

    monkeypatch.setattr(anomaly, "adcompile", fake)
    assert run(anomaly, "--out", str(tmp_path), "--methods", "vae") == 0
    verbs = [line[0] for line in lines]
    assert verbs == ["synth", "fit", "build", "verify", "build", "verify", "eval"]
    assert run(anomaly, "--out", str(tmp_path), "--methods", "padim") == 1
    assert [Path(word).name for word in lines[-1][1:3]] == ["padim", "padim-drpai-v2h"]
