"""The stage pipeline: order, equality with serial work, errors, bounded reading."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.detection.stream import Pipeline, Stage
from adcompile.errors import UsageError


def _uneven(value: int) -> int:
    """Later frames overtake earlier ones."""
    time.sleep(0.004 if value % 3 == 0 else 0.0)
    return value * 2


@given(st.integers(0, 25), st.integers(1, 4), st.integers(1, 3))
def test_order_and_values_are_serial(count: int, workers: int, depth: int) -> None:
    """Rule: any number of workers gives the serial results in the serial order."""
    line: Pipeline[int, int] = Pipeline(
        [Stage("a", _uneven, workers), Stage("b", lambda x: x + 1), Stage("c", _uneven, workers)],
        depth=depth,
    )
    assert list(line.run(range(count))) == list(line.serial(range(count)))


def test_arrays_are_equal_to_the_byte() -> None:
    """Rule: array results are byte-equal to serial work."""
    rng = np.random.default_rng(0)
    frames = [rng.random((60, 60)) for _ in range(8)]
    line: Pipeline[np.ndarray, np.ndarray] = Pipeline(
        [Stage("mul", lambda a: a @ a, 2), Stage("exp", np.exp, 2)]
    )
    ran = [a.tobytes() for a in line.run(frames)]
    assert ran == [a.tobytes() for a in line.serial(frames)]


def test_stages_overlap() -> None:
    """Rule: while one frame is in a stage, the next one is in the stage before."""
    both = threading.Barrier(2, timeout=10)

    def meet(value: int) -> int:
        # Frame 0 in the second stage waits for frame 1 in the first one, and so on.
        both.wait()
        return value

    def first(value: int) -> int:
        return value if value == 0 else meet(value)

    def second(value: int) -> int:
        return value if value == 5 else meet(value)

    line: Pipeline[int, int] = Pipeline([Stage("a", first), Stage("b", second)])
    assert list(line.run(range(6))) == list(range(6))


def test_an_error_comes_after_the_frames_before_it() -> None:
    """Rule: as in serial work, results before the failing frame arrive, then its error."""

    def fail(value: int) -> int:
        if value == 20:
            raise ValueError("frame 10")
        return value

    line: Pipeline[int, int] = Pipeline([Stage("a", _uneven, 3), Stage("b", fail, 2)])
    for work in (line.run, line.serial):
        got: list[int] = []
        with pytest.raises(ValueError, match="frame 10"):
            got.extend(work(range(40)))
        assert got == [2 * i for i in range(10)]
    assert threading.active_count() == 1


def test_an_error_of_the_source() -> None:
    """Rule: an error while reading frames reaches the caller after the good frames."""

    def camera() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("unplugged")

    got: list[int] = []
    line: Pipeline[int, int] = Pipeline([Stage("a", _uneven, 2)])
    with pytest.raises(OSError, match="unplugged"):
        got.extend(line.run(camera()))
    assert got == [2, 4]


def test_leaving_early_stops_the_threads() -> None:
    """Rule: an endless source is read only a little ahead, and leaving ends every thread."""
    read: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    line: Pipeline[int, int] = Pipeline([Stage("a", _uneven, 2), Stage("b", _uneven)], depth=2)
    results = line.run(endless())
    assert next(results) == 0
    time.sleep(0.1)
    results.close()
    assert threading.active_count() == 1
    assert len(read) <= 1 + 7 + 1


def test_one_slow_frame_does_not_pile_up_results() -> None:
    """Rule: frames under way are bounded even when one worker is stuck on the first frame."""
    gate = threading.Event()
    most: list[int] = []

    def work(value: int) -> int:
        if value == 0:
            gate.wait(10)
        return value

    def frames() -> Iterator[int]:
        for value in range(500):
            most.append(value)
            yield value

    line: Pipeline[int, int] = Pipeline([Stage("a", work, 2)], depth=2)
    results = line.run(frames())
    threading.Timer(0.3, lambda: (most.append(-len(most)), gate.set())).start()
    assert list(results) == list(range(500))
    reached = -min(most)
    assert 1 <= reached <= 5


def test_times_and_frame_rate() -> None:
    """Rule: every stage reports its frames and busy time, the run its frames per second."""
    line: Pipeline[int, int] = Pipeline([Stage("a", _uneven, 2), Stage("b", abs)])
    assert line.report.fps == 0.0
    list(line.run(range(9)))
    report = line.report
    assert [(s.name, s.workers, s.frames) for s in report.stages] == [("a", 2, 9), ("b", 1, 9)]
    assert report.frames == 9
    assert report.stages[0].seconds >= 3 * 0.004
    assert report.fps == pytest.approx(9 / report.seconds)


def test_bad_counts_are_refused() -> None:
    """Rule: no stages, no workers, no room: usage errors."""
    for stages, depth in (([], 1), ([Stage("a", abs, 0)], 1), ([Stage("a", abs)], 0)):
        with pytest.raises(UsageError):
            Pipeline(stages, depth=depth)
