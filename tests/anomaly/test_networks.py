"""EfficientAD and VAE: training runs, the graph equals the networks and formulas, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # tiny networks: threads only cost

from adcompile.anomaly import efficientad, efficientad_teacher, scoring, vae  # noqa: E402
from adcompile.anomaly.config import make_config  # noqa: E402
from adcompile.anomaly.detector import open_detector  # noqa: E402
from adcompile.anomaly.efficientad_networks import Networks  # noqa: E402
from adcompile.anomaly.fitting import fit  # noqa: E402
from adcompile.anomaly.formats.npz import read_npz  # noqa: E402
from adcompile.anomaly.images import batches  # noqa: E402
from adcompile.anomaly.maps import blur_map  # noqa: E402
from adcompile.anomaly.model_folder import load_fitted, save_fitted  # noqa: E402
from adcompile.anomaly.presets import preset  # noqa: E402
from adcompile.anomaly.samples import DataSet  # noqa: E402
from adcompile.anomaly.train_loop import Keeper, from_arrays, load_images, to_arrays  # noqa: E402
from adcompile.anomaly.vae_local import Deviation  # noqa: E402
from adcompile.errors import FormatError, InputError, UsageError  # noqa: E402

TINY = {"image_size": 64, "batch": 5, "epochs": 2, "learning_rate": 1e-3}
SMALL = TINY | {"channels": 8, "width": 0.05, "distill": 3}


@pytest.mark.parametrize(
    ("method", "values"),
    [("vae", TINY | {"preset": "r1", "latent": 8}), ("vae", TINY | {"preset": "local", "latent": 8}),
     ("efficientad", SMALL)],
)  # fmt: skip
def test_fit_is_deterministic_and_saves(
    method: str, values: dict[str, object], twill: DataSet, tmp_path: Path
) -> None:
    """Same seed, same bytes; the folder reads back; scoring twice gives the same numbers."""
    config = make_config(method, values)
    for name in ("a", "b"):
        save_fitted(fit(config, twill), tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    found = load_fitted(tmp_path / "a")
    assert found.weights
    detector = open_detector(found.model)
    images = np.concatenate(list(batches(twill.test[:3], detector.preprocess)))
    first, second = detector(images), detector(images)
    assert (first[0] == second[0]).all()
    assert first[1].shape == (3, 64, 64)
    assert "RandomNormalLike" not in {node.op_type for node in found.model.graph}


def test_vae_graph_equals_formula(twill: DataSet) -> None:
    """Preset r1: the score is the mean squared error of the mean code's reconstruction."""
    chosen = preset("vae", "r1", side=64)
    torch.manual_seed(0)
    network = vae.Vae(64, 8).eval()
    model = vae.build_model(network, chosen.score, chosen.preprocess)
    images = np.concatenate(list(batches(twill.test[:3], chosen.preprocess)))
    with torch.no_grad():
        back = network(torch.from_numpy(images)).numpy()
    expected = scoring.vae_scores(images, back)
    scores, maps = open_detector(model)(images)
    assert np.allclose(scores, expected.scores, rtol=1e-4)
    assert np.allclose(maps, expected.maps, rtol=1e-3, atol=1e-5)


def test_local_deviation_graph_equals_numpy(twill: DataSet) -> None:
    """Preset local: standardised, decorrelated, squared, blurred; unit size on normal images."""
    chosen = preset("vae", "local")
    torch.manual_seed(0)
    network = vae.Vae(64, 8).eval()
    images = np.concatenate(list(batches(twill.train, chosen.preprocess)))
    with torch.no_grad():
        errors = torch.from_numpy(images) - network(torch.from_numpy(images))
        local = Deviation(64, 64)
        local.fit(errors)
        deviation = local(errors).numpy()
    assert 0.3 < float((deviation**2).mean()) < 1.0
    model = vae.build_model(network, chosen.score, chosen.preprocess, local)
    scores, maps = open_detector(model)(images[:3])
    expected = np.sqrt(blur_map((deviation[:3] ** 2).mean(axis=1), chosen.score.blur_sigma))
    assert np.allclose(maps, expected, rtol=1e-3, atol=1e-4)
    assert np.allclose(scores, expected.max(axis=(1, 2)), rtol=1e-4)


