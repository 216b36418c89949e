"""What ``check``, ``plan`` and ``inspect`` share: a model brought to the point where it is placed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from adcompile.cli import console
from adcompile.cli.options import parse_words
from adcompile.contract import Contract
from adcompile.errors import UsageError
from adcompile.fileset import scratch
from adcompile.job import BuildOptions, Job
from adcompile.steps import load as loading
from adcompile.steps import rewriting


@contextmanager
def prepared(
    model: Path, targets: Sequence[str], options: BuildOptions, *, precision: str | None = None
) -> Generator[list[Job]]:
    """A job per target, with its model after the steps load to prepare; nothing is written.

    *precision* is used by the targets that have it, the others take their default.
    """
    plain = replace(options, precision=None, cache=False, golden_count=0)
    with scratch() as work, console.watching("load") as watch:
        jobs = [Job.create(name, None, plain, watch, work) for name in targets]
        _set_precision(jobs, precision)
        _bring_along(jobs, model)
        yield jobs


def contract_of(model: Path) -> Contract:
    """What a model declares, or what is read from its graph: as a build reads it."""
    options = BuildOptions(cache=False, golden_count=0)
    with scratch() as work:
        job = Job.create("cpu", None, options, None, work)
        _bring_along([job], model)
        return job.contract


def _set_precision(jobs: list[Job], precision: str | None) -> None:
    if precision is None:
        return
    able = [job for job in jobs if precision in job.target.precisions]
    if not able:
        known = dict.fromkeys(p for job in jobs for p in job.target.precisions)
        raise UsageError(
            f"no target here has the precision {precision!r}",
            fix="use one of: " + ", ".join(known),
        )
    for job in able:
        job.precision = precision


def _bring_along(jobs: list[Job], model: Path) -> None:
    """Everything that does not depend on the target is done once."""
    first = jobs[0]
    loading.load(first, model)
    for step in _COMMON:
        step(first)
    common = first.ir
    for job in jobs:
        job.source, job.contract, job.ir = first.source, first.contract, common.clone()
        rewriting.prepare(job)


_COMMON: tuple[Callable[[Job], None], ...] = (
    rewriting.specialize,
    rewriting.canonicalize,
    rewriting.raise_heads,
)


def target_names(text: list[str]) -> list[str]:
    """``["trt,npu", "drpai"]`` as three names, each once."""
    names = parse_words(text)
    if not names or not all(names):
        raise UsageError("no target given", fix="--target trt,npu,drpai")
    return list(dict.fromkeys(names))
