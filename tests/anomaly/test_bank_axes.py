"""What the choice of axes assumes about the C++ search is what the C++ search does."""

from __future__ import annotations

import re

from adcompile.anomaly.bank_axes import BOX, COUNTS, GROUP, SMALL_AXES, SMALL_ROWS
from adcompile.anomaly.bank_int8 import LANES
from adcompile.native import SOURCES


def constants() -> dict[str, int]:
    text = "".join((SOURCES / n).read_text() for n in ("bank_kernels.hpp", "bank_worker.hpp"))
    return {n: int(v) for n, v in re.findall(r"constexpr int (k\w+) = (\d+);", text)}


def test_limits_of_the_search() -> None:
    """``Worker::is_small`` and the layout of groups and boxes."""
    found = constants()
    lanes = found["kLanes"]
    assert lanes == LANES
    assert lanes * found["kDensePanels"] == SMALL_ROWS
    assert lanes * found["kCopiedPanels"] == SMALL_AXES
    assert lanes * found["kGroupPanels"] == GROUP
    assert found["kBoxAxes"] == BOX
    assert found["kMaxAxes"] == COUNTS[-1]
