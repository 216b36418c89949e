"""``adcompile check``: per node, which target can run it, why not, and what would help."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adcompile.cli import console
from adcompile.cli.advice import Coverage, advice, fix_text, other_precisions
from adcompile.cli.options import (
    Allowed,
    AsJson,
    BackendFile,
    DecoderName,
    InputShapes,
    ModelPath,
    Passes,
    Settings,
    model_options,
)

if TYPE_CHECKING:
    from adcompile.job import Job
    from adcompile.place.plan import Placed, Plan


@dataclass(frozen=True)
class Answer:
    """One target's plan and the story of every node."""

    target: str
    toolchain: str
    plan: Plan
    placed: Sequence[Placed]
    others: Mapping[str, Coverage]  # precisions that are better covered, the best first
    scores: bool  # an anomaly detector

    @property
    def device_parts(self) -> list[str]:
        """Names of the parts that the device runs."""
        return [part.name for part in self.plan.parts if part.placement == "device"]

    def refused(self) -> int:
        """Nodes that the target cannot run or about which nothing is known."""
        return sum(not p.verdict for p in self.placed)


def command(
    model: ModelPath,
    target: Annotated[
        list[str], typer.Option("--target", "-t", help="one or more: trt,npu,drpai (repeat)")
    ],
    precision: Annotated[
        str | None, typer.Option(help="for targets that have it; default: the target's first")
    ] = None,
    input_shape: InputShapes = None,
    settings: Settings = None,
    passes: Passes = None,
    allow: Allowed = None,
    backend_file: BackendFile = None,
    decoder: DecoderName = None,
    strict: Annotated[
        bool,
        typer.Option(help="exit 1 unless every target can run every node and the lint is silent"),
    ] = False,
    min_coverage: Annotated[
        float, typer.Option(help="exit 1 below this share of multiply-adds on the device, 0 … 1")
    ] = 0.0,
    every: Annotated[bool, typer.Option("--all", help="list every node, not groups")] = False,
    as_json: AsJson = False,
) -> None:
    """Say for every node of MODEL which target can run it. Exit 1: nothing runs on a device."""
    from adcompile.cli.prepared import prepared, target_names

    options = model_options(input_shape, settings, passes, allow, backend_file, decoder=decoder)
    with prepared(model, target_names(target), options, precision=precision) as jobs:
        answers = [_answer(job) for job in jobs]
        issues, notes = jobs[0].issues, jobs[0].report.notes
    if as_json:
        listed = [issue.record() for issue in issues]
        targets_found = [_record(a) for a in answers]
        console.emit_json(
            {"model": model.name, "targets": targets_found, "lint": listed, "notes": notes}
        )
    elif every:
        _show_nodes(answers)
    else:
        _show_groups(answers)
    if not as_json:
        _show_summary(answers)
        for note in notes:
            console.say(f"note: {note}")
        for issue in issues:
            console.say(f"lint {issue}")
        for answer in answers:
            if answer.device_parts:
                console.say(f"next: {_build(answer, model)}")
    bad = [
        a
        for a in answers
        if not a.device_parts or a.plan.coverage_macs < min_coverage or (strict and a.refused())
    ]
    if bad or (strict and issues):
        raise typer.Exit(1)


def _answer(job: Job) -> Answer:
    from adcompile.steps.placing import placed

    plan, nodes = placed(job)
    return Answer(
        target=job.target.name,
        toolchain=job.target.toolchain,
        plan=plan,
        placed=nodes,
        others=other_precisions(job, plan),
        scores=job.contract.score is not None,
    )


def _record(answer: Answer) -> dict[str, object]:
    from adcompile.ir.graph import provenance

    return {
        "target": answer.target,
        "toolchain": answer.toolchain,
        "precision": answer.plan.precision,
        "coverage_nodes": answer.plan.coverage_nodes,
        "coverage_macs": answer.plan.coverage_macs,
        "device_parts": answer.device_parts,
        "other_precisions": {name: other.share for name, other in answer.others.items()},
        "refused": answer.refused(),
        "notes": list(answer.plan.notes),
        "nodes": [
            {
                "name": p.node.name,
                "op": p.node.op_type,
                "domain": p.node.domain,
                "source_nodes": list(provenance(p.node)),
                "macs": p.macs,
                "part": p.part,
                "placement": p.placement,
                "state": p.verdict.state,
                "reason": p.why.reason,
                "fix": p.why.fix,
                "fix_exactness": p.why.fix_exactness,
                "knowledge": p.why.source,
            }
            for p in answer.placed
        ],
    }


