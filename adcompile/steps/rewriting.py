"""Steps 2 to 5: passes over the whole graph, all of them printed in the manifest."""

from __future__ import annotations

from dataclasses import replace

from adcompile.interfaces import Pass
from adcompile.job import Job
from adcompile.rewrite.canonical import canonical_pipeline, raise_pipeline, specialize_pipeline
from adcompile.rewrite.pipeline import Pipeline, find_pass
from adcompile.rewrite.verify import Verify


def specialize(job: Job) -> None:
    """Fix input shapes, and fold what became constant."""
    _run(job, "specialize", specialize_pipeline(job.options.input_shapes))


def canonicalize(job: Job) -> None:
    """Target-independent exact rewrites, then the user's own passes."""
    _run(job, "canonicalize", canonical_pipeline())
    own = [_own_pass(item) for item in job.options.passes]
    if own:
        _run(job, "own passes", Pipeline(tuple(own)))


def raise_heads(job: Job) -> None:
    """Recognise known heads and replace them by ops of the adcompile domain."""
    _run(job, "raise", raise_pipeline())


def prepare(job: Job) -> None:
    """The target's own rewrites, then a last clean-up of what they left."""
    own = tuple(job.backend.prepare(job.target))
    if own:
        _run(job, "prepare", Pipeline(own))
