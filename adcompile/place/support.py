"""Support tables: what a row says, and how a node is judged by it. Knows no vendor.

A family's ``support.py`` holds one literal table, op name to :class:`Row`; :func:`judge` reads it.
Nothing here runs a vendor tool: the verdict comes from attributes, shapes, element types and the
target's numbers, and every refusal says why and what would help. A reason may end in a detail in
parentheses; reports group by what stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from adcompile.interfaces import Array, Facts, Verdict
from adcompile.ir.graph import DOMAIN, constant, dtype_name
from adcompile.ir.model_io import subgraphs_of
from adcompile.ir.opset import obstacle
from adcompile.place.rows import is_rowwise
from adcompile.target import part_opsets

FLOATS = ("float32", "float16", "bfloat16")
INTS = ("int32", "int64")
ALL_TYPES = (*FLOATS, *INTS, "bool")
EXACT, APPROXIMATE, QUANTIZED = "exact", "approximate", "quantized"
NOT_LISTED, DATA_DEPENDENT_SIZE = "not listed", "data-dependent"  # what a refusal is about

# Domains of operators that ONNX Runtime has beside the standard ones
RUNTIME_DOMAINS = frozenset({"ai.onnx.ml", "com.microsoft"})

# Ops whose output size depends on values, not only on shapes
DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})


@dataclass(frozen=True, slots=True)
class Site:
    """A node with the facts of the target: what a check function looks at."""

    node: ir.Node
    facts: Facts

    def input(self, place: int) -> ir.Value | None:
        """An input, None when it is left out."""
        return self.node.inputs[place] if place < len(self.node.inputs) else None

    def dims(self, place: int = 0) -> tuple[int | None, ...] | None:
        """Shape of an input with None for free dimensions; None when there is none."""
        return _dims(self.input(place))

    def out_dims(self, place: int = 0) -> tuple[int | None, ...] | None:
        """Shape of an output with None for free dimensions."""
        return _dims(self.node.outputs[place])

    def const(self, place: int) -> Array | None:
        """The array behind a constant input."""
        return constant(self.input(place))

    def number(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        value = attribute.value if attribute is not None else default
        return value if isinstance(value, int) else default

    def numbers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """An attribute that lists integers."""
        attribute = self.node.attributes.get(name)
        return tuple(attribute.as_ints()) if attribute is not None else tuple(default)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return attribute.as_string() if attribute is not None else default

    def limit(self, name: str, default: int) -> int:
        """A number of the target."""
        return self.facts.target.limits.get(name, default)

    def kernel(self) -> tuple[int, ...]:
        """Window of a convolution or pooling: the attribute, or the weight's spatial shape."""
        given = self.numbers("kernel_shape")
        if given:
            return given
        weight = self.dims(1)
        return tuple(d for d in weight[2:] if d is not None) if weight else ()

    def outputs_used(self) -> int:
        """Number of outputs up to the last that somebody reads."""
        used = [i for i, v in enumerate(self.node.outputs) if v.uses() or v.is_graph_output()]
        return max(used) + 1 if used else 1

    def counts_rows(self) -> bool:
        """True when axis 0 of some tensor here counts regions of interest."""
        return any(_is_rows(v, self.facts) for v in (*self.node.inputs, *self.node.outputs))


Check = Callable[[Site], Verdict | None]


def one_image(site: Site, dims: tuple[int | None, ...], source: str) -> Verdict | None:
    """Refuse a leading dimension above the target's batch, and say whose fault it is."""
    limit = site.limit("batch_max", 1)
    size = dims[0]
    if size is None or size <= limit or site.counts_rows():
        return None
    if not _is_batch(site.node, size):
        why = f"the leading dimension ({size}) does not count images"
        return Verdict.no(why, source=source, about="layout")
    return Verdict.no(
        f"batch of {size}; the target runs batch {limit}",
        f"--input-shape with a leading {limit}, and one run per image",
        EXACT,
        source,
    )


