"""Student/teacher and autoencoder maps: the quantiles that put both on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.recognise.map_sum import MapSum, find_map_sum, with_scales
from adcompile.anomaly.remeasure.kind import Measurement, Site, Work, check_finite
from adcompile.anomaly.scoring import MAP_SHARE, MAP_VALUE, quantiles_of
from adcompile.errors import ModelError
from adcompile.interfaces import Part

FAR = 4.0
"""A quantile range that changed by more than this factor is not quantization alone."""


class MapQuantiles:
    """EfficientAD's two error maps, each scaled by quantiles of its values on normal images.

    A single scaled map needs none of this: its scale changes score and threshold alike.
    """

    what = "quantiles"
    trained = False

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The host part in which the raw map is a sum of two scaled error maps."""
        reason = ""
        for part in parts:
            if part.placement != "host":
                continue
            found = find_map_sum(part.model, raw.map)
            if isinstance(found, MapSum):
                return Site(part.name, tuple(each.error.name or "" for each in found.maps))
            reason = reason or found
        return reason

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """Nothing to choose."""
        del site, parts, chosen
        return {}

    def measure(self, site: Site, work: Work) -> Measurement:
        """Quantiles of both maps over normal images that were kept apart, as the fit takes them."""
        name = work.chain.raw.map
        found = work.chain.values(work.held, work.spec, "quantiles", work.watch)
        maps = [[check_finite(each[i]) for each in found] for i in range(len(site.reads))]
        quantiles = quantiles_of(*maps)
        scales = quantiles.scales()
        before = _sum_in(work.part, name)
        numbers: dict[str, tuple[float, float]] = {}
        notes: list[str] = []
        for each, scale in zip(before.maps, scales, strict=True):
            old, new = (MAP_SHARE * MAP_VALUE / gain for gain in (each.gain, scale.gain))
            label = f"{each.sources} quantile range"
            numbers[label] = (old, new)
            if not 1 / FAR <= new / old <= FAR:
                notes.append(
                    f"{label} was {old:.3g}, now {new:.3g}: quantization alone does not do that; "
                    "are the images like those the detector was fitted on?"
                )
        return Measurement(
            lambda part: with_scales(part, name, [(s.gain, s.shift) for s in scales]),
            numbers,
            notes=tuple(notes),
        )


def _sum_in(part: Part, name: str) -> MapSum:
    found = find_map_sum(part.model, name)
    if isinstance(found, str):
        raise ModelError("the sum of the error maps is gone", where=part.name, why=found)
    return found
