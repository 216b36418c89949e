"""The plan: which nodes run where, in parts with names. YAML that can be edited and used again.

plan = make_plan(model, target, supports, precision="xint8")
text = plan.dump()
plan = parse_plan(text)             # the same plan
parts = apply_plan(model, plan)     # models of their own, in execution order
"""

from __future__ import annotations

from adcompile.place.apply import apply_plan
from adcompile.place.planner import make_plan
from adcompile.place.schema import Cost, PartPlan, Plan, Settings, Why, parse_plan

__all__ = [
    "Cost",
    "PartPlan",
    "Plan",
    "Settings",
    "Why",
    "apply_plan",
    "make_plan",
    "parse_plan",
]
