"""Steps 2 to 5: passes over the whole graph, all of them printed in the manifest."""

from __future__ import annotations

from adcompile.dims import dims_text
from adcompile.interfaces import Pass
from adcompile.job import Job
from adcompile.passes.bind_defaults import BindDefaults
from adcompile.passes.name_nodes import NameNodes
from adcompile.passes.specialize import Specialize
from adcompile.rewrite.canonical import canonical
from adcompile.rewrite.pipeline import Pipeline
from adcompile.steps import heads
from adcompile.steps.approximating import approximate
from adcompile.steps.own_passes import run_own


def specialize(job: Job) -> None:
    """Fix input shapes, and fold what became constant."""
    passes: list[Pass] = [BindDefaults(), NameNodes()]
    shapes = job.shapes
    if shapes:
        texts = tuple(f"{n}={dims_text(s)}" for n, s in sorted(shapes.items()))
        passes.append(Specialize(shapes=texts))
    _run(job, "specialize", Pipeline(tuple(passes)))


def canonicalize(job: Job) -> None:
    """Target-independent exact rewrites, then the user's own passes."""
    _run(job, "canonicalize", canonical())
    run_own(job)


def raise_heads(job: Job) -> None:
    """Recognise known heads and replace them by ops of the adcompile domain."""
    _run(job, "raise", heads.raising())
    heads.describe_head(job)
    heads.lint_contract(job)
    if job.options.head == "device":
        starts = heads.head_starts(job)
        _run(job, "embed head", heads.embedding_passes(job))
        heads.keep_head_exact(job, starts)


def prepare(job: Job) -> None:
    """What the user allowed, the target's own rewrites, then a clean-up of what they left."""
    allowed = approximate(job)
    if allowed.passes:
        job.pipeline.append(f"approximate: {allowed}")
    own = tuple(job.backend.prepare(job.target))
    if own or allowed.passes:
        _run(job, "prepare", Pipeline(own) + canonical())
    _run(job, "names", Pipeline((NameNodes(),)))  # plans list nodes by name


def _run(job: Job, step: str, pipeline: Pipeline) -> None:
    if not pipeline.passes:
        return
    job.watch(step)
    pipeline.run(job.ir, job.report)
    job.pipeline.append(f"{step}: {pipeline}")
