"""The graph and the contract that rules compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.recognise.describe import head_nodes
from adcompile.contract import Contract, Score
from adcompile.ir.graph import constant

_BEFORE = frozenset({"Identity", "Reshape", "Cast", "Resize", "Slice", "Pad", "Transpose"})


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a rule says: where, what is wrong, what to do."""

    where: str
    why: str
    fix: str


@dataclass(frozen=True, eq=False)
class Subject:
    """A raised graph, the declared contract, and the score formula and roles the graph shows."""

    model: ir.Model
    contract: Contract
    found: Score | None
    found_roles: Mapping[str, str] = field(default_factory=dict[str, str])
    original: ir.Model | None = None  # the file as it came; only when it is judged for itself

    def heads(self, *names: str) -> list[ir.Node]:
        """adcompile nodes of the given ops."""
        return head_nodes(self.model, *names)

    def first_steps(self, name: str) -> Iterator[Scaling]:
        """Per-channel constants that the graph applies to the input *name* before the network."""
        value = next((v for v in self.model.graph.inputs if v.name == name), None)
        pending = [] if value is None else [value]
        while pending:
            current = pending.pop()
            for node in current.consumers():
                if node.domain != "" or node.inputs[0] is not current:
                    continue
                if node.op_type in {"Sub", "Add", "Div", "Mul"} and len(node.inputs) == 2:
                    numbers = constant(node.inputs[1])
                    if numbers is not None and numbers.size in (1, 3):
                        wide = np.asarray(numbers, dtype=np.float64).reshape(-1)
                        yield Scaling(node, node.op_type, wide)
                        pending += node.outputs
                elif node.op_type in _BEFORE:
                    pending += node.outputs


@dataclass(frozen=True, eq=False)
class Scaling:
    """One step of a normalisation inside the graph: its node, op and constants (1 or 3)."""

    node: ir.Node
    op: str
    numbers: npt.NDArray[np.float64]
