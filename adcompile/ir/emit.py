"""Put a model into a file set: small ones as bytes, large ones streamed when the set is written."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from adcompile.fileset import FileSet
from adcompile.ir.model_io import EXTERNAL_ABOVE, save_model, to_bytes, weight_bytes


def add_model(out: FileSet, path: str, model: ir.Model) -> str:
    """Add *model* as *path*; weights over 1 GiB go to ``path.data``, straight from their source."""
    if weight_bytes(model) <= EXTERNAL_ABOVE:
        return out.add(path, to_bytes(model))

    def write(file: Path) -> None:
        save_model(model, file, external=True)

    def written_with_the_model(file: Path) -> None:
        if not file.is_file():
            raise FileNotFoundError(file)

    out.add_writer(path, write)
    out.add_writer(f"{path}.data", written_with_the_model)  # sorts after, so it is there by then
    return path
