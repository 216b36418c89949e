"""The plan: which nodes run where, in parts with names. YAML that can be edited and used again.

plan = make_plan(model, target, supports, precision="xint8")
text = plan.dump()
plan = parse_plan(text)             # the same plan
parts = apply_plan(model, plan)     # models of their own, in execution order
"""

from __future__ import annotations

from adcompile.place.apply import apply_plan
from adcompile.place.planner import Placed, make_plan, place_nodes
from adcompile.place.review import Objection, review
from adcompile.place.schema import Cost, PartPlan, Plan, Settings, Why, parse_plan, read_plan

__all__ = [
    "Cost",
    "Objection",
    "PartPlan",
    "Placed",
    "Plan",
    "Settings",
    "Why",
    "apply_plan",
    "make_plan",
    "parse_plan",
    "place_nodes",
    "read_plan",
    "review",
]
