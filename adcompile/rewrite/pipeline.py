"""Pipelines: passes in order, with groups that repeat until nothing changes.

    infer-shapes,(fold-constants,clean-up)*,dead-code

Prints and parses; runs with instruments that watch every pass.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import onnx_ir as ir

from adcompile import registry
from adcompile.errors import AdcompileError, PassError, UsageError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.rewrite.driver import RewritePass
from adcompile.rewrite.options import Reader, make_pass, print_pass, read_options
from adcompile.rewrite.rules import Rule

ROUNDS = 12  # a repeated group that has not settled by then is stopped with a note


class Instrument(Protocol):
    """Watches a pipeline run."""

    def before(self, each: Pass, model: ir.Model) -> None:
        """Called before every pass that is about to run."""
        ...

    def after(self, each: Pass, model: ir.Model, changed: bool, seconds: float) -> None:
        """Called after every pass, with what it said and how long it took."""
        ...


@dataclass(frozen=True)
class Group(Pass):
    """Passes that run again and again until a round changes nothing: ``(a,b)*``."""

    name: ClassVar[str] = "()*"
    passes: tuple[Pass, ...] = ()

    def __str__(self) -> str:
        return f"({','.join(str(Pipeline((p,))) for p in self.passes)})*"


@dataclass(frozen=True)
class Pipeline:
    """A printable sequence of passes."""

    passes: tuple[Pass, ...]

    @classmethod
    def parse(cls, text: str) -> Pipeline:
        """Read pipeline text; unknown passes or options are UsageErrors with suggestions."""
        reader = Reader(text)
        passes = _read_sequence(reader, "")
        return cls(tuple(passes))

    def __str__(self) -> str:
        return ",".join(str(p) if isinstance(p, Group) else print_pass(p) for p in self.passes)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline(self.passes + other.passes)

    def names(self) -> Iterator[str]:
        """Names of all passes, those in groups included."""
        for each in self.passes:
            if isinstance(each, Group):
                yield from Pipeline(each.passes).names()
            else:
                yield each.name

    def run(self, model: ir.Model, report: Report, instruments: Sequence[Instrument] = ()) -> bool:
        """Run all passes in order on *model*, in place; True when anything changed."""
        changed = False
        for each in self.passes:
            if isinstance(each, Group):
                changed = _repeat(each, model, report, instruments) or changed
            else:
                changed = _run(each, model, report, instruments) or changed
        return changed


def _repeat(
    group: Group, model: ir.Model, report: Report, instruments: Sequence[Instrument]
) -> bool:
    changed = False
    idle = 0  # passes in a row that changed nothing
    for _ in range(ROUNDS):
        for each in group.passes:
            if _run(each, model, report, instruments):
                changed = True
                idle = 0
            else:
                idle += 1
            if idle >= len(group.passes):
                return changed
    report.note(f"{group} still changed the model after {ROUNDS} rounds; it was stopped there")
    return changed


def _run(each: Pass, model: ir.Model, report: Report, instruments: Sequence[Instrument]) -> bool:
    approximate = each.exactness is Exactness.APPROXIMATE
    if approximate and not report.allows(each.name):
        raise UsageError(
            f"pass {each.name} is approximate",
            why="it changes what the model computes",
            fix=f"allow it with --allow {each.name}",
        )
    for instrument in instruments:
        instrument.before(each, model)
    start = time.perf_counter()
    try:
        changed = each.run(model, report)
    except AdcompileError:
        raise
    except Exception as error:  # a pass may be anybody's code
        raise PassError(
            f"pass {each.name} failed",
            where=_place(each, error) or model.graph.name or "model",
            why=f"{type(error).__name__}: {error}",
            fix="this is a defect of the pass: mend it, or leave the pass out",
        ) from error
    seconds = time.perf_counter() - start
    for instrument in instruments:
        instrument.after(each, model, changed, seconds)
    return changed


def _place(each: Pass, error: Exception) -> str:
    """File, line and function where *error* left the file of the pass; "" when it is not known."""
    module = sys.modules.get(type(each).__module__)
    file = getattr(module, "__file__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"{file}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""


def _read_sequence(reader: Reader, end: str) -> list[Pass]:
    passes: list[Pass] = []
    while reader.peek() != end:
        passes.append(_read_one(reader))
        if not reader.take(",") and reader.peek() != end:
            raise reader.error("expected ','")
    return passes


def _read_one(reader: Reader) -> Pass:
    if reader.take("("):
        inner = _read_sequence(reader, ")")
        reader.expect(")")
        reader.expect("*")
        if not inner or any(isinstance(p, Group) for p in inner):
            raise reader.error("a group holds at least one pass and no other group")
        return Group(tuple(inner))
    name = reader.word("a pass name")
    return make_pass(find_pass(name), read_options(reader))


def find_pass(name: str) -> type[Pass]:
    """The pass class registered as *name*, or given as ``FILE.py:Name`` or ``module:Name``."""
    found = registry.PASSES.lookup(name)
    if isinstance(found, type) and issubclass(found, Pass):
        return found
    raise UsageError(
        f"{name} is not a pass",
        why="it must be a frozen dataclass derived from adcompile.Pass",
    )


def known_passes() -> Mapping[str, type[Pass]]:
    """Every registered pass by name: built in, and from installed plug-ins."""
    return {name: find_pass(name) for name in registry.PASSES.names()}


def rules_of(kind: type[Pass]) -> Sequence[Rule]:
    """The rules of a rewrite pass; empty for other passes."""
    return kind.rules if issubclass(kind, RewritePass) else ()
