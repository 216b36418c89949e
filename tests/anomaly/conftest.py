"""A small generated data set and a small backbone, made once per run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.anomaly.layouts import read_folder
from adcompile.anomaly.samples import DataSet
from adcompile.anomaly.synth.dataset import SynthOptions, write_dataset

SIDE = 64


@pytest.fixture(scope="session")
def twill_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MVTec tree with one category of 64-pixel images."""
    folder = tmp_path_factory.mktemp("synth")
    options = SynthOptions(("twill",), level="easy", size=96, train=10, test_good=6, test_bad=2)
    write_dataset(folder, options)
    return folder / "twill"


@pytest.fixture(scope="session")
def twill(twill_folder: Path) -> DataSet:
    """The same, read."""
    return read_folder(twill_folder)


def tiny_backbone(side: int | str = SIDE, batch: int | str = "N", opset: int = 17) -> ir.Model:
    """Two convolutions with stride: outputs ``shallow`` [N, 6, s/4, s/4], ``deep`` [N, 5, s/8, s/8]."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    tiny (float[{batch}, 3, {side}, {side}] image)
    => (float[{batch}, 5, p, q] deep, float[{batch}, 6, r, t] shallow) {{
      a = Conv <kernel_shape = [5, 5], strides = [4, 4], pads = [2, 2, 2, 2]> (image, w1)
      shallow = Relu (a)
      b = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (shallow, w2)
      deep = Relu (b)
    }}"""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((6, 3, 5, 5)).astype(np.float32) / 5,
        "w2": random.standard_normal((5, 6, 3, 3)).astype(np.float32) / 5,
    }
    tensors = [ir.tensor(array, name=name) for name, array in weights.items()]
    return ir.from_onnx_text(text, initializers=tensors)
