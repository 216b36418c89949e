"""compile() and load() as a Python program uses them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from PIL import Image

import adcompile
from adcompile.errors import PassError, UsageError
from adcompile.job import BuildOptions, Job
from adcompile.steps.load import load
from tests.compile.models import cnn


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_options_by_name_and_paths_as_text(tmp_path: Path) -> None:
    """No BuildOptions is needed; a picture may come from Pillow; what is printed is one line."""
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    output = str(tmp_path / "out")
    result = adcompile.compile(
        cnn(), "npu:stx", output, precision="a8w8", calib=str(tmp_path), golden=str(photo)
    )
    assert result.ok
    assert result.manifest.golden[0].source == "golden/0/image.png"
    assert result.manifest.parts[0].precision == "a8w8"
    with adcompile.load(output) as bundle, Image.open(photo) as picture:
        opened, read = bundle(picture), bundle(photo)
        for name, value in read.items():
            np.testing.assert_array_equal(opened[name], value)
        shown = repr(bundle)
    assert len(repr(result)) < 300
    assert ": ok; " in repr(result)
    assert "npu:stx" in shown
    assert "float32" in shown


def test_mistakes_are_named() -> None:
    """A wrong option name, and something that is no model."""
    with pytest.raises(UsageError) as option:
        adcompile.compile(cnn(), "npu", presicion="a8w8")
    assert option.value.fix == "did you mean precision?"
    with pytest.raises(UsageError, match="cannot compile a dict") as model:
        adcompile.compile(cast("onnx.ModelProto", {}), "npu")
    assert "torch.onnx.export" in model.value.fix


def test_steps_out_of_order_are_a_defect(tmp_path: Path) -> None:
    """What a step makes cannot be read before; the error names it."""
    job = Job.create("cpu", None, BuildOptions(cache=False), None, tmp_path)
    with pytest.raises(PassError, match="no step has made the job's plan yet"):
        _ = job.plan
    load(job, cnn())
    assert job.source.opset == cnn().opset_import[0].version
    assert job.ir is not job.reference
