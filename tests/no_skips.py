"""In CI a skipped test is a failure: everything that a test may need is installed there.

Tests of hardware that CI cannot have carry one of the HARDWARE markers and may be skipped. CI is
where the environment variable ``CI`` is set, as the usual services and ``.ci/run`` do.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

HARDWARE = ("cuda", "trt", "npu", "drpai")  # markers: a GPU twice, an NPU, a board with its SDK


def in_ci() -> bool:
    """True where ``CI`` is set to anything but "", 0 or false."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} must not be skipped in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails, unless it needs hardware or is expected to fail."""
    report = yield
    excused = hasattr(report, "wasxfail") or any(item.get_closest_marker(m) for m in HARDWARE)
    if in_ci() and report.skipped and not excused:
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that skips itself (``importorskip`` at its top) fails."""
    report = yield
    if in_ci() and report.skipped:
        _fail(report)
    return report
