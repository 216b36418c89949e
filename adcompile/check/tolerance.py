"""How far results may be from the reference, per role.

Stored in the manifest as role -> two numbers. A plain role has (rtol, atol); ``ROLE:snr_db`` has
(smallest signal-to-noise ratio in dB, 0) and replaces the plain one; ``detections:matched`` has
(smallest fraction of matched detections, IoU from which two boxes match). The role ``part``
stands for tensors between parts.

    role      a value fits when
    boxes     |difference| <= atol + rtol*|reference|, in pixels; scores and masks likewise
    labels    equal
    others    |difference| <= atol * max(1, largest |reference|) + rtol*|reference|
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ABSOLUTE_ROLES = frozenset({"boxes", "scores", "masks", "score", "labels", "count"})
IOU = 0.5
_MATCHED = "detections:matched"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bound of one comparison. With ``snr_db`` set, only that ratio counts."""

    rtol: float = 0.0
    atol: float = 0.0
    snr_db: float | None = None

    def __str__(self) -> str:
        if self.snr_db is not None:
            return f"SNR ≥ {self.snr_db:g} dB"
        if self.rtol == 0.0 and self.atol == 0.0:
            return "equal"
        return f"atol {self.atol:g}" + (f", rtol {self.rtol:g}" if self.rtol else "")


# R4's bounds for detections: boxes and masks 1e-3, scores 1e-4, labels equal
FLOAT_DEFAULTS: Mapping[str, tuple[float, float]] = {
    "boxes": (0.0, 1e-3),
    "masks": (0.0, 1e-3),
    "scores": (0.0, 1e-4),
    "labels": (0.0, 0.0),
    "count": (0.0, 0.0),
    "score": (1e-4, 1e-4),
    "map": (1e-4, 1e-4),
    "features": (1e-4, 1e-4),
    "tensor": (1e-4, 1e-4),
    "part": (1e-4, 1e-4),
    _MATCHED: (1.0, IOU),
}

# precision -> (SNR of a device part, SNR of outputs, matched detections, |score| of an anomaly, how far
# apart the scores of a detection may be)
_COARSE: Mapping[str, tuple[float, float, float, float, float]] = {
    "fp16": (20.0, 15.0, 0.5, 0.05, 0.2),
    "bf16": (15.0, 10.0, 0.4, 0.1, 0.3),
    "a16w8": (15.0, 10.0, 0.4, 0.1, 0.3),
    "int8": (10.0, 6.0, 0.2, 0.3, 0.5),
    "a8w8": (10.0, 6.0, 0.2, 0.3, 0.5),
    "xint8": (8.0, 5.0, 0.2, 0.3, 0.5),
    "fp8": (10.0, 6.0, 0.2, 0.3, 0.5),
}
EXACT_PRECISIONS = frozenset({"", "fp32", "float32", "tf32"})
_UNKNOWN = (8.0, 5.0, 0.2, 0.3, 0.5)


def default_tolerances(precisions: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Tolerances of a bundle whose device parts have *precisions*; the coarsest one decides.

    All fp32: :data:`FLOAT_DEFAULTS`. Otherwise signal-to-noise bounds, which catch a broken
    network, not a slightly worse one; accuracy is what ``adcompile eval`` is for.
    """
    found = dict(FLOAT_DEFAULTS)
    coarse = [
        _COARSE.get(p, _UNKNOWN) for p in sorted(set(precisions)) if p not in EXACT_PRECISIONS
    ]
    if not coarse:
        return found
    part, output, matched, score, scores = min(coarse)
    found["part:snr_db"] = (part, 0.0)
    for role in ("map", "features", "tensor"):
        found[f"{role}:snr_db"] = (output, 0.0)
    found[_MATCHED] = (matched, IOU)
    found["boxes"] = (0.0, 1e9)  # matching by IoU is the bound; differences are reported
    found["masks"] = (0.0, 1.0)
    found["scores"] = (0.0, scores)  # beyond it a detection is another one: see `score_apart`
    found["score"] = found["raw_score"] = (score, 1e-2)
    return found


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The manifest's table, asked by role; roles it does not know are treated as "tensor"."""

    table: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, recorded: Mapping[str, tuple[float, float]]) -> Tolerances:
        """*recorded* over the fp32 defaults."""
        return cls({**FLOAT_DEFAULTS, **recorded})

    def role(self, role: str) -> Tolerance:
        """The bound of *role*."""
        known = role if role in self.roles else "tensor"
        snr = self.table.get(f"{known}:snr_db")
        return Tolerance(*self.table[known]) if snr is None else Tolerance(snr_db=snr[0])

    @property
    def roles(self) -> list[str]:
        """The roles that have a bound of their own, sorted."""
        return sorted({name.removesuffix(":snr_db") for name in self.table} - {_MATCHED})

    def part(self, precision: str) -> Tolerance:
        """The bound of the tensors that a part of *precision* makes from reference inputs."""
        if precision in EXACT_PRECISIONS:
            return Tolerance(*self.table["part"])
        return self.role("part")

    @property
    def matched(self) -> tuple[float, float]:
        """Smallest fraction of matched detections, and the IoU from which two boxes match."""
        return self.table[_MATCHED]

    @property
    def score_apart(self) -> float:
        """How far apart the scores of two boxes may be that match. Where every one must be found again
        the scores are compared as they are, whichever boxes match."""
        return self.table["scores"][1] if self.matched[0] < 1.0 else math.inf