def _is_batch(node: ir.Node, size: int) -> bool:
    """True when an image input of the model has this leading dimension."""
    inputs = node.graph.inputs if node.graph is not None else ()
    shapes = [_dims(value) for value in inputs]
    return any(dims is not None and len(dims) >= 4 and dims[0] == size for dims in shapes)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a support table.

    ``dtypes`` are the element types allowed for the inputs listed in ``data``; ``since`` and
    ``until`` bound the toolchain (``Target.limits["version"]``); ``precisions`` empty means all;
    ``rank`` bounds input 0; inputs in ``constant`` must be constants; ``outputs`` is how many may be
    used. ``checks`` return a refusal or None. ``caution`` is shown with a "yes". ``fix`` and its
    exactness answer a refusal by precision or toolchain version.
    """

    dtypes: tuple[str, ...] = FLOATS
    data: tuple[int, ...] = (0,)
    since: int = 0
    until: int = 0
    precisions: tuple[str, ...] = ()
    rank: tuple[int, int] = (0, 99)
    constant: tuple[int, ...] = ()
    outputs: int = 99
    checks: tuple[Check, ...] = ()
    caution: str = ""
    source: str = ""
    fix: str = ""
    fix_exactness: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line for an op that a family cannot run at all, with what would help."""

    reason: str
    fix: str = ""
    fix_exactness: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A family's whole knowledge.

    ``rows`` are the supported ops, ``refused`` those known not to be; ops in neither get the verdict
    ``silent`` ("unknown" or "unsupported"). ``every`` are checks for all ops.
    """

    family: str
    rows: Mapping[str, Row]
    refused: Mapping[str, Refusal]
    silent: str
    silent_reason: str
    source: str
    every: tuple[Check, ...] = ()


def words(text: str) -> tuple[str, ...]:
    """The words of a table's cell, in order."""
    return tuple(text.split())


def rows_for(names: str, row: Row) -> dict[str, Row]:
    """The same row for several ops, given as words."""
    return dict.fromkeys(words(names), row)


def judge(node: ir.Node, facts: Facts, table: Table) -> Verdict:
    """Read *table* for one node. The first thing that stands in the way is the reason."""
    site = Site(node, facts)
    if subgraphs_of(node):
        return Verdict.no("control flow stays on the host", source="policy", about="control flow")
    row = table.rows.get(op_key(node))
    if row is None:
        return _without_row(node, table)
    for step in (_toolchain, _opset, _shapes, _dtypes, _precision, _rank, _constants, _outputs):
        verdict = step(site, row)
        if verdict is not None:
            return verdict
    for check in (*table.every, *row.checks):
        verdict = check(site)
        if verdict is not None:
            return verdict if verdict.source else replace(verdict, source=row.source)
    return Verdict("supported", row.caution, source=row.source)


