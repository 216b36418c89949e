"""Make a plan: judge every node, colour the graph, split it, trim it, name the parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Facts, Verdict
from adcompile.ir.graph import tensor_spec
from adcompile.place import naming
from adcompile.place.cost import coverage, nbytes, work
from adcompile.place.facts import facts_of
from adcompile.place.memory import activation_bytes, too_large, weight_bytes
from adcompile.place.partition import (
    AT,
    DEVICE,
    HOST,
    ROI,
    Flow,
    flow_of,
    is_roi,
    precision_of,
    split,
)
from adcompile.place.reasons import short
from adcompile.place.schema import Cost, PartPlan, Plan, Settings, Why, structure_of
from adcompile.place.select import matches
from adcompile.place.trim import Trimming, loose_ends, small, worth
from adcompile.target import COARSE_PRECISIONS, Target, check_precision, opset_range

Supports = Callable[[ir.Node, Facts], Verdict]

PINNED_HOST = "kept on the host by the user"
ROI_ON_HOST = "roi_policy host keeps what runs per region on the host"


@dataclass(frozen=True, slots=True)
class Better:
    """Why a node is better off the device, and in which precisions of the device that holds."""

    why: Verdict
    than: frozenset[str] = COARSE_PRECISIONS


def make_plan(
    model: ir.Model,
    target: Target,
    supports: Supports,
    *,
    precision: str | None = None,
    options: Settings | None = None,
    in_float: Mapping[str, Better] | None = None,
) -> Plan:
    """Split *model* for *target*. Shapes must have been inferred; nothing is changed.

    Nodes named in *in_float* stay on the host, for the reason given there, where the device would
    compute them in a precision named there and the user did not pin them to it.

    Raises UsageError when a selector names nothing or pins a node that the target cannot run.
    """
    return place_nodes(
        model, target, supports, precision=precision, options=options, in_float=in_float
    )[0]


@dataclass(frozen=True, slots=True)
class Placed:
    """One node of a plan: what the target's table says, and where the node runs and why."""

    node: ir.Node
    part: str
    placement: str
    verdict: Verdict
    why: Verdict
    macs: int


def place_nodes(
    model: ir.Model,
    target: Target,
    supports: Supports,
    *,
    precision: str | None = None,
    options: Settings | None = None,
    in_float: Mapping[str, Better] | None = None,
) -> tuple[Plan, list[Placed]]:
    """Like :func:`make_plan`, with the story of every node."""
    settings = options or Settings()
    facts = facts_of(model, target, check_precision(target, precision))
    flow = flow_of(model.graph)
    _check_names(flow)
    state = _placement(flow, facts, supports, settings, in_float or {})
    plan = state.plan(model)
    return plan, state.placed(plan)


def _placement(
    flow: Flow,
    facts: Facts,
    supports: Supports,
    settings: Settings,
    in_float: Mapping[str, Better],
) -> _Placement:
    """Judge, colour and settle. Selectors by role look at a first split in any precision."""
    roles: dict[str, set[int]] = {}
    if any(s.startswith("role:") for s in settings.selectors()):
        anything = replace(facts, precision=facts.target.precisions[-1])
        plain = settings.model_copy(update={"device": (), "host": (), "precisions": {}})
        roles = _placement(flow, anything, supports, plain, {}).members_by_role()
    precisions: dict[int, str] = {}
    for selector, wanted in settings.precisions.items():
        check_precision(facts.target, wanted)
        precisions |= dict.fromkeys(matches(flow.nodes, (selector,), roles), wanted)
    verdicts = [
        supports(node, replace(facts, precision=precisions.get(i, facts.precision)))
        for i, node in enumerate(flow.nodes)
    ]
    state = _Placement(flow, facts, settings, verdicts, precisions, roles, in_float)
    state.settle()
    return state


def _check_names(flow: Flow) -> None:
    seen: set[str] = set()
    for node in flow.nodes:
        name = node.name or ""
        if not name or name in seen:
            raise UsageError(
                "the model's nodes are not named apart",
                where=f"{node.op_type} node {name!r}",
                why="a plan lists nodes by name",
                fix="run the canonical pipeline first: it names every node",
            )
        seen.add(name)


