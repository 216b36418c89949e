"""Region rows: every policy gives the same rows, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.errors import FormatError, InputError
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.executor import Array
from adcompile.runtime.roi import RowPlan, run_rows


class Doubler:
    """Doubles rows; remembers the row counts it was called with."""

    family: ClassVar[str] = "test"
    simulated = False
    where = "test"

    def __init__(self, rows_out: int = 0) -> None:
        self.calls: list[int] = []
        self.rows_out = rows_out

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        rows = np.asarray(feeds["rows"], dtype=np.float32)
        self.calls.append(len(rows))
        return {"out": (rows * 2 + feeds["bias"])[: self.rows_out or None]}

    def close(self) -> None: ...


def part(**options: str) -> PartRecord:
    return PartRecord(
        name="head",
        placement="device",
        role="head",
        executor="test",
        precision="fp32",
        inputs=(
            TensorSpec(name="rows", dtype="float32", shape=("n", 3)),
            TensorSpec(name="bias", dtype="float32", shape=(1, 3)),
        ),
        outputs=(TensorSpec(name="out", dtype="float32", shape=("n", 3)),),
        files={},
        options=options,
        rows="roi",
    )


POLICIES = [
    {},
    {"roi_policy": "loop"},
    {"roi_policy": "bucket", "roi_buckets": "4,1,16"},
    {"roi_policy": "whole"},
    {"roi_policy": "profile"},
    {"roi_policy": "host"},
]


@given(rows=st.integers(0, 40), options=st.sampled_from(POLICIES))
def test_every_policy_gives_the_same_rows(rows: int, options: dict[str, str]) -> None:
    """Results do not depend on how rows are cut; without rows the device is not called."""
    data = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    bias = np.ones((1, 3), np.float32)
    executor = Doubler()
    plan = RowPlan.of(part(**options))
    assert plan is not None
    found, calls = run_rows(plan, executor, {"rows": data, "bias": bias})
    assert np.array_equal(found["out"], data * 2 + 1)
    assert calls == len(executor.calls)
    assert (calls == 0) == (rows == 0)


@pytest.mark.parametrize(
    ("rows", "calls"), [(1, [1]), (2, [4]), (4, [4]), (5, [16]), (16, [16]), (18, [16, 4])]
)
def test_buckets_take_the_smallest_that_fits(rows: int, calls: list[int]) -> None:
    """More rows than the largest bucket become several calls."""
    executor = Doubler()
    plan = RowPlan.of(part(roi_policy="bucket", roi_buckets="1,4,16"))
    assert plan is not None
    run_rows(plan, executor, {"rows": np.ones((rows, 3), np.float32), "bias": np.zeros((1, 3))})
    assert executor.calls == calls


def test_images_are_not_cut() -> None:
    """A part without regions has no row plan."""
    assert RowPlan.of(part().model_copy(update={"rows": ""})) is None


@pytest.mark.parametrize(
    "options",
    [
        {"roi_policy": "magic"},
        {"roi_policy": "bucket"},
        {"roi_policy": "bucket", "roi_buckets": "a,b"},
        {"roi_policy": "bucket", "roi_buckets": "0,4"},
    ],
)
def test_bad_options(options: dict[str, str]) -> None:
    """An unknown policy or useless buckets are refused before anything runs."""
    with pytest.raises(FormatError):
        RowPlan.of(part(**options))


def test_a_device_that_loses_rows_is_noticed() -> None:
    """Wrong row counts never shift results silently."""
    plan = RowPlan.of(part(roi_policy="bucket", roi_buckets="4"))
    assert plan is not None
    feeds = {"rows": np.ones((3, 3), np.float32), "bias": np.zeros((1, 3), np.float32)}
    with pytest.raises(FormatError, match="returned 2 rows for 4"):
        run_rows(plan, Doubler(rows_out=2), feeds)


def test_row_counts_must_agree() -> None:
    """Two row inputs of different length are an error."""
    two = part().model_copy(
        update={
            "inputs": (
                TensorSpec(name="rows", dtype="float32", shape=("n", 3)),
                TensorSpec(name="bias", dtype="float32", shape=("n", 3)),
            )
        }
    )
    plan = RowPlan.of(two)
    assert plan is not None
    with pytest.raises(InputError, match="different numbers of rows"):
        run_rows(plan, Doubler(), {"rows": np.ones((2, 3)), "bias": np.ones((3, 3))})


def test_empty_results_need_known_shapes() -> None:
    """Zero rows with an unknown row shape is said, not guessed."""
    unknown = part().model_copy(
        update={"outputs": (TensorSpec(name="out", dtype="float32", shape=("n", "m")),)}
    )
    plan = RowPlan.of(unknown)
    assert plan is not None
    with pytest.raises(FormatError, match="not known"):
        run_rows(plan, Doubler(), {"rows": np.ones((0, 3)), "bias": np.ones((1, 3))})
