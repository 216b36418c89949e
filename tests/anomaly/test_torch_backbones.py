"""Networks by name: torchvision's and timm's give what the library itself computes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from examples import torchvision_cpu  # noqa: E402

torchvision_cpu.install()
timm = pytest.importorskip("timm")

from adcompile.anomaly.backbone import FeatureRunner, load_backbone  # noqa: E402
from adcompile.anomaly.config import make_config  # noqa: E402
from adcompile.anomaly.fitting import fit  # noqa: E402
from adcompile.anomaly.samples import DataSet  # noqa: E402
from adcompile.anomaly.torch_backbones import export_backbone  # noqa: E402
from adcompile.errors import ToolMissing, UsageError  # noqa: E402


def test_a_network_that_only_timm_has() -> None:
    """Layers of timm's resnet10t, in the order of depth, for any number of images."""
    network = load_backbone(export_backbone("resnet10t", ["layer1", "layer2"], "random", 64, 3))
    assert network.channels == (64, 128)
    assert network.fixed_batch is None
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    found = FeatureRunner(network)(images)
    torch.manual_seed(3)
    model = timm.create_model("resnet10t").eval()
    with torch.no_grad():
        _, expected = model.forward_intermediates(torch.from_numpy(images))
    for ours, theirs in zip(found, expected[1:3], strict=True):
        assert np.allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-4)


def test_padim_from_a_named_network(twill: DataSet) -> None:
    """The seed decides the random weights and the channels: twice the same model."""
    values = {"backbone": "resnet10t", "layers": ["layer1"], "weights": "random", "features": 9}
    config = make_config("padim", {**values, "image_size": 64})
    first, second = fit(config, twill), fit(config, twill)
    assert np.array_equal(first.statistics["index"], second.statistics["index"])
    assert np.array_equal(first.statistics["cov_inv"], second.statistics["cov_inv"])


def test_unknown_names_and_weights() -> None:
    """A network nobody has, a layer it lacks, and weights that cannot be downloaded."""
    with pytest.raises(UsageError, match="neither torchvision nor timm"):
        export_backbone("resnet999", ["layer1"], "random", 64, 0)
    with pytest.raises(UsageError, match="no layer 'layer9'"):
        export_backbone("resnet10t", ["layer9"], "random", 64, 0)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection ``imagenet`` says so and names the other ways."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ToolMissing, match="cannot be had") as caught:
        export_backbone("resnet10t", ["layer1"], "imagenet", 64, 0)
    assert "--weights FILE" in caught.value.fix
