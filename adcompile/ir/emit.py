"""Put a model into a file set: small ones as bytes, large ones streamed when the set is written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx_ir as ir

from adcompile.fileset import FileSet
from adcompile.ir.dump import dump
from adcompile.ir.model_io import (
    EXTERNAL_ABOVE,
    save_model,
    serialized,
    to_bytes,
    to_proto,
    weight_bytes,
)


class Placed(ir.ExternalTensor):
    """A tensor whose bytes another file of the bundle holds, which lies beside the model's."""


def add_model(out: FileSet, path: str, model: ir.Model) -> str:
    """Add *model* as *path*; weights over 1 GiB go to ``path.data``, straight from their source.

    Tensors that are :class:`Placed` stay where they are, if the rest fits into one message.
    """
    tensors = [v.const_value for g in model.graphs() for v in g.initializers.values()]
    own = sum(t.nbytes for t in tensors if t is not None and not isinstance(t, Placed))
    if own <= EXTERNAL_ABOVE and any(isinstance(t, Placed) for t in tensors):
        return out.add(path, serialized(to_proto(model)))
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


def model_digest(model: ir.Model) -> str:
    """SHA-256 over structure and weights, one tensor in memory at a time."""
    total = hashlib.sha256(dump(model, metadata=True).encode())
    for graph_ in model.graphs():
        for name, value in sorted(graph_.initializers.items()):
            if value.const_value is not None:
                total.update(name.encode() + b"\0")
                total.update(value.const_value.tobytes())
    return total.hexdigest()
