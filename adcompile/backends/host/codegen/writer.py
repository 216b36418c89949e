"""One host part as C++ source: statements in execution order, rendered through a template."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call
from adcompile.backends.host.codegen.constants import EMBED_LIMIT, WeightStore, little_endian
from adcompile.backends.host.codegen.control import ControlWriter
from adcompile.backends.host.codegen.facts import Facts
from adcompile.backends.host.codegen.fuse import Steps, make_steps
from adcompile.backends.host.codegen.loops import map_statement
from adcompile.backends.host.codegen.names import Namer, comment, type_name
from adcompile.backends.host.codegen.plan import Plan, Planner
from adcompile.backends.host.codegen.registry import Step
from adcompile.backends.host.codegen.statements import Line, Statement
from adcompile.backends.host.codegen.tables import TABLE

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Constant:
    """A constant of the part: embedded in the source, or a place in the side file."""

    name: str
    cpp: str
    shape: str
    values: str = ""  # braces, when embedded
    offset: int = -1
    size: int = 0


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
        self.facts = Facts(model)
        self.steps: Steps = make_steps(self.facts, TABLE)
        self.plan: Plan = Planner(self.facts, self.steps).run()
        self._store = store
        self._namer = Namer()
        self._names: dict[ir.Value, str] = {}
        self._constants: dict[ir.Value, Constant] = {}
        self._control = ControlWriter(self)

    # --- what calls ask for -----------------------------------------------------------------

    def name(self, value: ir.Value) -> str:
        """C++ identifier; a constant is registered when first named."""
        known = self._names.get(value)
        if known is not None:
            return known
        array = self.facts.constant(value)
        if array is not None:
            return self._constant(value, array).name
        return self.bind(value)

    def bind(self, value: ir.Value, name: str | None = None) -> str:
        """Give *value* an identifier (or the one of another value)."""
        if name is None:
            name = self._namer.unique(value.name or "value")
        self._names[value] = name
        return name

    def local(self, text: str) -> str:
        """A fresh identifier for a helper variable."""
        return self._namer.unique(text)

    def dest(self, value: ir.Value) -> str:
        """Destination of a value that owns its memory."""
        return self.place(self.plan.owner[value], value)

    def place(self, storage: int, value: ir.Value) -> str:
        """Storage number as a destination for data like *value*."""
        record = self.plan.place(storage)
        cpp = self.facts.cpp(value).cpp
        if record.bytes is None:
            return f"ws.slot<{cpp}>({record.place})"
        dims = self.facts.shape(value) or ()
        return f"ws.fixed<{cpp}>({record.place}, {literals.shape(dims)})"

    def searcher(self, bank: ir.Value, neighbours: int) -> str:
        """The searcher over a constant bank, which becomes a file of its own."""
        rows = self.facts.constant(bank)
        if rows is None:
            raise TypeError("a bank that is not constant has no searcher")
        number = self._store.bank(bank.name or "bank", rows, neighbours)
        return f"resources_.searcher({number})"

    def carried(self, value: ir.Value) -> bool:
        """True when *value* was given the buffer of a loop-carried value."""
        return value in self.plan.grown

    def spare(self, which: int, cpp: str) -> str:
        """Destination of a dropped result: a slot after the planned ones."""
        self.plan.slots = max(self.plan.slots, 0)
        slot = self.plan.slots
        self.plan.slots += 1
        return f"ws.slot<{cpp}>({slot})"

    def _constant(self, value: ir.Value, array: Array) -> Constant:
        dtype = self.facts.dtype(value)
        cpp = literals.cpp_type(dtype, value.name or "")
        name = self.bind(value)
        shape = literals.shape(array.shape)
        sixteen = cpp.cpp in {"Half", "BFloat16"}
        if array.size <= EMBED_LIMIT and not sixteen and array.size > 0:
            numbers = [literals.number(v, dtype) for v in array.reshape(-1)]
            made = Constant(name, cpp.cpp, shape, literals.braces(numbers))
        else:
            stored = self._store.add(little_endian(array))
            made = Constant(name, cpp.cpp, shape, offset=stored.offset, size=stored.size)
        self._constants[value] = made
        return made

    # --- statements -------------------------------------------------------------------------

    def graph(self, graph: ir.Graph) -> list[Statement]:
        """Statements of one graph or body."""
        lines: list[Statement] = []
        for node in graph:
            step = self.steps.get(node)
            if step is not None:
                lines += self._step(step)
        return lines

    def _step(self, step: Step) -> list[Statement]:
        node = step.node
        if step.op.control:
            return self._control.write(node)
        if step.op.expression is not None:
            text = map_statement(step, self)
        elif step.op.emit is not None:
            text = step.op.emit(Call(node, self))
        else:
            raise TypeError(f"operator {node.op_type} has neither emitter nor expression")
        return [Line(declare(self, node, text), source_comment(step))]

    def source(self, name: str) -> PartSource:
        """The finished part."""
        graph = self.facts.graph
        inputs = [self._port(v) for v in graph.inputs if not v.is_initializer()]
        body = self.graph(graph)
        results = [self.name(v) for v in graph.outputs]
        return PartSource(
            name=comment(name),
            type=type_name(name),
            inputs=inputs,
            outputs=[self._port(v, named=False) for v in graph.outputs],
            constants=list(self._constants.values()),
            body=body,
            results=results,
            arena=self.plan.arena,
            slots=self.plan.slots,
            nodes=sum(1 + len(s.absorbed) for s in self.steps.values()),
        )

    def _port(self, value: ir.Value, *, named: bool = True) -> Port:
        cpp = self.facts.cpp(value)
        dims = tuple(d if isinstance(d, int) else -1 for d in value.shape or ())
        if value.shape is None:
            dims = (-2,)  # any rank
        name = self.bind(value) if named else ""
        return Port(name, cpp_string(value.name or ""), cpp.cpp, cpp.numpy, dims)


def declare(writer: PartWriter, node: ir.Node, text: str) -> str:
    """The declaration of a node's results."""
    if len(node.outputs) == 1:
        value = node.outputs[0]
        name = writer.bind(value)
        return f"const View<{writer.facts.cpp(value).cpp}> {name} = {text};"
    names = [writer.bind(v) for v in node.outputs]
    return f"const auto [{', '.join(names)}] = {text};"


def source_comment(step: Step) -> str:
    """``Op 'name'`` of every node in the step."""
    nodes = (*step.absorbed, step.node)
    return comment(", ".join(f"{n.op_type} {n.name or ''}".strip() for n in nodes))


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
