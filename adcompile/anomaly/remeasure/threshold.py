"""Any other detector with a score: its threshold and range are all there is to measure again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.remeasure.kind import Measurement, Site, Work
from adcompile.interfaces import Part


class Threshold:
    """A raw score behind which nothing but a normalisation follows (the VAE, and what is unknown)."""

    what = "threshold"
    trained = False

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The part that makes the raw score."""
        for part in parts:
            if any(v.name == raw.score for node in part.model.graph for v in node.outputs):
                return Site(part.name)
        return f"no part makes {raw.score}"

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """Nothing to choose."""
        del site, parts, chosen
        return {}

    def measure(self, site: Site, work: Work) -> Measurement:
        """Nothing: threshold and range follow for every kind of head."""
        del site, work
        return Measurement(lambda part: part)
