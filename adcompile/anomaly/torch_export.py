"""A torch module as an ONNX graph that anomaly heads can be put on."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
import torch
from torch.nn import Module

from adcompile.ir import model_io

OPSET = 17


def export_network(module: Module, outputs: Sequence[str], side: int) -> ir.Model:
    """Export for images [N, 3, side, side]; the batch axis stays free."""
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "network.onnx"
        warnings.simplefilter("ignore")  # the TorchScript exporter announces its own deprecation
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, side, side),),
            path,
            input_names=["input"],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,
            dynamic_axes={name: {0: "N"} for name in ("input", *outputs)},
        )
        return model_io.from_bytes(path.read_bytes(), "network")
