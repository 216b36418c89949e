"""A pipeline of stages in threads: frames in, results out in the same order, frames per second.

While one frame is in the detector, the next is being decoded and the one before is being drawn.
ONNX Runtime, NumPy's larger operations and Pillow release Python's lock, so stages really overlap.
A stage sees exactly what it would see frame by frame, so results are the same, byte for byte, as
long as its function is: a stage with more than one worker must not keep state between frames.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from adcompile.errors import UsageError

In = TypeVar("In")
Out = TypeVar("Out")
_WAIT = 0.1  # seconds between looks at the stop flag while a queue is full or empty


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline: ``run`` takes what the step before gave."""

    name: str
    run: Callable[..., object]
    workers: int = 1


@dataclass
class StageTime:
    """How long a stage was busy: seconds over all workers, and frames."""

    name: str
    workers: int
    seconds: float = 0.0
    frames: int = 0

    @property
    def mean(self) -> float:
        """Seconds per frame."""
        return self.seconds / self.frames if self.frames else 0.0


@dataclass
class Report:
    """Filled while a pipeline runs. ``seconds`` is from the first frame to the last result."""

    frames: int = 0
    seconds: float = 0.0
    stages: list[StageTime] = field(default_factory=list[StageTime])

    @property
    def fps(self) -> float:
        """Frames per second so far."""
        return self.frames / self.seconds if self.seconds else 0.0


class _Stop(Exception):
    """The reader of the results went away: leave quietly."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """Travels in a frame's place, so that results before it still arrive, as they do serially."""

    error: BaseException


_Item = tuple[int, object]


@dataclass(slots=True)
class _Line:
    """What the threads of one run share."""

    queues: list[queue.Queue[_Item | None]]
    room: threading.Semaphore  # frames that may be under way: bounds memory when one is slow
    stop: threading.Event
    lock: threading.Lock
    report: Report

    def enter(self) -> None:
        while not self.stop.is_set():
            if self.room.acquire(timeout=_WAIT):
                return
        raise _Stop

    def put(self, at: int, item: _Item | None) -> None:
        while not self.stop.is_set():
            try:
                self.queues[at].put(item, timeout=_WAIT)
                return
            except queue.Full:
                continue
        raise _Stop

    def get(self, at: int) -> _Item | None:
        while not self.stop.is_set():
            try:
                return self.queues[at].get(timeout=_WAIT)
            except queue.Empty:
                continue
        raise _Stop


class Pipeline(Generic[In, Out]):
    """Stages joined by bounded queues. Use it for any number of runs, one at a time."""

    def __init__(self, stages: Sequence[Stage], *, depth: int = 2) -> None:
        """``depth``: frames that may wait between two stages. Raises UsageError for bad counts."""
        if not stages:
            raise UsageError("a pipeline needs at least one stage")
        for stage in stages:
            if stage.workers < 1:
                raise UsageError("a stage needs at least one worker", where=stage.name)
        if depth < 1:
            raise UsageError("queues need room for one frame", where=f"depth={depth}")
        self.stages = tuple(stages)
        self.depth = depth
        self.report = self._fresh()

    def serial(self, frames: Iterable[In]) -> Iterator[Out]:
        """The same work, one frame after the other, in the calling thread."""
        report = self.report = self._fresh()
        start = time.perf_counter()
        for frame in frames:
            value: object = frame
            for stage, spent in zip(self.stages, report.stages, strict=True):
                began = time.perf_counter()
                value = stage.run(value)
                spent.seconds += time.perf_counter() - began
                spent.frames += 1
            report.frames += 1
            report.seconds = time.perf_counter() - start
            yield value  # type: ignore[misc] # pyright: ignore[reportReturnType]

    def run(self, frames: Iterable[In]) -> Iterator[Out]:
        """Results in the order of ``frames``, as they are ready.

        Reads ``frames`` in a thread of its own, only as far ahead as the queues hold. An error of a
        stage or of ``frames`` is raised here, after the results of the frames before it. Leaving
        the loop early stops the threads.
        """
        self.report = self._fresh()
        under_way = sum(stage.workers + self.depth for stage in self.stages)
        line = _Line(
            [queue.Queue(self.depth) for _ in range(len(self.stages) + 1)],
            threading.Semaphore(under_way),
            threading.Event(),
            threading.Lock(),
            self.report,
        )
        threads = self._threads(line, frames)
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        try:
            yield from self._ordered(line, start)
        finally:
            line.stop.set()
            for thread in threads:
                thread.join()

    def _fresh(self) -> Report:
        return Report(stages=[StageTime(s.name, s.workers) for s in self.stages])

    def _threads(self, line: _Line, frames: Iterable[In]) -> list[threading.Thread]:
        threads = [threading.Thread(target=_read, args=(line, frames), name="frames")]
        for index, stage in enumerate(self.stages):
            left = [stage.workers]
            threads += [
                threading.Thread(
                    target=_work, args=(line, index, stage, left), name=f"{stage.name}-{n}"
                )
                for n in range(stage.workers)
            ]
        return threads

    def _ordered(self, line: _Line, start: float) -> Iterator[Out]:
        """Hold back what overtook an earlier frame."""
        early: dict[int, object] = {}
        expected = 0
        while (item := line.get(len(self.stages))) is not None:
            early[item[0]] = item[1]
            while expected in early:
                value = early.pop(expected)
                if isinstance(value, _Failed):
                    raise value.error
                expected += 1
                line.room.release()
                line.report.frames = expected
                line.report.seconds = time.perf_counter() - start
                yield value  # type: ignore[misc] # pyright: ignore[reportReturnType]


def _read(line: _Line, frames: Iterable[object]) -> None:
    number = 0
    with contextlib.suppress(_Stop):
        try:
            for frame in frames:
                line.enter()
                line.put(0, (number, frame))
                number += 1
        except _Stop:
            raise
        except BaseException as error:  # raised again in the caller's thread
            line.put(0, (number, _Failed(error)))
        line.put(0, None)


def _work(line: _Line, index: int, stage: Stage, left: list[int]) -> None:
    with contextlib.suppress(_Stop):
        while (item := line.get(index)) is not None:
            number, value = item
            if not isinstance(value, _Failed):
                value = _timed(line, index, stage, value)
            line.put(index + 1, (number, value))
        _finish(line, index, left)


def _timed(line: _Line, index: int, stage: Stage, value: object) -> object:
    began = time.perf_counter()
    try:
        result = stage.run(value)
    except BaseException as error:  # raised again in the caller's thread
        return _Failed(error)
    took = time.perf_counter() - began
    with line.lock:
        spent = line.report.stages[index]
        spent.seconds += took
        spent.frames += 1
    return result


def _finish(line: _Line, index: int, left: list[int]) -> None:
    """Pass the end marker on: to the siblings, and from the last of them to the next stage."""
    with line.lock:
        left[0] -= 1
        last = left[0] == 0
    line.put(index + 1 if last else index, None)
