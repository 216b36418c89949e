"""Training on a device: what may be asked for, what is saved, and the same bytes every time.

Tests marked ``cuda`` train on a real GPU: ``python -m pytest tests -m cuda -s``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn import functional

from adcompile import torch_device
from adcompile.anomaly import backbone, efficientad, vae
from adcompile.anomaly.backbone import FeatureRunner, load_backbone
from adcompile.anomaly.config import FitConfig, make_config
from adcompile.anomaly.efficientad_networks import Networks, enlarge, enlarge_by_products
from adcompile.anomaly.fitting import fit
from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.model_folder import Fitted, load_fitted, save_fitted
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.synth.dataset import SynthOptions, write_dataset
from adcompile.cli import main
from adcompile.errors import InputError, UsageError
from adcompile.torch_device import CUBLAS, choose_device, reproducible
from tests.anomaly.conftest import tiny_backbone

GPU = torch.device("cuda", 0)
TINY: dict[str, object] = {"image_size": 64, "batch": 5, "epochs": 1, "latent": 8}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_names_of_devices() -> None:
    """auto, cpu, cuda, cuda:N; other systems' words are answered."""
    for name in ("auto", "cpu", "cuda", "cuda:3"):
        assert make_config("efficientad", {"device": name}).device == name
    with pytest.raises(UsageError) as caught:
        make_config("vae", {"device": "gpu"})
    assert "auto, cpu, cuda, cuda:N" in caught.value.why
    with pytest.raises(UsageError, match="accelerator is called device here"):
        make_config("vae", {"accelerator": "gpu"})


def test_a_missing_gpu_is_named(no_gpu: None) -> None:
    """auto means the CPU; cuda is an error that says what to do."""
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(InputError) as caught:
        choose_device("cuda")
    assert "--device cpu" in caught.value.fix
    assert caught.value.why
    with pytest.raises(InputError, match="no device is called 'gpu'"):
        choose_device("gpu")


def test_the_number_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto takes a GPU that is there; a number beyond the last is refused."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == GPU
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError) as caught:
        choose_device("cuda:2")
    assert caught.value.why == "torch sees 2"


