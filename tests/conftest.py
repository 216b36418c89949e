"""Shared settings: one Hypothesis profile, so that a loaded machine does not fail a property."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "adcompile",
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("adcompile")
