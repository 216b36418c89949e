"""The stand-in operators compute what torchvision's do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision_cpu
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.examples.conftest import EXAMPLES


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    torchvision_cpu.install()


def _boxes(count: int, side: float, seed: int) -> Tensor:
    corners = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)) * side
    return torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)


def _slow_nms(boxes: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    """The definition, one pair at a time."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            low, high = (
                np.maximum(boxes[i, :2], boxes[j, :2]),
                np.minimum(boxes[i, 2:], boxes[j, 2:]),
            )
            both = np.prod(np.maximum(high - low, 0))
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            if both > limit * (sum(areas) - both):
                break
        else:
            kept.append(int(i))
    return kept


@given(st.integers(0, 40), st.floats(0.1, 0.9), st.integers(0, 99))
def test_nms_follows_its_definition(count: int, limit: float, seed: int) -> None:
    """Rule: kept indices by falling score, none overlapping a better one too much."""
    boxes = _boxes(count, 40, seed)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1))
    kept = torchvision_cpu.nms(boxes, scores, limit)
    assert kept.dtype == torch.int64
    assert kept.tolist() == _slow_nms(boxes.double().numpy(), scores.numpy(), limit)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [2, -1])
def test_roi_align_matches_torchvisions_python_version(ratio: int, aligned: bool) -> None:
    """Rule: values and gradients of torchvision's own reference, for boxes inside the map."""
    reference = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__
    image = torch.randn(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    rows = torch.cat([torch.arange(12)[:, None] % 2, _boxes(12, 9, 1)], dim=1)
    results = [
        function(image, rows, 0.8, 7, 5, ratio, aligned)
        for function in (torchvision_cpu.roi_align, reference)
    ]
    assert results[0].shape == (12, 3, 7, 5)
    assert torch.allclose(*results, atol=1e-5)
    slopes = [torch.autograd.grad((value**2).sum(), image)[0] for value in results]
    assert torch.allclose(*slopes, atol=1e-4)


def test_roi_align_outside_and_empty() -> None:
    """Rule: samples more than a pixel outside count as zero; no boxes give no rows."""
    image = torch.ones(1, 2, 8, 8)
    rows = torch.tensor([[0.0, 20, 20, 30, 30], [0.0, 0, 0, 4, 4]])
    values = torchvision_cpu.roi_align(image, rows, 1.0, 2, 2, 2, False)
    assert values[0].abs().max() == 0
    assert torch.allclose(values[1], torch.ones(2, 2, 2))
    assert torchvision_cpu.roi_align(image, rows[:0], 1.0, 2, 2, 2, False).shape == (0, 2, 2, 2)


def test_torchvision_uses_the_operators_and_scripts_them() -> None:
    """Rule: torchvision's public functions work after install, also compiled by TorchScript."""
    from torchvision.ops import batched_nms, nms, roi_align

    boxes, scores = _boxes(30, 40, 2), torch.rand(30)
    scripted = torch._C._jit_get_all_schemas()
    assert any(schema.name == "torchvision::nms" for schema in scripted)
    assert (
        nms(boxes, scores, 0.5).tolist() == torch.ops.torchvision.nms(boxes, scores, 0.5).tolist()
    )
    assert len(batched_nms(boxes, scores, torch.arange(30), 0.1)) == 30
    assert roi_align(torch.ones(1, 1, 50, 50), [boxes], 3).shape == (30, 1, 3, 3)


def test_install_is_needed_once_and_import_then_works() -> None:
    """Rule: in a fresh interpreter install makes torchvision importable, and may be repeated."""
    code = (
        "import torchvision_cpu as t; first = t.install(); assert t.install() == first; "
        "import torchvision.ops as o, torch; "
        "print(o.nms(torch.tensor([[0., 0, 1, 1]]), torch.ones(1), .5).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0]"


def test_real_operators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: where torchvision's own operators load, install defines nothing and says so."""
    monkeypatch.setattr(torchvision_cpu, "_library", None)
    monkeypatch.setattr(torchvision_cpu, "_real_operators_load", lambda: True)
    monkeypatch.setattr(torchvision_cpu, "_define", lambda: pytest.fail("defined"))
    assert torchvision_cpu.install() is False
