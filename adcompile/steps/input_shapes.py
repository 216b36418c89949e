"""The sizes that a model's inputs are fixed to: the user's, and those that go without saying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from adcompile.detection.exported import read_exported
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir.graph import constant
from adcompile.manifest import TensorSpec

Shapes = dict[str, tuple[int, ...]]

_PASSING = frozenset({"Reshape", "Identity", "Cast", "Sub", "Add", "Mul", "Div"})
MAX_STEPS = 32


def choose_shapes(
    model: ir.Model,
    specs: Sequence[TensorSpec],
    asked: Mapping[str, tuple[int, ...]],
    report: Report,
    where: str,
) -> tuple[Shapes, set[str]]:
    """Shapes by input: those *asked* for, a batch of 1, and the size that the graph resizes to.

    Also the names of inputs that had the last of these. Notes say what was fixed, and what stays
    free. Raises UsageError, at *where*, for a name that no input has.
    """
    unknown = sorted(set(asked) - {spec.name for spec in specs})
    if unknown:
        raise UsageError(
            f"no input called {', '.join(map(repr, unknown))}",
            where=where,
            fix="inputs: " + ", ".join(spec.name for spec in specs),
        )
    shapes: Shapes = dict(asked)
    inside: set[str] = set()
    for spec in specs:
        if spec.name in shapes:
            continue
        if _only_batch_is_free(spec):
            shapes[spec.name] = (1, *(d for d in spec.shape[1:] if isinstance(d, int)))
            report.note(f"input {spec.name!r}: batch size set to 1 (--input-shape sets another)")
        elif (size := _resized_inside(model, spec)) is not None:
            shapes[spec.name] = (1, int(spec.shape[1]), *size)
            report.note(
                f"input {spec.name!r}: the graph resizes images to {size[0]}×{size[1]}; its input "
                "is fixed to that size, and images are resized before it"
            )
            inside.add(spec.name)
        elif (size := _exported_size(model, spec)) is not None:
            shapes[spec.name] = (1, int(spec.shape[1]), *size)
            report.note(
                f"input {spec.name!r}: fixed to {size[0]}×{size[1]}, the size in the model's metadata "
                "(--input-shape sets another)"
            )
        elif any(isinstance(d, str) for d in spec.shape):
            dims = "x".join(str(d) for d in spec.shape)
            report.note(
                f"input {spec.name!r} is {dims}: free dimensions keep nodes on the host; "
                f"fix them with --input-shape {spec.name}=…"
            )
    return shapes, inside


def _only_batch_is_free(spec: TensorSpec) -> bool:
    """A batch of images (N×C×H×W or N×H×W×C) whose size is open and nothing else."""
    return (
        len(spec.shape) == 4
        and isinstance(spec.shape[0], str)
        and all(isinstance(d, int) for d in spec.shape[1:])
    )


def _exported_size(model: ir.Model, spec: TensorSpec) -> tuple[int, int] | None:
    """The size to fix a free N×C×H×W image input to: the one its exporter names."""
    shape = spec.shape
    if len(shape) != 4 or shape[1] not in (1, 3) or any(isinstance(d, int) for d in shape[2:]):
        return None
    exported = read_exported(model.metadata_props)
    return None if exported is None else exported.size


def _resized_inside(model: ir.Model, spec: TensorSpec) -> tuple[int, int] | None:
    """The size to fix a free N×C×H×W image input to: the one the graph resizes it to."""
    shape = spec.shape
    if len(shape) != 4 or shape[1] not in (1, 3) or all(isinstance(d, int) for d in shape[2:]):
        return None
    value = next(v for v in model.graph.inputs if v.name == spec.name)
    size = _size_inside(value)
    if size is None or any(
        isinstance(d, int) and d != s for d, s in zip(shape[2:], size, strict=True)
    ):
        return None
    return size


def _size_inside(value: ir.Value) -> tuple[int, int] | None:
    """Height and width of the first Resize behind *value* when its size is fixed; else None.

    Exporters of detectors with pre-processing inside (anomalib) leave height and width free and
    resize in the graph. Read before shapes are fixed: the size is a constant, or the constant end
    of a Concat behind the batch dimensions.
    """
    pending = [value]
    for _ in range(MAX_STEPS):
        if not pending:
            return None
        current = pending.pop(0)
        for node in current.consumers():
            if node.domain != "":
                continue
            if node.op_type == "Resize" and node.inputs[0] is current:
                return _target(node)
            if node.op_type in _PASSING and node.inputs[0] is current:
                pending += node.outputs
    return None


def _target(node: ir.Node) -> tuple[int, int] | None:
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    known = constant(sizes)
    if known is None and sizes is not None:
        joined = sizes.producer()
        if joined is None or joined.op_type != "Concat":
            return None
        known = constant(joined.inputs[-1])
    if known is None or known.size < 2:
        return None
    height, width = (int(v) for v in known.reshape(-1)[-2:])
    return height, width
