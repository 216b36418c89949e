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
    """Executor over a session that is already open; asks *memory* before it computes."""

    family: ClassVar[str] = "cpu"

    def __init__(self, session: Session, name: str = "", memory: Memory | None = None) -> None:
        self.simulated = False
        self.where = "ONNX Runtime CPU, float reference"
        self._session = session
        self._name = name
        self._memory = memory

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Nothing to do: the session was given."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once."""
        if self._memory is None:
            return self._session.run(feeds)
        key = key_of(self._name, feeds, tuple(spec.name for spec in self._session.outputs))
        found = self._memory.recall(key)
        if found is None:
            found = self._session.run(feeds)
            self._memory.keep(key, found)
        return found

    def close(self) -> None:
        """The session ends with its owner."""


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
                    self._executors.append(stack.enter_context(emitted.opened()))
                    continue
                session = stack.enter_context(opened(part.model, threads=self._threads))
                memory = self._memory if part.placement == "device" else None
                self._executors.append(_Float(session, part.name, memory))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._executors.clear()
        self._stack.close()

    def run(self, feeds: Mapping[str, Array], *, tap: Tap | None = None) -> RunResult:
        """Run all parts; *tap* sees every tensor between them."""
        return run_parts(self.schedule, self._executors, feeds, tap=tap)
