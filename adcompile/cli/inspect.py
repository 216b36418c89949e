"""``adcompile inspect``: inputs, outputs, operators, control flow, and the roles found in a model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pydantic import BaseModel

from adcompile.cli import console
from adcompile.cli.options import AsJson, DecoderName, InputShapes, ModelPath, model_options
from adcompile.manifest import TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from adcompile.job import Job

MOST_OPS = 16


class FoundPart(BaseModel):
    """A part that a device which runs every static op would get."""

    name: str
    role: str
    rows: str
    nodes: int
    macs: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class OutputTaken(BaseModel):
    """What an output is taken for, and why."""

    role: str
    why: str


class Description(BaseModel):
    """What ``inspect`` says about a model. ``macs`` count 100 regions per image."""

    name: str
    sha256: str
    opset: int
    producer: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    taken_for: dict[str, OutputTaken]
    nodes: int
    nodes_simplified: int
    parameters: int
    macs: int
    ops: dict[str, int]
    domains: list[str]
    control_flow: list[str]
    data_dependent: dict[str, int]
    parts: list[FoundPart]
    contract: bool
    notes: list[str]


def command(
    model: ModelPath,
    input_shape: InputShapes = None,
    decoder: DecoderName = None,
    as_json: AsJson = False,
) -> None:
    """Describe MODEL: what it reads and returns, what it is made of, and which parts it has."""
    from adcompile.cli.prepared import prepared

    with prepared(model, ["cpu"], model_options(input_shape, decoder=decoder)) as (job,):
        found = describe(job)
    if as_json:
        console.emit_json(found.model_dump(mode="json"))
    else:
        _show(found)


def describe(job: Job) -> Description:
    """Everything that ``inspect`` knows."""
    from adcompile.ir.graph import count_nodes

    source, model = job.reference, job.ir
    return Description(
        name=job.source.name,
        sha256=job.source.sha256,
        opset=job.source.opset,
        producer=f"{source.producer_name or ''} {source.producer_version or ''}".strip(),
        inputs=job.source.inputs,
        outputs=job.source.outputs,
        taken_for={n: OutputTaken(role=t.role, why=t.why) for n, t in job.outputs.items()},
        nodes=count_nodes(source)[1],
        nodes_simplified=count_nodes(model)[1],
        parameters=_parameters(source),
        macs=_macs(model),
        ops=_ops(model),
        domains=sorted({n.domain for n in _all(model) if n.domain}),
        control_flow=[f"{n.op_type} {n.name}" for n in model.graph if _has_body(n)],
        data_dependent=_data_dependent(model),
        parts=_parts(job),
        notes=job.report.notes,
        contract=bool(job.contract.inputs or job.contract.roles or job.contract.score),
    )


def _all(model: ir.Model) -> list[ir.Node]:
    from adcompile.ir.graph import all_nodes

    return list(all_nodes(model))


def _parameters(model: ir.Model) -> int:
    tensors = [v.const_value for g in model.graphs() for v in g.initializers.values()]
    return sum(t.size for t in tensors if t is not None and t.dtype.is_floating_point())


def _macs(model: ir.Model) -> int:
    from adcompile.place.cost import work

    return sum(work(node) for node in model.graph)


def _ops(model: ir.Model) -> dict[str, int]:
    return dict(Counter(n.op_type for n in _all(model)).most_common())


def _has_body(node: ir.Node) -> bool:
    from adcompile.ir.model_io import subgraphs_of

    return bool(subgraphs_of(node))


def _data_dependent(model: ir.Model) -> dict[str, int]:
    from adcompile.place.support import DATA_DEPENDENT

    return dict(Counter(n.op_type for n in _all(model) if n.op_type in DATA_DEPENDENT))


def _parts(job: Job) -> list[FoundPart]:
    """The split when a device could run every static node."""
    from adcompile.place.anything import supports
    from adcompile.place.plan import make_plan

    plan = make_plan(job.ir, job.target, supports)
    return [
        FoundPart(
            name=part.name,
            role=part.role,
            rows=part.rows,
            nodes=len(part.nodes),
            macs=part.cost.macs,
            inputs=part.inputs,
            outputs=part.outputs,
        )
        for part in plan.parts
        if part.placement == "device"
    ]


def _show(found: Description) -> None:
    console.say(f"{found.name}: opset {found.opset}, {found.producer or 'no producer named'}")
    console.say(
        f"{found.nodes} nodes, {found.nodes_simplified} after exact simplification; "
        f"{_count(found.parameters)} parameters; {_count(found.macs)} multiply-adds"
        + (" (100 regions per image)" if any(part.rows for part in found.parts) else "")
    )
    rows = [(spec.name, spec.dtype, _shape(spec)) for spec in found.inputs]
    console.table("inputs", ("name", "type", "shape"), rows)
    results = [(s.name, s.dtype, _shape(s), *_taken(found, s.name)) for s in found.outputs]
    console.table("outputs", ("name", "type", "shape", "taken for", "because"), results)
    for note in found.notes:
        console.say(f"note: {note}")
    ops = [f"{op} {n}" for op, n in found.ops.items()]
    console.say("ops: " + ", ".join(ops[:MOST_OPS]) + (", …" if len(ops) > MOST_OPS else ""))
    console.say("control flow: " + (", ".join(found.control_flow) or "none"))
    dependent = ", ".join(f"{op} {n}" for op, n in found.data_dependent.items())
    console.say("sizes that depend on data: " + (dependent or "none"))
    console.table(
        "parts found",
        ("part", "nodes", "work", "runs", "reads", "gives"),
        [
            (
                part.name,
                str(part.nodes),
                _count(part.macs),
                "per region" if part.rows else "per image",
                _shapes(part.inputs),
                _shapes(part.outputs),
            )
            for part in found.parts
        ],
    )


def _taken(found: Description, name: str) -> tuple[str, str]:
    taken = found.taken_for.get(name)
    return ("", "") if taken is None else (taken.role, taken.why)


def _shape(spec: TensorSpec) -> str:
    return "×".join(str(d) for d in spec.shape) or "scalar"


def _shapes(specs: tuple[TensorSpec, ...], most: int = 4) -> str:
    more = f", … ({len(specs)} in all)" if len(specs) > most else ""
    return ", ".join(_shape(spec) for spec in specs[:most]) + more


def _count(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
