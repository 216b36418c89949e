"""Where an anomaly head runs: on the host (ops with kernels of their own) or on the device."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from adcompile.anomaly.lint import lint, subject_of
from adcompile.anomaly.recognise.describe import describe, head_nodes
from adcompile.anomaly.recognise.slices import downstream
from adcompile.anomaly.statistics import FILE, USE, statistics_of, without_statistics
from adcompile.errors import Unsupported, UsageError
from adcompile.interfaces import Part
from adcompile.job import Job
from adcompile.passes.embed_head import EmbedHead
from adcompile.passes.name_nodes import NameNodes
from adcompile.place.facts import facts_of
from adcompile.rewrite.canonical import canonical
from adcompile.rewrite.pipeline import Pipeline, known_passes

RAISING = ("raise-anomaly",)


def raising() -> Pipeline:
    """The passes that recognise heads."""
    return Pipeline.parse(",".join(p for p in RAISING if p in known_passes()))


def describe_head(job: Job) -> None:
    """Read the score contract from the graph when nobody declared one, and say so."""
    found = describe(job.ir, job.contract)
    if found.score is not None and job.contract.score is None:
        job.report.note(
            f"{found.score.method} head found in the graph: score formula and threshold are "
            "read from it"
        )
    job.contract = found


def lint_contract(job: Job) -> None:
    """Name contradictions between contract and graph: notes, or an error under ``strict``."""
    job.issues = lint(subject_of(job.ir, job.contract))
    for issue in job.issues:
        job.report.note(f"lint {issue}")
    if job.issues and job.options.strict:
        first = job.issues[0]
        raise Unsupported(
            f"the contract contradicts the graph ({len(job.issues)} times)",
            where=f"{first.where} [{first.rule}]",
            why=first.why,
            fix=first.fix,
        )


def embedding_passes(job: Job) -> Pipeline:
    """For ``--head device``: the head as plain operators. UsageError without a head."""
    if not head_nodes(job.ir):
        raise UsageError(
            "--head device: the model has no anomaly head", where=str(job.ir.graph.name)
        )
    return Pipeline((EmbedHead(),)) + canonical() + Pipeline((NameNodes(),))


def head_starts(job: Job) -> tuple[str, ...]:
    """Names of the values that the head reads from the network."""
    heads = head_nodes(job.ir)
    made = {v for n in downstream([v for n in heads for v in n.outputs]) for v in n.outputs}
    made |= {v for n in heads for v in n.outputs}
    inputs = [v for n in heads for v in n.inputs if v is not None and not v.is_initializer()]
    return tuple(dict.fromkeys(v.name or "" for v in inputs if v not in made))


def keep_head_exact(job: Job, starts: tuple[str, ...]) -> None:
    """The embedded head stays in float32 (distances leave float16), and must be legal everywhere."""
    values = {v.name: v for n in job.ir.graph for v in n.outputs}
    nodes = downstream([values[name] for name in starts if name in values])
    facts = facts_of(job.ir, job.target, job.precision)
    for node in nodes:
        verdict = job.backend.supports(node, facts)
        if not verdict and not _is_decision(node.op_type):
            raise Unsupported(
                f"--head device: {job.target.name} cannot run the head",
                where=f"{node.name} ({node.op_type})",
                why=verdict.reason,
                fix="--head host (the default) runs it with the generated C++ kernels",
            )
    job.float_nodes = tuple(node.name or "" for node in nodes)


def _is_decision(op_type: str) -> bool:
    """Comparisons of the finished score: a few bytes, wherever they run."""
    return op_type in {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def add_statistics(job: Job, part: Part) -> tuple[Part, dict[str, str]]:
    """The statistics of a host part (PaDiM) as a bank file beside its model: the part that names that
    file as the place of its constants, and what its record is to list. Memory banks come with the C++
    project."""
    found = statistics_of(part.model)
    if found is None:
        return part, {}
    identity = hashlib.sha256(job.contract.dump().encode()).hexdigest()
    path = job.files.add(f"parts/{part.name}/{FILE}", found.file(identity))
    return replace(part, model=without_statistics(part.model, found)), {USE: path}
