"""What statements of one part share: identifiers, constants, and where results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.statistics import Statistics
from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.constants import EMBED_LIMIT, WeightStore, little_endian
from adcompile.backends.host.codegen.facts import Facts
from adcompile.backends.host.codegen.names import Namer
from adcompile.backends.host.codegen.plan import Plan
from adcompile.errors import FormatError

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Constant:
    """A constant of the part: embedded in the source, or a place in a side file: ``weights`` or
    ``statistics``."""

    name: str
    cpp: str
    shape: str
    values: str = ""  # braces, when embedded
    offset: int = -1
    size: int = 0
    file: str = "weights"


class Scope:
    """Names and memory of one part. Knows nothing of operators or control flow."""

    def __init__(self, facts: Facts, plan: Plan, store: WeightStore) -> None:
        self.facts = facts
        self.plan = plan
        self._store = store
        self._namer = Namer()
        self._names: dict[ir.Value, str] = {}
        self._constants: dict[ir.Value, Constant] = {}

    def constants(self) -> list[Constant]:
        """Every constant that was named so far."""
        return list(self._constants.values())

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

    def statistics(self, values: Mapping[str, ir.Value]) -> None:
        """Let constant statistics, by role, stay in the bank file they have; else they are like
        other constants."""
        arrays: dict[str, npt.NDArray[np.float32]] = {}
        for role, value in values.items():
            array = self.facts.constant(value)
            if array is None or array.dtype != np.float32 or value in self._names:
                return
            arrays[role] = np.asarray(array, np.float32)
        try:
            statistics = Statistics(arrays)
        except FormatError:  # NaN, say: the kernel takes what it gets
            return
        places = self._store.places(statistics)
        if places is None:
            return
        for role, value in values.items():
            self._constants[value] = Constant(
                self.bind(value),
                "float",
                literals.shape(arrays[role].shape),
                offset=places[role],
                size=arrays[role].nbytes,
                file="statistics",
            )

    def carried(self, value: ir.Value) -> bool:
        """True when *value* was given the buffer of a loop-carried value."""
        return value in self.plan.grown

    def spare(self, cpp: str) -> str:
        """Destination of a dropped result: a slot after the planned ones."""
        slot = self.plan.slots
        self.plan.slots += 1
        return f"ws.slot<{cpp}>({slot})"

    def declare(self, node: ir.Node, text: str) -> str:
        """The declaration of a node's results, made by the expression *text*."""
        if len(node.outputs) == 1:
            value = node.outputs[0]
            return f"const View<{self.facts.cpp(value).cpp}> {self.bind(value)} = {text};"
        names = [self.bind(v) for v in node.outputs]
        return f"const auto [{', '.join(names)}] = {text};"

    def _constant(self, value: ir.Value, array: Array) -> Constant:
        dtype = self.facts.dtype(value)
        cpp = literals.cpp_type(dtype, value.name or "")
        name = self.bind(value)
        shape = literals.shape(array.shape)
        sixteen = cpp.cpp in {"Half", "BFloat16"}
        if array.size <= EMBED_LIMIT and not sixteen and array.size > 0:
            numbers = [literals.element(v, dtype) for v in array.reshape(-1)]
            made = Constant(name, cpp.cpp, shape, literals.braces(numbers))
        else:
            stored = self._store.add(little_endian(array))
            made = Constant(name, cpp.cpp, shape, offset=stored.offset, size=stored.size)
        self._constants[value] = made
        return made
