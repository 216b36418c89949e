"""Outputs that are mistaken for others, randomness that was left in, shapes left open."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import onnx_ir as ir

from adcompile.anomaly.lint.subject import Complaint, Subject
from adcompile.anomaly.recognise.describe import batch_of, shape_for
from adcompile.ir.graph import all_nodes, constant, static_shape

_RANDOM = ("RandomNormal", "RandomUniform", "Bernoulli", "Multinomial")
_NUMBERED = re.compile(r"(onnx::)?[A-Za-z_]*\d+$|\d+$")
_NAMED = re.compile(r"score|map|label|mask|box|feature|layer|embedding|recon|mu|logvar", re.I)


def sampling(subject: Subject) -> Iterator[Complaint]:
    """Random numbers at inference: two runs on one image differ."""
    for node in all_nodes(subject.model):
        if node.domain == "" and node.op_type.startswith(_RANDOM):
            yield Complaint(
                f"node {node.name!r}",
                f"{node.op_type} draws random numbers: the score of one image changes from run to run",
                "export the mean of the latent distribution instead of a sample",
            )
        if node.op_type == "Dropout" and len(node.inputs) > 2:
            mode = constant(node.inputs[2])
            if mode is not None and bool(mode.any()):
                yield Complaint(
                    f"node {node.name!r}",
                    "Dropout in training mode draws random numbers",
                    "export the model in evaluation mode (model.eval())",
                )


def _shape_role(value: ir.Value, images: int) -> str:
    shape = shape_for(value, images)
    if shape is None or value.dtype != ir.DataType.FLOAT:
        return ""
    if math.prod(shape) == images:
        return "score"
    return "map" if len(shape) == 4 and shape[1] == 1 else ""


def output_roles(subject: Subject) -> Iterator[Complaint]:
    """An output's role does not fit its shape: score and map were swapped."""
    images = batch_of(subject.model)
    for value in subject.model.graph.outputs:
        role = subject.contract.roles.get(value.name or "", "")
        actual = _shape_role(value, images)
        if role in {"score", "raw_score"} and actual != "score" and shape_for(value, 1):
            yield Complaint(
                f"output {value.name!r}",
                f"its role is {role}, but its shape {static_shape(value)} is no score per image",
                "check which output is which, and name them in the export",
            )
        if role == "map" and actual == "score":
            yield Complaint(
                f"output {value.name!r}",
                f"its role is map, but it holds one number per image: {static_shape(value)}",
                "check which output is which, and name them in the export",
            )


def unnamed_outputs(subject: Subject) -> Iterator[Complaint]:
    """Several outputs, and one with a name that an exporter made up."""
    outputs = list(subject.model.graph.outputs)
    if len(outputs) < 2 or subject.found is None:
        return
    for place, value in enumerate(outputs):
        name = value.name or ""
        role = subject.contract.roles.get(name, "tensor")
        plain = name in {"output", "out"} or _NUMBERED.fullmatch(name) is not None
        if role == "tensor" and plain and not _NAMED.search(name):
            looks = subject.found_roles.get(name, "something else")
            yield Complaint(
                f"output {place} ({name!r})",
                f"nothing says what it is; by its shape it is {looks}, and a host that takes "
                "outputs by position or size would guess",
                "name it in the export, or give its role in a contract (--contract)",
            )


def open_batch(subject: Subject) -> Iterator[Complaint]:
    """A batch size left open at a fixed-size deployment."""
    for value in subject.original.graph.inputs if subject.original is not None else ():
        dims = value.shape.dims if value.shape is not None else ()
        if len(dims) == 4 and not isinstance(dims[0], int) and subject.found is not None:
            yield Complaint(
                f"input {value.name!r}",
                f"its batch size {dims[0]} is open: engines report -1 for it, and buffers made "
                "from that are too small",
                "fix it with --input-shape, or build (which fixes it to 1)",
            )


RULES = {
    "sampling": sampling,
    "output-roles": output_roles,
    "unnamed-outputs": unnamed_outputs,
    "open-batch": open_batch,
}
