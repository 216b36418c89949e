"""Real anomalib checkpoints, made with its own classes, are read; ours load in it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from adcompile.anomaly.formats.convert import detect, read_trained, write_trained
from adcompile.anomaly.formats.record import Trained
from examples.torchvision_cpu import install

torch = pytest.importorskip("torch")
install()
lightning = pytest.importorskip("lightning")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    models = pytest.importorskip("anomalib.models")

RANDOM = np.random.default_rng(0)
BANK = RANDOM.standard_normal((20, 384)).astype(np.float32)
MEAN = RANDOM.standard_normal((8, 16)).astype(np.float32)
HALF = RANDOM.standard_normal((16, 8, 8)).astype(np.float32)
INVERSE = HALF @ HALF.transpose(0, 2, 1)

pytestmark = pytest.mark.filterwarnings("ignore")


def make(method: str) -> object:
    """A model of anomalib with random networks and known statistics."""
    torch.manual_seed(0)
    if method == "efficientad":
        return models.EfficientAd(imagenet_dir="none", model_size="small")
    if method == "patchcore":
        layers = ["layer2", "layer3"]
        made = models.Patchcore(
            backbone="resnet18", layers=layers, pre_trained=False, num_neighbors=5
        )
        made.model.memory_bank = torch.from_numpy(BANK.copy())
    else:
        made = models.Padim(
            backbone="resnet18", layers=["layer1"], pre_trained=False, n_features=8
        )
        made.model.gaussian.mean = torch.from_numpy(MEAN.copy())
        made.model.gaussian.inv_covariance = torch.from_numpy(INVERSE.copy())
    made.post_processor._image_threshold.fill_(4.5)
    made.post_processor.image_min.fill_(0.5)
    made.post_processor.image_max.fill_(9.5)
    return made


def save(model: object, path: Path) -> None:
    """A checkpoint as Lightning's trainer writes it."""
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)


def check_content(trained: Trained, method: str) -> None:
    """What :func:`make` put in."""
    assert trained.method == method
    if method == "patchcore":
        assert trained.bank is not None
        assert np.array_equal(trained.bank, BANK)
        assert (trained.backbone, trained.layers) == ("resnet18", ("layer2", "layer3"))
        assert trained.neighbours == 5
    if method == "padim":
        assert trained.mean is not None
        assert trained.inverse is not None
        assert np.array_equal(trained.mean, MEAN)
        assert np.array_equal(trained.inverse, INVERSE)
        assert trained.index is not None
        assert sorted(set(trained.index.tolist())) == sorted(trained.index.tolist())
    if method != "efficientad":
        assert (trained.threshold, trained.minimum, trained.maximum) == (4.5, 0.5, 9.5)
    else:
        assert trained.model_size == "small"


@pytest.mark.parametrize("method", ["patchcore", "padim", "efficientad"])
def test_checkpoints_both_ways(method: str, tmp_path: Path) -> None:
    """Lightning's file gives the record; the file written from it loads in anomalib, equal."""
    model = make(method)
    save(model, tmp_path / "a.ckpt")
    assert detect(tmp_path / "a.ckpt") == "anomalib"
    trained = read_trained(tmp_path / "a.ckpt")
    check_content(trained, method)
    write_trained(tmp_path / "b.ckpt", trained)
    loaded = type(model).load_from_checkpoint(tmp_path / "b.ckpt", map_location="cpu")  # type: ignore[attr-defined]
    old = model.model.state_dict()  # type: ignore[attr-defined]
    new = loaded.model.state_dict()
    assert list(old) == list(new)
    for name, tensor in old.items():
        assert torch.equal(tensor, new[name]), name
    if method != "efficientad":
        assert float(loaded.post_processor.image_threshold) == 4.5


@pytest.mark.parametrize("method", ["patchcore", "padim"])
def test_exported_network_is_read(method: str, tmp_path: Path) -> None:
    """anomalib's torch export pickles the whole network: read as its state dict, nothing run."""
    torch.save({"model": make(method)}, tmp_path / "a.pt")
    trained = read_trained(tmp_path / "a.pt")
    assert trained.method == method
    assert (trained.threshold, trained.maximum) == (4.5, 9.5)
    if method == "patchcore":
        assert trained.bank is not None
        assert np.array_equal(trained.bank, BANK)


def test_state_dict_of_r1(tmp_path: Path) -> None:
    """R1's model.pth is the module's state dict; from it and back it stays the same."""
    model = make("padim")
    torch.save(model.state_dict(), tmp_path / "model.pth")  # type: ignore[attr-defined]
    assert detect(tmp_path / "model.pth") == "r1-pth"
    write_trained(tmp_path / "again.pth", read_trained(tmp_path / "model.pth"), "r1-pth")
    left = torch.load(tmp_path / "model.pth", weights_only=True)
    right = torch.load(tmp_path / "again.pth", weights_only=True)
    assert {k for k in left if k.startswith("model.")} == {
        k for k in right if k.startswith("model.")
    }
    assert all(torch.equal(left[k], right[k]) for k in right if k.startswith("model."))
