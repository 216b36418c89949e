"""Normalisation of scores and maps: a clamped affine function becomes NormalizeScore."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.anomaly.recognise.algebra import affine, scalar
from adcompile.anomaly.recognise.slices import upstream
from adcompile.ir.graph import DOMAIN
from adcompile.rewrite.pattern import Any, Const, Match, op
from adcompile.rewrite.rules import Refuse, Rule, rule, typed_like


@rule(op("Clip", Any("x"), Const("low"), Const("high")), opset=13)
def normalized_score(m: Match) -> ir.Node:
    """clip((x - threshold) / range + 0.5, 0, 1) behind an anomaly head."""
    if scalar(m["low"]) != 0.0 or scalar(m["high"]) != 1.0:
        raise Refuse("it does not clamp to 0 … 1")
    found = affine(m["x"])
    if found is None or not found.scale > 0.0:
        raise Refuse("it is not a rising affine function")
    if found.base is m["x"]:
        raise Refuse("it only clamps")
    if all(node.domain != DOMAIN for node in upstream(found.base)):
        raise Refuse("no anomaly head comes before it")
    span = 1.0 / found.scale
    attributes = {"threshold": (0.5 - found.offset) * span, "minimum": 0.0, "maximum": span}
    node = ir.node("NormalizeScore", [found.base], attributes, domain=DOMAIN)
    return typed_like(node, m.output)


RULES: tuple[Rule, ...] = (normalized_score,)
