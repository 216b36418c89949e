"""Shared settings: one Hypothesis profile, so that a loaded machine does not fail a property; and
no skipped test in CI."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.no_skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

settings.register_profile(
    "adcompile",
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("adcompile")
