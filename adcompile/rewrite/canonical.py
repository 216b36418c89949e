"""The standard pipeline: what every model goes through before a target sees it."""

from __future__ import annotations

from adcompile.rewrite.pipeline import Pipeline

# target-independent, exact, to a fixed point
CANONICAL = (
    "check-weights,bind-defaults,inline-functions,upsample-to-resize,"
    "(infer-shapes,fold-shapes,fold-constants,inline-control-flow,clean-up,fold-affine,"
    "merge-reshapes,trim-control-flow,dedupe-constants,common-subexpressions,dead-code)*"
)


def canonical() -> Pipeline:
    """The canonical pipeline."""
    return Pipeline.parse(CANONICAL)
