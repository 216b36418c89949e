"""Our PatchCore and PaDiM against the installed anomalib: same weights, same images, same scores."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from examples import torchvision_cpu  # noqa: E402

torchvision_cpu.install()
with warnings.catch_warnings():
    # anomalib and its dependencies announce deprecations of their own at import
    warnings.simplefilter("ignore")
    pytest.importorskip("anomalib")
    import timm
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

from adcompile.anomaly.config import make_config  # noqa: E402
from adcompile.anomaly.detector import open_detector  # noqa: E402
from adcompile.anomaly.fitting import fit  # noqa: E402
from adcompile.anomaly.images import batches  # noqa: E402
from adcompile.anomaly.model_folder import Fitted  # noqa: E402
from adcompile.anomaly.samples import DataSet  # noqa: E402
from adcompile.contract import Preprocess  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

LAYERS = ["layer1", "layer2", "layer3"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of timm's ResNet-18 with random weights, as ``--weights FILE`` reads it."""
    torch.manual_seed(7)
    network = timm.create_model("resnet18")
    # running statistics that are not the identity, so that a lost BatchNorm would show
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def load_into(model: Any, weights: Path) -> None:
    """Put the weights into anomalib's feature extractor."""
    state = torch.load(weights, weights_only=True)
    extractor = model.feature_extractor.feature_extractor
    # anomalib's extractor ends at the last wanted layer
    extractor.load_state_dict({k: v for k, v in state.items() if k in extractor.state_dict()})


def ours(method: str, data: DataSet, weights: Path, **values: object) -> Fitted:
    config = {"preset": "anomalib", "image_size": 64, "backbone": "resnet18"}
    config |= {"weights": str(weights), **values}  # type: ignore[dict-item]
    return fit(make_config(method, config), data)


def images(data: DataSet, spec: Preprocess, *, train: bool = False) -> np.ndarray[Any, Any]:
    return np.concatenate(list(batches(data.train if train else data.test, spec)))


def assert_same(fitted: Fitted, theirs: Any, batch: np.ndarray[Any, Any]) -> None:
    """Scores to 1e-4 relative and maps to 1e-3 of their range, image by image."""
    scores, maps = open_detector(fitted.model)(batch)
    with torch.no_grad():
        found = theirs.eval()(torch.from_numpy(batch))
    assert np.ptp(scores) > 0.01 * scores.max()
    assert np.allclose(scores, found.pred_score.numpy().reshape(-1), rtol=1e-4)
    expected = found.anomaly_map.numpy()[:, 0]
    assert np.abs(maps - expected).max() < 1e-3 * np.ptp(expected)


@pytest.mark.parametrize("neighbours", [1, 9])
def test_patchcore_scores_equal(neighbours: int, twill: DataSet, weights: Path) -> None:
    """The embedding of the training images, then scores and maps from the same bank."""
    layers = LAYERS[1:]
    fitted = ours(
        "patchcore", twill, weights, layers=layers, coreset_ratio=0.5, k=neighbours, whiten=0.0
    )
    theirs = PatchcoreModel(layers, "resnet18", pre_trained=False, num_neighbors=neighbours)
    load_into(theirs, weights)
    spec = fitted.contract.inputs["input"]
    assert fitted.bank is not None
    theirs.train()
    theirs.feature_extractor.eval()
    rows = theirs(torch.from_numpy(images(twill, spec, train=True))).numpy()
    # every row of our bank is one of their embeddings
    near = ((fitted.bank[:50, None] - rows[None]) ** 2).sum(-1).min(1)
    assert near.max() < 1e-6 * (rows**2).sum(-1).mean()
    theirs.memory_bank = torch.from_numpy(fitted.bank)
    assert_same(fitted, theirs, images(twill, spec))


def test_padim_statistics_and_scores_equal(twill: DataSet, weights: Path) -> None:
    """Mean and inverse covariance that anomalib fits itself, and the scores made with them."""
    fitted = ours("padim", twill, weights, layers=LAYERS, features=40, pooled_images=0)
    theirs = PadimModel("resnet18", LAYERS, pre_trained=False, n_features=40)
    load_into(theirs, weights)
    theirs.idx = torch.from_numpy(np.asarray(fitted.statistics["index"]))
    spec = fitted.contract.inputs["input"]
    theirs.train()
    theirs.feature_extractor.eval()
    theirs(torch.from_numpy(images(twill, spec, train=True)))
    theirs.fit()
    assert np.allclose(fitted.statistics["mu"], theirs.gaussian.mean.numpy(), atol=1e-5)
    inverse = theirs.gaussian.inv_covariance.numpy()
    gap = np.abs(np.asarray(fitted.statistics["cov_inv"]) - inverse).max()
    assert gap < 1e-3 * np.abs(inverse).max()
    assert_same(fitted, theirs, images(twill, spec))


def test_anomalib_came_from_the_package_index() -> None:
    """The peer is the installed package, not something beside the tests."""
    assert "site-packages" in str(sys.modules["anomalib"].__file__)