def test_an_old_driver_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch only warns of is told when a GPU was asked for."""

    def unavailable() -> bool:
        import warnings

        warnings.warn("the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(InputError) as caught:
        choose_device("cuda")
    assert caught.value.why == "the driver is too old"


def test_settings_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic kernels and full float32 inside, the user's settings outside, also after an
    error; the user's cuBLAS setting stays."""

    def settings() -> tuple[bool, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        )

    monkeypatch.setenv(CUBLAS, ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with reproducible(GPU):
            assert settings() == (True, False, False, False, False, True)
            assert os.environ[CUBLAS] == ":16:8"
        assert settings() == before == (True, True, True, True, True, False)
        with pytest.raises(ZeroDivisionError), reproducible(GPU):
            raise ZeroDivisionError
        assert settings() == before
        with reproducible(torch.device("cpu")):
            assert settings() == before
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = False


def test_errors_of_a_gpu_are_explained() -> None:
    """Memory, cuBLAS and the driver: a next step; other errors stay as they are."""
    for error, fix in (
        (torch.cuda.OutOfMemoryError("tried to allocate 9 GiB"), "a smaller --batch"),
        (RuntimeError(f"you must set {CUBLAS}"), f"{CUBLAS}=:4096:8"),
        (RuntimeError("CUDA error: no kernel image is available"), "a torch build for this GPU"),
    ):
        with pytest.raises(InputError) as caught, reproducible(GPU):
            raise error
        assert caught.value.fix.startswith(fix)
        assert caught.value.why == str(error)
    with pytest.raises(RuntimeError, match="shapes differ"), reproducible(GPU):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(("before", "after"), [(1, 3), (5, 5), (8, 3), (7, 16)])
def test_enlarging_by_products(before: int, after: int) -> None:
    """The GPU's bilinear enlargement is torch's, and so is its gradient."""
    torch.manual_seed(0)
    start = torch.randn(2, 3, before, before)
    weights = torch.randn(2, 3, after, after)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for kind in (enlarge, enlarge_by_products):
        x = start.clone().requires_grad_()
        y = kind(x, after)
        (y * weights).sum().backward()
        assert x.grad is not None
        found.append((y.detach(), x.grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    reference = functional.interpolate(start, size=after, mode="bilinear")
    assert torch.equal(found[0][0], reference)


def test_a_step_stays_on_its_device() -> None:
    """Every tensor of a training step is where the network is: torch's fake tensors refuse a mix
    of devices, and need no GPU ("meta" stands for one)."""
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        images = torch.zeros(2, 3, 64, 64, device="meta")
        with torch.device("meta"):
            networks, network = Networks("medium", 64, 8, 0.05), vae.Vae(64, 8)
        efficientad.step_loss(networks, images, images, (1, 0.9)).backward()
        assert networks.ae.encoder.enconv1.weight.grad is not None
        vae.step_loss(network, images, torch.zeros(2, 8, device="meta"), 0.1).backward()
        with pytest.raises(RuntimeError, match="device"):
            vae.step_loss(network, images, torch.zeros(2, 8), 0.1)


def test_what_was_asked_is_saved_and_shown(twill: DataSet, tmp_path: Path, no_gpu: None) -> None:
    """config.yaml has the wish, not the device found; progress and notes have the device."""
    told: set[str] = set()
    made = fit(make_config("vae", TINY), twill, watch=lambda what, done, total: told.add(what))
    save_fitted(made, tmp_path / "m")
    assert "device: auto\n" in (tmp_path / "m" / "config.yaml").read_text()
    assert load_fitted(tmp_path / "m").config.device == "auto"
    assert "epochs (cpu)" in told
    assert made.notes[-1].startswith("trained on cpu in ")
    assert made.device == "cpu"


def test_the_command_line_refuses_a_missing_gpu(
    twill_folder: Path, tmp_path: Path, no_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    words = ["fit", "vae", "--data", str(twill_folder), "-o", str(tmp_path / "m")]
    assert main([*words, "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class _FakeSession:
    """Records how it was opened."""

    def __init__(self, *wanted: object, providers: tuple[str, ...], **options: object) -> None:
        self.options, self.providers = options, providers


def test_features_on_a_gpu(monkeypatch: pytest.MonkeyPatch, twill: DataSet) -> None:
    """PatchCore and PaDiM: ONNX Runtime's CUDA provider, or an error that names the package."""
    network = load_backbone(tiny_backbone())
    monkeypatch.setattr(backbone, "available_providers", lambda: ("CPUExecutionProvider",))
    for method in ("patchcore", "padim"):
        with pytest.raises(InputError) as caught:
            fit(make_config(method, {"device": "cuda"}), twill, backbone=network)
        assert "onnxruntime-gpu" in caught.value.fix
    opened: list[_FakeSession] = []

    def open_session(*wanted: object, **options: object) -> _FakeSession:
        opened.append(_FakeSession(*wanted, providers=present, **options))
        return opened[-1]

    monkeypatch.setattr(backbone, "available_providers", lambda: (backbone.CUDA_PROVIDER,))
    monkeypatch.setattr(backbone, "open_session", open_session)
    present: tuple[str, ...] = (backbone.CUDA_PROVIDER, "CPUExecutionProvider")
    FeatureRunner(network, device="cuda:1")
    chosen = opened[-1].options["provider_options"]
    assert isinstance(chosen, list)
    assert chosen[0]["device_id"] == "1"
    present = ("CPUExecutionProvider",)  # the provider is listed but its libraries do not load
    with pytest.raises(InputError) as caught:
        FeatureRunner(network, device="cuda")
    assert "cannot be loaded" in caught.value.why
    FeatureRunner(network, device="auto")
    assert "provider_options" not in opened[-1].options


# On a real GPU ------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, object]] = {
    "efficientad": {"image_size": 96, "channels": 16, "epochs": 6, "distill": 40},
    "vae": {"image_size": 96, "latent": 32, "epochs": 20},
}


@pytest.fixture(scope="module")
def capsules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category whose defects both methods find after a short training."""
    folder = tmp_path_factory.mktemp("capsules")
    made = SynthOptions(("twill",), level="easy", size=96, train=24, test_good=24, test_bad=6)
    write_dataset(folder, made)
    return folder / "twill"


def _timed(config: FitConfig, data: DataSet) -> tuple[Fitted, float]:
    start = time.perf_counter()
    made = fit(config, data)
    return made, time.perf_counter() - start


def _auroc(made: Fitted) -> float:
    value = made.metrics["test"]["image"]["auroc"]
    assert value is not None
    return float(value)


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("method", list(SETTINGS))
def test_a_gpu_trains(
    method: str, capsules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same bytes; as good as the CPU's model (image AUROC within 0.05); all of it
    readable, and trained further, where there is no GPU."""
    data = read_folder(capsules)
    fit(make_config(method, SETTINGS[method] | {"epochs": 1, "device": "cuda"}), data)  # warm
    config = make_config(method, SETTINGS[method] | {"device": "auto"})
    first, seconds = _timed(config, data)
    assert first.notes[-1].startswith("trained on cuda:0 (")
    assert first.device.startswith("cuda:0 (")
    for name, made in (("a", first), ("b", fit(config, data))):
        save_fitted(made, tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert not torch.are_deterministic_algorithms_enabled()
    cpu, cpu_seconds = _timed(make_config(method, SETTINGS[method] | {"device": "cpu"}), data)
    print(f"\n{method}: {seconds:.1f} s on {first.notes[-1][11:]}, {cpu_seconds:.1f} s on the CPU")
    print(f"{method}: image AUROC {_auroc(first):.4f} on the GPU, {_auroc(cpu):.4f} on the CPU")
    assert abs(_auroc(first) - _auroc(cpu)) <= 0.05
    assert not np.array_equal(_first(first), _first(cpu)), "the GPU was not used"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["retrain", str(tmp_path / "a"), "--data", str(capsules), "--epochs", "1"]) == 0
    again = load_fitted(tmp_path / "a")
    assert again.config.device == "auto"
    assert again.weights.keys() == first.weights.keys()
    assert all(np.isfinite(array).all() for array in again.weights.values())


def _first(made: Fitted) -> np.ndarray:
    return np.asarray(next(iter(made.weights.values())))


@pytest.mark.cuda
@needs_gpu
def test_the_paper_s_size_repeats_on_a_gpu() -> None:
    """Medium networks of 384 channels at 256 pixels, batch 1: twelve steps twice give the same bits.
    Prints what a step takes, and what it would take with TF32."""
    device = choose_device("cuda")
    states: list[torch.Tensor] = []
    with reproducible(device):
        for tf32 in (False, False, True):
            torch.backends.cudnn.allow_tf32 = tf32
            torch.manual_seed(0)
            networks = Networks("medium", 256, 384, 1.0).to(device)
            images = torch.rand(1, 3, 256, 256).to(device)
            optimiser = torch.optim.Adam(networks.student.parameters())
            start = 0.0
            for step in range(12):
                if step == 2:
                    start = time.perf_counter()
                loss = efficientad.step_loss(networks, images, images, (2, 1.1))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            states.append(networks.student.conv1.weight.detach().cpu())
            passed = (time.perf_counter() - start) / 10
            print(f"\nmedium, 384 channels, 256 pixels, TF32 {tf32}: {passed:.4f} s per step")
    assert torch.isfinite(states[0]).all()
    assert torch.equal(states[0], states[1])
    assert torch_device.describe(device).startswith("cuda:0 (")
