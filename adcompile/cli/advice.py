"""What ``check`` suggests: reasons with their fixes, and the precision that would cover more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adcompile.place.reasons import short

if TYPE_CHECKING:
    from adcompile.job import Job
    from adcompile.place.plan import Placed, Plan

NEARLY_ALL = 0.999  # share of multiply-adds in one device part from which nothing else is tried
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


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a model fits a target in one precision: share of multiply-adds on the device, and the parts
    that it falls into there."""

    share: float
    parts: int

    @classmethod
    def of(cls, plan: Plan) -> Coverage:
        """That of a plan; one without a device part covers nothing, also where there is no work."""
        parts = sum(part.placement == "device" for part in plan.parts)
        return cls(round(plan.coverage_macs, 6) if parts else 0.0, parts)

    def better_than(self, other: Coverage) -> bool:
        """Clearly more on the device; or as much in at most half as many parts."""
        if self.share >= other.share + GAIN:
            return True
        return self.share > other.share - GAIN and 2 * self.parts <= other.parts


def other_precisions(job: Job, plan: Plan) -> dict[str, Coverage]:
    """Each other precision that is clearly better covered, the best first.

    Full float is left out: where a target lists it, its parts run on the CPU.
    """
    from adcompile.steps.placing import placed

    covered = Coverage.of(plan)
    if covered.share >= NEARLY_ALL and covered.parts == 1:
        return {}
    found = {
        precision: Coverage.of(placed(job, precision)[0])
        for precision in job.target.precisions
        if precision not in {job.precision, "fp32"}
    }
    better = {name: other for name, other in found.items() if other.better_than(covered)}
    return dict(sorted(better.items(), key=lambda item: (-item[1].share, item[1].parts)))