def _cell(placed: Placed) -> str:
    """The full answer for one node on one target."""
    if placed.placement == "device":
        return "device" + (f" (!) {placed.why.reason}" if placed.why.reason else "")
    return f"{_MARKS[placed.verdict.state]}: {placed.why.reason}"


def _kind(placed: Placed) -> str:
    """The answer in a few words."""
    if placed.placement == "device":
        return "device (!)" if placed.why.reason else "device"
    return f"{_MARKS[placed.verdict.state]}: {placed.why.about or placed.why.reason}"


_MARKS = {"unsupported": "no", "unknown": "unknown", "supported": "host"}


def _show_groups(answers: Sequence[Answer]) -> None:
    """Nodes with the same answers in one line, the most work first.

    Targets may see different graphs (each has passes of its own), so there is a table per target
    unless all see the same nodes.
    """
    for together in _same_nodes(answers):
        placed = together[0].placed
        total = sum(p.macs for p in placed) or 1
        groups: dict[tuple[str, ...], list[int]] = {}
        for i in range(len(placed)):
            groups.setdefault(tuple(_kind(a.placed[i]) for a in together), []).append(i)
        macs = {key: sum(placed[i].macs for i in g) for key, g in groups.items()}
        ordered = sorted(groups.items(), key=lambda item: (-macs[item[0]], -len(item[1])))
        console.table(
            ", ".join(f"{a.target} {a.plan.precision}" for a in together),
            ("nodes", "work", *(a.target for a in together), "ops"),
            [
                (str(len(group)), _share(macs[key], total), *key, _ops(placed, group))
                for key, group in ordered
            ],
        )


def _build(answer: Answer, model: Path) -> str:
    """The build that follows, in the precision that covers most."""
    from adcompile.target import FLOAT_PRECISIONS

    precision = next(iter(answer.others), answer.plan.precision)
    words = ["adcompile", "build", str(model), "-t", answer.target, "--precision", precision]
    images = "--data GOOD_IMAGES --val GOOD_AND_BAD_IMAGES" if answer.scores else "--calib IMAGES"
    given = "" if precision in FLOAT_PRECISIONS else f" {images}"
    return f"{shlex.join(words)}{given} -o out"


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def _share(macs: int, total: int) -> str:
    return f"{macs / total:.1%}" if macs else ""


def _ops(placed: Sequence[Placed], group: Sequence[int], most: int = 6) -> str:
    counts = Counter(placed[i].node.op_type for i in group).most_common()
    text = ", ".join(f"{count} {op}" for op, count in counts[:most])
    return text + (", …" if len(counts) > most else "")


def _same_nodes(answers: Sequence[Answer]) -> list[list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.plan.structure, []).append(answer)
    return list(groups.values())


def _show_nodes(answers: Sequence[Answer]) -> None:
    for answer in answers:
        console.table(
            f"{answer.target} {answer.plan.precision}",
            ("node", "op", "part", "answer", "fix"),
            [
                (
                    p.node.name or "",
                    p.node.op_type,
                    p.part,
                    _cell(p),
                    fix_text(p.why.fix, p.why.fix_exactness),
                )
                for p in answer.placed
            ],
        )


MOST_FIXES = 8


def _show_summary(answers: Sequence[Answer]) -> None:
    for answer in answers:
        plan = answer.plan
        parts = ", ".join(answer.device_parts)
        share = f"{plan.coverage_nodes:.0%} of nodes and {plan.coverage_macs:.2%} of multiply-adds"
        console.say(
            f"{answer.target} ({answer.toolchain}, {plan.precision}): "
            + (f"{share} on the device: {parts}" if parts else "nothing on the device")
            + (f" ({_parts(count)})" if (count := len(answer.device_parts)) > 1 else "")
        )
        for precision, other in answer.others.items():
            share = f"{other.share:.2%} of multiply-adds on the device"
            console.say(f"  --precision {precision}: {share}, in {_parts(other.parts)}")
        lines = advice(answer.placed)
        for line in lines[:MOST_FIXES]:
            console.say(f"  {line}")
        if len(lines) > MOST_FIXES:
            console.say(f"  … and {len(lines) - MOST_FIXES} more, see --all")
        for note in plan.notes:
            console.say(f"  note: {note}")