def test_efficientad_graph_equals_formula(twill: DataSet) -> None:
    """Two error maps, padded by 4, enlarged, scaled by quantiles once, averaged; score is the max."""
    chosen = preset("efficientad", "anomalib", side=64)
    torch.manual_seed(0)
    networks = Networks("medium", 64, 8, 0.05).eval()
    quantiles = scoring.Quantiles(0.1, 0.5, 0.2, 0.9)
    model = efficientad.build_model(networks, quantiles, chosen.score, chosen.preprocess)
    images = np.concatenate(list(batches(twill.test[:3], chosen.preprocess)))
    assert images.max() <= 1.0
    with torch.no_grad():
        outputs = [tensor.numpy() for tensor in networks(torch.from_numpy(images))]
    expected = scoring.efficientad_scores(outputs[0], outputs[1], outputs[2], quantiles, (64, 64))
    scores, maps = open_detector(model)(images)
    assert np.allclose(scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert np.allclose(maps, expected.maps, rtol=1e-3, atol=1e-4)


def test_going_on_from_saved_weights(twill: DataSet) -> None:
    """retrain starts from the saved tensors: with a vanishing step they hardly move."""
    config = make_config("vae", TINY | {"latent": 8})
    first = fit(config, twill)
    still = make_config("vae", TINY | {"latent": 8, "learning_rate": 1e-12, "epochs": 1})
    again = fit(still, twill, start=first.weights)
    fresh = fit(still, twill)
    name = "encoder.0.weight"
    assert np.allclose(again.weights[name], first.weights[name], atol=1e-6)
    assert not np.allclose(fresh.weights[name], first.weights[name], atol=1e-4)


def test_whitened_teacher_and_silent_student(twill: DataSet) -> None:
    """On normal images no direction of the description varies by more than one, nor does 8-bit
    rounding by more than its share of that; the untrained student says nothing."""
    networks = Networks("small", 64, 8, 0.05).eval()
    images = load_images(twill.train, preset("efficientad", side=64).preprocess)
    efficientad_teacher.whiten(networks.teacher, images, 1e-6)
    efficientad.start_silent(networks.student)
    with torch.no_grad():
        rounded = efficientad_teacher.eight_bits(networks.teacher, images)
        out, off = (t(images).permute(1, 0, 2, 3).flatten(1) for t in (networks.teacher, rounded))
        assert not networks.student(images).any()
    assert torch.linalg.eigvalsh(torch.cov(out))[-1] == pytest.approx(1.0, abs=0.1)
    noise = torch.linalg.eigvalsh(torch.cov(off - out))
    assert 0.0 < noise[-1] < 2.0 / efficientad_teacher.NOISE


def test_weights_that_do_not_fit_are_named() -> None:
    """Missing, unexpected and misshaped tensors are listed."""
    network = vae.Vae(64, 8)
    arrays = dict(to_arrays(network))
    arrays["extra"] = arrays.pop("mean.bias")
    with pytest.raises(FormatError) as caught:
        from_arrays(network, arrays, "w.npz")
    assert "mean.bias" in caught.value.why
    assert "extra" in caught.value.why


def test_keeper_stops_and_restores() -> None:
    """Patience counts epochs without gain; the best state comes back; NaN is an error."""
    network = torch.nn.Linear(1, 1)
    keeper = Keeper(network, patience=2)
    assert not keeper.done(1.0)
    best = network.weight.detach().clone()
    torch.nn.init.constant_(network.weight, 9.0)
    assert not keeper.done(1.0)
    assert keeper.done(2.0)
    keeper.restore()
    assert torch.equal(network.weight, best)
    with pytest.raises(InputError, match="diverged"):
        keeper.done(float("nan"))


def test_impossible_sizes(twill: DataSet) -> None:
    """Sides the networks cannot take, and empty training data, are refused."""
    with pytest.raises(UsageError, match="multiple of 32"):
        fit(make_config("efficientad", SMALL | {"image_size": 72}), twill)
    with pytest.raises(UsageError, match="multiple of 8"):
        fit(make_config("vae", TINY | {"image_size": 60}), twill)
    with pytest.raises(InputError, match="no image to train on"):
        fit(make_config("vae", TINY), replace(twill, train=()))


def test_an_interrupted_fit_leaves_its_best_weights(
    twill_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its second epoch: no model, a whole checkpoint; --resume goes on from it."""
    from adcompile.anomaly import train_loop
    from adcompile.cli import main

    words = ["fit", "vae", "--data", str(twill_folder), "-o", str(tmp_path / "m")]
    words += ["--image-size", "64", "--latent", "8", "--learning-rate", "1e-9"]
    done, epochs = Keeper.done, iter(range(10))

    def stop_after_one(keeper: Keeper, loss: float) -> bool:
        if next(epochs) == 1:
            raise KeyboardInterrupt
        return done(keeper, loss)

    monkeypatch.setattr(train_loop.Keeper, "done", stop_after_one)
    assert main([*words, "--epochs", "3"]) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["m.checkpoint.npz"]
    kept = read_npz(tmp_path / "m.checkpoint.npz")
    monkeypatch.undo()
    assert main([*words, "--epochs", "1", "--resume", "--seed", "5"]) == 0
    found = load_fitted(tmp_path / "m")
    assert np.allclose(found.weights["encoder.0.weight"], kept["encoder.0.weight"], atol=1e-6)
    assert not (tmp_path / "m.checkpoint.npz").exists()