class _Placement:
    """Colours and reasons of one model while they are being settled."""

    def __init__(
        self,
        flow: Flow,
        facts: Facts,
        settings: Settings,
        verdicts: Sequence[Verdict],
        precisions: Mapping[int, str],
        roles: Mapping[str, set[int]],
        in_float: Mapping[str, Better],
    ) -> None:
        self.flow = flow
        self.in_float = in_float
        self.facts = facts
        self.settings = settings
        self.verdicts = verdicts
        self.policy = settings.roi_policy or facts.target.facts.get("roi_policy", "whole")
        self.why: dict[int, Verdict] = {}
        self.precisions = precisions
        self.kept = matches(flow.nodes, settings.host, roles)
        self.pinned = self._pins(roles)
        self.colours = [self._colour(i) for i in range(len(flow.nodes))]
        self.pieces: list[int] = []
        per_call = {"loop": 1, "bucket": max(settings.roi_buckets)}.get(
            self.policy, settings.roi_rows
        )
        self.how = Trimming(
            float_inside=facts.target.facts.get("float_inside", "true") == "true",
            rows=settings.roi_rows,
            roi_calls=-(-settings.roi_rows // per_call),
            min_macs=settings.min_macs,
            keep_small=settings.keep_small,
            min_layers=facts.target.limits.get("min_conv", 0),
            pinned=frozenset(self.pinned),
        )

    def _pins(self, roles: Mapping[str, set[int]]) -> set[int]:
        chosen = matches(self.flow.nodes, self.settings.device, roles)
        for i in sorted(chosen):
            if self.verdicts[i].state == "unsupported":
                node = self.flow.nodes[i]
                raise UsageError(
                    f"cannot pin {node.name!r} to the device",
                    where=f"{node.op_type} on {self.facts.target.name}",
                    why=self.verdicts[i].reason,
                    fix=self.verdicts[i].fix or "leave it to the host",
                )
        both = sorted(chosen & self.kept)
        if both:
            raise UsageError(
                "a node is pinned to the device and to the host",
                where=self.flow.nodes[both[0]].name or "",
                fix="make the selectors narrower",
            )
        return chosen

    def _colour(self, i: int) -> str:
        node, verdict = self.flow.nodes[i], self.verdicts[i]
        if i in self.kept:
            return self._to_host(i, Verdict.no(PINNED_HOST, source="user"))
        if not verdict and i not in self.pinned:
            return self._to_host(i, verdict)
        better = self.in_float.get(node.name or "")
        own = self.precisions.get(i, self.facts.precision)
        if better is not None and own in better.than and i not in self.pinned:
            return self._to_host(i, better.why)
        values = (*node.inputs, *node.outputs)
        if any(v is not None and v.name in self.facts.rows for v in values):
            if self.policy == "host":
                return self._to_host(i, Verdict.no(ROI_ON_HOST, source="user"))
            return self._with_precision(ROI, i)
        return self._with_precision(DEVICE, i)

    def _with_precision(self, kind: str, i: int) -> str:
        own = self.precisions.get(i, self.facts.precision)
        return kind if own == self.facts.precision else f"{kind}{AT}{own}"

    def _to_host(self, i: int, why: Verdict) -> str:
        self.why[i] = why
        return HOST

    def settle(self) -> None:
        """Split and give back, until nothing more is given back. Each round shrinks the device."""
        while True:
            self.pieces = split(self.flow, self.colours)
            back = loose_ends(self.flow, self.colours, self.pieces, self.how)
            if not back:
                back = small(self.flow, self.colours, self.pieces, self.how)
            if not back:
                return
            for i, why in back.items():
                self.colours[i] = self._to_host(i, why)

    def members(self) -> dict[int, list[int]]:
        """Positions per piece."""
        found: dict[int, list[int]] = {}
        for i, piece in enumerate(self.pieces):
            found.setdefault(piece, []).append(i)
        return found

    def members_by_role(self) -> dict[str, set[int]]:
        """Positions per role of a piece."""
        roles = naming.roles(self.flow, self.colours, self.pieces)
        found: dict[str, set[int]] = {}
        for i, piece in enumerate(self.pieces):
            found.setdefault(roles[piece], set()).add(i)
        return found

    def plan(self, model: ir.Model) -> Plan:
        """The settled state as a plan."""
        members = self.members()
        roles = naming.roles(self.flow, self.colours, self.pieces)
        names = naming.names(roles)
        parts = [
            self._part(names[piece], roles[piece], members[piece]) for piece in sorted(members)
        ]
        chosen = {n for n, c in zip(self.flow.nodes, self.colours, strict=True) if c != HOST}
        nodes, macs = coverage(self.flow.nodes, chosen, self.settings.roi_rows)
        return Plan(
            model=model.graph.name or "model",
            structure=structure_of(self.flow.nodes),
            target=self.facts.target.name,
            precision=self.facts.precision,
            settings=self.settings,
            coverage_nodes=round(nodes, 6),
            coverage_macs=round(macs, 6),
            notes=self._notes(parts),
            parts=tuple(parts),
        )

    def placed(self, plan: Plan) -> list[Placed]:
        """Every node in execution order."""
        home = {name: part for part in plan.parts for name in part.nodes}
        return [
            Placed(
                node=node,
                part=home[node.name or ""].name,
                placement=home[node.name or ""].placement,
                verdict=self.verdicts[i],
                why=self.why.get(i, self.verdicts[i]),
                macs=work(node, self.settings.roi_rows),
            )
            for i, node in enumerate(self.flow.nodes)
        ]

    def _part(self, name: str, role: str, members: list[int]) -> PartPlan:
        colour = self.colours[members[0]]
        value = worth(self.flow, self.colours, members, self.how)
        inputs, outputs = boundary(self.flow, members)
        device = colour != HOST
        rows = self.settings.roi_rows
        precision = (precision_of(colour) or self.facts.precision) if device else "fp32"
        nodes = [self.flow.nodes[i] for i in members] if device else []
        at_once = 1 if self.policy == "loop" else rows
        return PartPlan(
            name=name,
            placement="device" if device else "host",
            role=role,
            precision=precision,
            rows="roi" if is_roi(colour) else "",
            options=self._roi_options() if is_roi(colour) else {},
            inputs=tuple(tensor_spec(v) for v in inputs),
            outputs=tuple(tensor_spec(v) for v in outputs),
            cost=Cost(
                macs=value.macs,
                bytes_in=sum(nbytes(v, rows) for v in inputs),
                bytes_out=sum(nbytes(v, rows) for v in outputs),
                calls=value.calls,
                saved_us=round(value.saved_us) if device else 0,
                boundary_us=round(value.boundary_us) if device else 0,
                weights=weight_bytes(nodes, precision),
                activations=activation_bytes(nodes, outputs, precision, at_once),
            ),
            why=self._reasons(members),
            nodes=tuple(self.flow.nodes[i].name or "" for i in members),
        )

    def _roi_options(self) -> dict[str, str]:
        if self.policy != "bucket":
            return {"roi_policy": self.policy}
        sizes = ",".join(str(size) for size in sorted(set(self.settings.roi_buckets)))
        return {"roi_policy": self.policy, "roi_buckets": sizes}

    def _reasons(self, members: Sequence[int]) -> tuple[Why, ...]:
        """Refusals of a host part, cautions of a device part; most frequent first."""
        groups: dict[Verdict, list[int]] = {}
        for i in members:
            verdict = self.why.get(i, self.verdicts[i])
            if verdict.reason:
                groups.setdefault(replace(verdict, reason=short(verdict.reason)), []).append(i)
        ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
        return tuple(
            Why(
                reason=verdict.reason,
                nodes=len(group),
                ops=tuple(sorted({self.flow.nodes[i].op_type for i in group})),
                refused=not self.verdicts[group[0]],
                fix=verdict.fix,
                fix_exactness=verdict.fix_exactness,
            )
            for verdict, group in ordered
        )

    def _notes(self, parts: Sequence[PartPlan]) -> tuple[str, ...]:
        notes: list[str] = []
        if any(p.rows for p in parts):
            notes.append(
                f"multiply-adds and bytes count {self.settings.roi_rows} regions per image"
            )
        what, fix = too_large(parts, self.facts.target, self.settings.memory_mib)
        if what:
            notes.append(f"{what}; {fix}")
        low, high = opset_range(self.facts.target)
        if not low <= self.facts.opset <= high:
            notes.append(
                f"{self.facts.target.toolchain} reads opsets {low} to {high}: "
                f"device parts are brought there from opset {self.facts.opset}"
            )
        return tuple(notes)


def boundary(flow: Flow, members: Sequence[int]) -> tuple[list[ir.Value], list[ir.Value]]:
    """Values that a part reads from outside and those it must hand out, in order of first use."""
    own = set(members)
    made = {v for i in members for v in flow.nodes[i].outputs}
    inputs = dict.fromkeys(
        v
        for i in members
        for v in flow.reads[i]
        if v not in made and (v.producer() is not None or v.is_graph_input())
    )
    wanted = {v for i in members for j in flow.after[i] if j not in own for v in flow.reads[j]}
    outputs = [
        v for i in members for v in flow.nodes[i].outputs if v in wanted or v.is_graph_output()
    ]
    return list(inputs), outputs