def op_key(node: ir.Node) -> str:
    """``Conv``, or ``domain::Op`` outside of the standard domain."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}::{node.op_type}"


def _without_row(node: ir.Node, table: Table) -> Verdict:
    refusal = table.refused.get(op_key(node))
    if refusal is not None:
        return Verdict.no(
            refusal.reason, refusal.fix, refusal.fix_exactness, refusal.source, NOT_LISTED
        )
    if node.domain == DOMAIN:
        return Verdict.no(f"{node.op_type} is compiled to host code", source="policy")
    if node.domain in RUNTIME_DOMAINS:
        return Verdict.no(f"{op_key(node)} is not a standard ONNX op", source="policy")
    if node.domain not in {"", "ai.onnx"}:
        return Verdict(
            "unknown",
            f"{op_key(node)} is an operator of a domain that nobody here knows",
            "give the model an ONNX function of that name; its body is compiled like the rest",
            EXACT,
            "policy",
        )
    reason = f"{node.op_type} {table.silent_reason}"
    return Verdict(table.silent, reason, source=table.source, about=NOT_LISTED)


def _toolchain(site: Site, row: Row) -> Verdict | None:
    version = site.limit("version", 0)
    name = site.facts.target.toolchain
    if version and row.since > version:
        return Verdict.no(
            f"{site.node.op_type} is not in {name}",
            row.fix or f"use a toolchain from {row.since // 100}.{row.since % 100} on",
            row.fix_exactness or EXACT,
            row.source,
        )
    if version and row.until and version > row.until:
        return Verdict.no(f"{site.node.op_type} was removed before {name}", source=row.source)
    return None


def _opset(site: Site, row: Row) -> Verdict | None:
    """The node has an equal in the opset that its part will be written in."""
    facts = site.facts
    versions = part_opsets(facts.target, facts.precision, facts.opset)
    reasons = [obstacle(site.node, facts.opset, version) for version in versions]
    if "" in reasons:
        return None
    return Verdict.no(reasons[0], f"export with opset {versions[0]}", EXACT, row.source)


def _precision(site: Site, row: Row) -> Verdict | None:
    if not row.precisions or site.facts.precision in row.precisions:
        return None
    others = [p for p in row.precisions if p in site.facts.target.precisions]
    fix = row.fix or ("precision " + " or ".join(others) if others else "")
    return Verdict.no(
        f"{site.node.op_type} is not available in {site.facts.precision}",
        fix,
        (row.fix_exactness or QUANTIZED) if fix else "",
        row.source,
    )


def _shapes(site: Site, row: Row) -> Verdict | None:
    """Every tensor is static, rows of regions aside, and rows are not mixed. None is empty: vendors'
    tools do not expect that, and there is nothing to calibrate (unused inputs of ``Resize`` are
    empty constants)."""
    if site.node.op_type in DATA_DEPENDENT:
        return Verdict.no(
            f"{site.node.op_type}'s output size depends on the data",
            source="policy",
            about=DATA_DEPENDENT_SIZE,
        )
    for value in (*site.node.inputs, *site.node.outputs):
        if value is None:
            continue
        if _free(value, site.facts):
            return _not_static(site.facts, value)
        if 0 in (_dims(value) or ()) and constant(value) is None:
            return Verdict.no(f"a tensor without elements ({_show(value)})", source="policy")
    if site.counts_rows() and not is_rowwise(site.node, site.facts.rows):
        return Verdict.no(
            f"{site.node.op_type} mixes rows of a data-dependent number of regions",
            source="policy",
            about=DATA_DEPENDENT_SIZE,
        )
    return None


def _not_static(facts: Facts, value: ir.Value) -> Verdict:
    if not facts.free_inputs:
        why = f"shape depends on the data ({_show(value)})"
        return Verdict.no(why, source="policy", about=DATA_DEPENDENT_SIZE)
    fix = " ".join(f"--input-shape {name}=…" for name in facts.free_inputs[:3])
    return Verdict.no(f"shape is not static ({_show(value)})", fix, EXACT, "policy", "free shape")


def _free(value: ir.Value, facts: Facts) -> bool:
    dims = _dims(value)
    if dims is None:
        return True
    return None in (dims[1:] if dims and _is_rows(value, facts) else dims)


def _is_rows(value: ir.Value | None, facts: Facts) -> bool:
    return value is not None and value.name is not None and value.name in facts.rows


def _dtypes(site: Site, row: Row) -> Verdict | None:
    for place in row.data:
        value = site.input(place)
        if value is None:
            continue
        name = dtype_name(value)
        if name == "":
            return Verdict.unknown(f"element type of input {place} is not known")
        if name not in row.dtypes:
            fix = "convert the model to float32" if name == "float64" else ""
            return Verdict.no(
                f"{site.node.op_type} on {name}; supported: {', '.join(row.dtypes)}",
                fix,
                APPROXIMATE if fix else "",
                row.source,
                "element type",
            )
    return None


def _rank(site: Site, row: Row) -> Verdict | None:
    dims = site.dims(0)
    low, high = row.rank
    if dims is None or low <= len(dims) <= high:
        return None
    wanted = str(low) if low == high else f"{low} to {high}"
    return Verdict.no(
        f"{site.node.op_type} on {len(dims)} dimensions; supported: {wanted}",
        source=row.source,
        about="number of dimensions",
    )


def _constants(site: Site, row: Row) -> Verdict | None:
    for place in row.constant:
        value = site.input(place)
        if value is not None and value.const_value is None:
            return Verdict.no(
                f"input {place} of {site.node.op_type} is computed; it must be a constant",
                source=row.source,
            )
    return None


def _outputs(site: Site, row: Row) -> Verdict | None:
    used = site.outputs_used()
    if used <= row.outputs:
        return None
    return Verdict.no(
        f"{site.node.op_type} with {used} outputs in use; supported: {row.outputs}",
        source=row.source,
        about="number of outputs",
    )


def _dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape.dims)


def _show(value: ir.Value) -> str:
    dims = _dims(value)
    text = "unknown" if dims is None else "×".join("?" if d is None else str(d) for d in dims)
    return f"{text or 'scalar'}"
