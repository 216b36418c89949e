"""One host part as C++ source: statements in execution order, rendered through a template."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from adcompile.backends.host.codegen.call import Call
from adcompile.backends.host.codegen.constants import WeightStore
from adcompile.backends.host.codegen.control import ControlWriter
from adcompile.backends.host.codegen.facts import Facts
from adcompile.backends.host.codegen.fuse import Steps, make_steps
from adcompile.backends.host.codegen.loops import map_statement
from adcompile.backends.host.codegen.names import comment, type_name
from adcompile.backends.host.codegen.plan import Planner
from adcompile.backends.host.codegen.registry import Emit, Step
from adcompile.backends.host.codegen.scope import Constant, Scope
from adcompile.backends.host.codegen.statements import Line, Statement
from adcompile.backends.host.codegen.tables import TABLE


@dataclass(frozen=True)
class Port:
    """An input or output of the part."""

    name: str  # identifier
    source: str  # the model's name, as a C++ string literal body
    cpp: str
    dtype: str  # numpy name
    shape: tuple[int, ...]  # -1: free


@dataclass
class PartSource:
    """What the template of a part needs."""

    name: str
    type: str
    inputs: list[Port]
    outputs: list[Port]
    constants: list[Constant]
    body: list[Statement]
    results: list[str]
    arena: int
    slots: int
    nodes: int
    functions: dict[str, str] = field(default_factory=dict[str, str])


class PartWriter:
    """Writes one part. Use :func:`write_part`."""

    def __init__(self, model: ir.Model, store: WeightStore) -> None:
        facts = Facts(model)
        self._facts = facts
        self._steps: Steps = make_steps(facts, TABLE)
        self._scope = Scope(facts, Planner(facts, self._steps).run(), store)
        self._control = ControlWriter(self._scope, self._graph)

    def _graph(self, graph: ir.Graph) -> list[Statement]:
        """Statements of one graph or body."""
        lines: list[Statement] = []
        for node in graph:
            step = self._steps.get(node)
            if step is not None:
                lines += self._step(step)
        return lines

    def _step(self, step: Step) -> list[Statement]:
        node = step.node
        if step.op.control:
            return self._control.write(node)
        if step.op.expression is not None:
            text = map_statement(step, self._scope)
        elif step.op.emit is not None:
            text = step.op.emit(Call(node, self._scope, _pieces(step)))
        else:
            raise TypeError(f"operator {node.op_type} has neither emitter nor expression")
        return [Line(self._scope.declare(node, text), source_comment(step))]

    def source(self, name: str) -> PartSource:
        """The finished part."""
        graph = self._facts.graph
        inputs = [self._port(v) for v in graph.inputs if not v.is_initializer()]
        body = self._graph(graph)
        results = [self._scope.name(v) for v in graph.outputs]
        return PartSource(
            name=comment(name),
            type=type_name(name),
            inputs=inputs,
            outputs=[self._port(v, named=False) for v in graph.outputs],
            constants=self._scope.constants(),
            body=body,
            results=results,
            arena=self._scope.plan.arena,
            slots=self._scope.plan.slots,
            nodes=sum(1 + len(s.absorbed) for s in self._steps.values()),
        )

    def _port(self, value: ir.Value, *, named: bool = True) -> Port:
        cpp = self._facts.cpp(value)
        dims = tuple(d if isinstance(d, int) else -1 for d in value.shape or ())
        if value.shape is None:
            dims = (-2,)  # any rank
        name = self._scope.bind(value) if named else ""
        return Port(name, cpp_string(value.name or ""), cpp.cpp, cpp.numpy, dims)


def _pieces(step: Step) -> dict[ir.Value, Emit]:
    """What writes the absorbed inputs of a join."""
    found = ((n.outputs[0], TABLE[n.op_type].piece) for n in step.absorbed)
    return {value: emit for value, emit in found if emit is not None}


def source_comment(step: Step) -> str:
    """The nodes of a step: ``Op name``, or ``folder: Op name, Op name`` when they share a folder."""
    nodes = (*step.absorbed, step.node)
    folders = {(n.name or "").rpartition("/")[0] for n in nodes}
    shared = folders.pop() if len(nodes) > 1 and len(folders) == 1 else ""
    text = ", ".join(_short(n, shared) for n in nodes)
    return comment(f"{shared}: {text}" if shared else text)


def _short(node: ir.Node, folder: str) -> str:
    """``Op name`` without the folder; the operator is left out where the name says it."""
    name = node.name or ""
    base = name.rpartition("/")[2]
    shown = base if folder else name
    return shown if base.startswith(node.op_type) else f"{node.op_type} {shown}".strip()


def cpp_string(text: str) -> str:
    """The body of a C++ string literal for any text (UTF-8 bytes, octal escapes)."""
    out: list[str] = []
    for byte in text.encode("utf-8", "surrogatepass"):
        char = chr(byte)
        plain = 32 <= byte < 127 and char not in '"\\?'
        out.append(char if plain else f"\\{byte:03o}")
    return "".join(out)


def write_part(model: ir.Model, name: str, store: WeightStore) -> PartSource:
    """Lower one stand-alone host part. Raises Unsupported for what the table does not cover."""
    return PartWriter(model, store).source(name)
