"""What ``check`` suggests: reasons with their fixes, and the precision that would cover more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adcompile.place.reasons import short

if TYPE_CHECKING:
    from adcompile.job import Job
    from adcompile.place.plan import Placed, Plan

NEARLY_ALL = 0.999  # share of multiply-adds on the device above which no other precision is tried
GAIN = 0.01  # a precision is worth a word from this share on


def advice(placed: Sequence[Placed]) -> list[str]:
    """Cautions and suggested fixes, the most work first; one line per reason."""
    groups: dict[tuple[str, str, bool], list[Placed]] = {}
    for p in placed:
        device = p.placement == "device"
        if p.why.reason and (p.why.fix or device):
            key = (short(p.why.reason), fix_text(p.why.fix, p.why.fix_exactness), device)
            groups.setdefault(key, []).append(p)
    ordered = sorted(groups.items(), key=lambda item: (-_macs(item[1]), -len(item[1]), item[0]))
    return [
        f"{'caution, ' if device else ''}{_ops(group)}: {reason}" + (f" -> {fix}" if fix else "")
        for (reason, fix, device), group in ordered
    ]


def fix_text(fix: str, exactness: str) -> str:
    """A fix and what it does to the numbers."""
    return f"{fix} [{exactness}]" if fix and exactness else fix


def _ops(group: Sequence[Placed]) -> str:
    return ", ".join(f"{n} {op}" for op, n in Counter(p.node.op_type for p in group).most_common())


def _macs(group: Sequence[Placed]) -> int:
    return sum(p.macs for p in group)


def other_precisions(job: Job, plan: Plan) -> dict[str, float]:
    """Share of multiply-adds on the device in each other precision that covers clearly more.

    Full float is left out: where a target lists it, its parts run on the CPU.
    """
    from adcompile.place.plan import place_nodes
    from adcompile.steps.placing import in_float

    covered = _coverage(plan)
    if covered >= NEARLY_ALL:
        return {}
    found: dict[str, float] = {}
    for precision in job.target.precisions:
        if precision in {job.precision, "fp32"}:
            continue
        other, _ = place_nodes(
            job.ir,
            job.target,
            job.backend.supports,
            precision=precision,
            in_float=in_float(job),
        )
        if _coverage(other) >= covered + GAIN:
            found[precision] = round(_coverage(other), 6)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _coverage(plan: Plan) -> float:
    """The share; a plan without a device part covers nothing, also where there is no work."""
    on_device = any(part.placement == "device" for part in plan.parts)
    return plan.coverage_macs if on_device else 0.0
