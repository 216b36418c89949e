"""All kinds of head, and which of them a detector has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.remeasure.bank import Bank
from adcompile.anomaly.remeasure.gaussian import Gaussian
from adcompile.anomaly.remeasure.kind import HeadKind, Site
from adcompile.anomaly.remeasure.quantiles import MapQuantiles
from adcompile.anomaly.remeasure.threshold import Threshold
from adcompile.errors import UsageError
from adcompile.interfaces import Part

KINDS: tuple[HeadKind, ...] = (Bank(), Gaussian(), MapQuantiles(), Threshold())
"""In the order they are tried; the last takes every detector with a score."""


@dataclass(frozen=True)
class Head:
    """A detector's head: its kind, where it is, and why no earlier kind took it ("" mostly)."""

    kind: HeadKind
    site: Site
    raw: RawNames
    reason: str = ""

    @property
    def remade(self) -> str:
        """What is made again, in words."""
        what = self.kind.what
        return what if what == "threshold" else f"{what} and threshold"


def find_head(parts: Sequence[Part], raw: RawNames, *, train: bool = True) -> Head:
    """The head among *parts*; UsageError when nothing makes the raw score.

    Without images to *train* on, kinds that need them are left to the last one, with the reason.
    """
    reason = ""
    for kind in KINDS:
        site = kind.find(parts, raw)
        if isinstance(site, Site) and kind.trained and not train:
            reason = (
                f"a {kind.what} of the quantized network's features needs normal training images, "
                "which --data GOOD_IMAGES gives; the float network's stays"
            )
        elif isinstance(site, Site):
            return Head(kind, site, raw, reason)
        else:
            reason = reason or site
    raise UsageError("the detector has no raw score to measure", why=reason)
