"""Models and parts, executed by ONNX Runtime: the reference that all else is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from adcompile.check.emitted import EmittedPart
from adcompile.check.memory import Memory, key_of
from adcompile.fileset import scratch
from adcompile.interfaces import Part
from adcompile.ir import model_io
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.executor import Array, Executor
from adcompile.runtime.runner import RunResult, Schedule, Tap, run_parts
from adcompile.runtime.session import EXACT_INTEGERS, Session, open_session

IN_MEMORY = 1 << 30  # models with more weights than this are opened from a scratch file


@contextlib.contextmanager
def opened(
    model: ir.Model, *, optimize: bool = True, threads: int | None = None
) -> Generator[Session]:
    """A session on an in-memory model; large weights go through a scratch folder."""
    where = model.graph.name or "model"
    if model_io.weight_bytes(model) <= IN_MEMORY:
        data = model_io.to_bytes(model)
        session = open_session(
            data, optimize=optimize, threads=threads, config=EXACT_INTEGERS, where=where
        )
        del data
        yield session
        return
    with scratch() as folder:
        path = folder / "model.onnx"
        model_io.save_model(model, path)
        yield open_session(
            path, optimize=optimize, threads=threads, config=EXACT_INTEGERS, where=where
        )


class _Float:
    """Executor over a session that is already open."""

    family: ClassVar[str] = "cpu"

    def __init__(self, session: Session) -> None:
        self.simulated = False
        self.where = "ONNX Runtime CPU, float reference"
        self._session = session

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Nothing to do: the session was given."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once."""
        return self._session.run(feeds)

    def close(self) -> None:
        """The session ends with its owner."""


class _Remembering:
    """An open executor that asks its memory before it computes."""

    family: ClassVar[str] = "cpu"

    def __init__(self, executor: Executor, part: PartRecord, memory: Memory) -> None:
        self.simulated = executor.simulated
        self.where = executor.where
        self._executor = executor
        self._part = (part.name, tuple(spec.name for spec in part.outputs))
        self._memory = memory

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Nothing to do: it is open."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Recall, or execute once and keep."""
        key = key_of(*self._part, feeds)
        found = self._memory.recall(key)
        if found is None:
            found = dict(self._executor.run(feeds))
            self._memory.keep(key, found)
        return found

    def close(self) -> None:
        """The executor ends with its owner."""


class FloatParts:
    """The float models of parts in execution order; sessions live inside the ``with`` block.

    Parts named in *instead* run as a bundle would run them. Device parts ask *memory* first: it
    must have seen no other models of these parts.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        threads: int | None = None,
        instead: Mapping[str, EmittedPart] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.parts = tuple(parts)
        self._threads = threads
        self._instead = dict(instead or {})
        self._memory = memory
        self._records = [
            self._instead[part.name].record
            if part.name in self._instead
            else part.record("cpu", "fp32", {})
            for part in parts
        ]
        names = [spec.name for spec in inputs], [spec.name for spec in outputs]
        self.schedule = Schedule.of(self._records, *names)
        self._executors: list[Executor] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> FloatParts:
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                if part.name in self._instead:
                    emitted = self._instead[part.name]
                    executor = stack.enter_context(emitted.opened())
                    if self._memory is not None:
                        executor = _Remembering(executor, emitted.record, self._memory)
                    self._executors.append(executor)
                    continue
                session = stack.enter_context(opened(part.model, threads=self._threads))
                plain = _Float(session)
                kept = self._memory is not None and part.placement == "device"
                record = part.record("cpu", "fp32", {})
                self._executors.append(
                    _Remembering(plain, record, self._memory) if kept and self._memory else plain
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._executors.clear()
        self._stack.close()

    def run(self, feeds: Mapping[str, Array], *, tap: Tap | None = None) -> RunResult:
        """Run all parts; *tap* sees every tensor between them."""
        return run_parts(self.schedule, self._executors, feeds, tap=tap)
