"""An ONNX file as it is, run by ONNX Runtime: what bundles are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adcompile.contract import Contract
from adcompile.interfaces import Report
from adcompile.ir.graph import tensor_spec
from adcompile.ir.model_io import load_model, to_bytes
from adcompile.manifest import MANIFEST, TensorSpec, read_manifest
from adcompile.passes.specialize import real_inputs
from adcompile.runtime.session import Session, open_session
from adcompile.steps.decoding import settle_contract


def open_reference(
    file: Path, decoder: str | None, given: Contract | None
) -> tuple[Session, list[TensorSpec], Contract]:
    """A session on *file*, its inputs, and its contract: *given*, else its own.

    A detector's raw output is decoded: by *decoder*, else by what the contract or the model says.
    """
    model = load_model(file)
    decoding = settle_contract(model, given=given, asked=decoder)
    specs = [tensor_spec(value) for value in real_inputs(model)]
    if decoding.append is None:
        return open_session(file), specs, decoding.contract
    decoding.apply(model, Report())
    return open_session(to_bytes(model), where=file.name), specs, decoding.contract


def decoding_contract(subjects: Sequence[Path]) -> Contract | None:
    """The contract of the first bundle that decodes: what the model beside it is to be decoded with."""
    for path in subjects:
        if (path / MANIFEST).is_file():
            contract = read_manifest(path).contract
            if contract.decoder is not None:
                return contract
    return None
