"""Variants of one model, run only from where they begin to differ from it.

Two values are the same when the same operators make them from the same inputs and constants; that is
told by a digest over everything above a value. What a reference model gives at some places inside is
kept; a variant then runs from the last places at which it is still the reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from adcompile.interfaces import Array, CalibrationData
from adcompile.ir.evaluate import open_model
from adcompile.ir.extract import extract
from adcompile.ir.graph import captured_values, is_constant
from adcompile.ir.model_io import subgraphs_of

CUTS = 16  # places inside the reference whose values are kept
RANDOM = ("Random", "Bernoulli", "Multinomial")
KEPT_BYTES = 256 << 20  # of these values, over all samples

Digests = Mapping[ir.Value, bytes]


class Resume:
    """Results of variants of *reference* on *data*; all have its inputs and outputs."""

    def __init__(self, reference: ir.Model, data: CalibrationData) -> None:
        self._data = data
        self.names = [v.name or "" for v in reference.graph.outputs]
        digests = _digests(reference)
        kept = _values_at_cuts(reference, data, digests)
        self._known = {digests[value]: arrays for value, arrays in kept.items()}

    def __call__(self, variant: ir.Model) -> Iterator[Sequence[Array]]:
        """For every sample the variant's outputs, in the order of ``names``."""
        digests = _digests(variant)
        by_name = {v.name or "": v for v in variant.graph.outputs}
        outputs = [by_name[name] for name in self.names]
        given, nodes = self._rest(outputs, digests)
        session = open_model(extract(variant, nodes, given, outputs, "rest"))
        for index, feeds in enumerate(self._data):
            fed = {
                v.name or "": self._known[digests[v]][index]
                if v in digests
                else feeds[v.name or ""]
                for v in given
            }
            yield session.run(self.names, fed)

    def _rest(
        self, outputs: Sequence[ir.Value], digests: Digests
    ) -> tuple[list[ir.Value], list[ir.Node]]:
        """On the way up from *outputs*: what is known or an input, and the nodes before that."""
        given: dict[ir.Value, None] = {}
        nodes: dict[ir.Node, None] = {}
        left = list(outputs)
        while left:
            value = left.pop()
            made = value.producer()
            if digests.get(value) in self._known or (made is None and not is_constant(value)):
                given[value] = None
            elif made is not None and made not in nodes:
                nodes[made] = None
                left += [v for v in (*made.inputs, *captured_values(made)) if v is not None]
        return list(given), list(nodes)


def _digests(model: ir.Model) -> dict[ir.Value, bytes]:
    """What makes every value of the main graph; none for values behind a node with a body of its own,
    or one that is random."""
    found: dict[ir.Value, bytes] = {}
    inputs = {v: f"input {v.name}".encode() for v in model.graph.inputs}
    for node in model.graph:
        if list(subgraphs_of(node)) or node.op_type.startswith(RANDOM):
            continue
        above = [_source(v, found, inputs) for v in node.inputs]
        if any(each is None for each in above):
            continue
        head = [node.domain, node.op_type, *(_attribute(a) for a in node.attributes.values())]
        total = hashlib.sha256(repr(sorted(head)).encode())
        for each in above:
            total.update(each or b"")
        for place, value in enumerate(node.outputs):
            found[value] = total.digest() + place.to_bytes(4, "little")
    return found


def _source(
    value: ir.Value | None, found: Digests, inputs: Mapping[ir.Value, bytes]
) -> bytes | None:
    if value is None:
        return b"absent"
    if value.const_value is not None and is_constant(value):
        array = value.const_value
        kind = f"{array.dtype} {tuple(array.shape)}".encode()
        return hashlib.sha256(kind + array.tobytes()).digest()
    return found.get(value) or inputs.get(value)


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{attribute.name} {tensor.dtype} {tuple(tensor.shape)} {tensor.tobytes().hex()}"
    value: object = attribute.value  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return f"{attribute.name} {attribute.type} {value!r}"


def _values_at_cuts(
    model: ir.Model, data: CalibrationData, digests: Digests
) -> dict[ir.Value, list[Array]]:
    """What crosses evenly spaced places of the graph, for every sample; fewer places where that would
    be too much to keep."""
    cuts = _cuts(model, digests)
    tapped = _union(cuts)
    found: dict[ir.Value, list[Array]] = {}
    if not tapped:
        return found
    names = [value.name or "" for value in tapped]
    session = open_model(model, names)
    for index, feeds in enumerate(data):
        made = dict(zip(tapped, session.run(names, dict(feeds)), strict=True))
        if index == 0:
            while cuts and sum(made[v].nbytes for v in _union(cuts)) > KEPT_BYTES // len(data):
                cuts = cuts[1::2]
            found = {value: [] for value in _union(cuts)}
        for value, arrays in found.items():
            arrays.append(made[value])
    return found


def _union(cuts: Sequence[Sequence[ir.Value]]) -> list[ir.Value]:
    return list(dict.fromkeys(value for cut in cuts for value in cut))


def _cuts(model: ir.Model, digests: Digests) -> list[list[ir.Value]]:
    """At evenly spaced places: the values made before that are read behind."""
    nodes = list(model.graph)
    place = {node: index for index, node in enumerate(nodes)}
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in (*node.inputs, *captured_values(node)):
            if value is not None:
                last[value] = index
    step = max(len(nodes) // (CUTS + 1), 1)
    found: list[list[ir.Value]] = []
    for cut in range(step, len(nodes), step):
        live = [v for v, end in last.items() if end >= cut and v in digests]
        found.append([v for v in live if (made := v.producer()) is not None and place[made] < cut])
    return found
