"""The standard pipeline: what every model goes through before a target sees it."""

from __future__ import annotations

from collections.abc import Sequence

from adcompile.passes.specialize import Specialize
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


def specialize_for(shapes: Sequence[str], *, static: bool = False) -> Pipeline:
    """Fix input shapes (``name=1x3x320x320``), then canonicalize."""
    return Pipeline((Specialize(shapes=tuple(shapes), static=static),)) + canonical()
