"""Mahalanobis distance: mean and inverse covariance of the network's own embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adcompile.anomaly import padim
from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.config import PadimConfig
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.remeasure.constants import constant_head
from adcompile.anomaly.remeasure.kind import Measurement, Site, Work, arrays_of, with_constants
from adcompile.interfaces import Part


class Gaussian:
    """PaDiM's MahalanobisMap with constant mean [C, P] and inverse [P, C, C]."""

    what = "statistics"

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The distance whose statistics are constants."""
        del raw
        return constant_head(parts, "MahalanobisMap")

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """The preset's regulariser."""
        del site, parts
        return {"covariance": chosen.covariance}

    def measure(self, site: Site, work: Work) -> Measurement:
        """Statistics again, of the embedding [1, C, h, w] of each training image."""
        config = work.recipe.config
        assert isinstance(config, PadimConfig)
        mean, _ = arrays_of(work.part, site.constants)
        identity, pooled = padim.regularisers(config, work.recipe.chosen)
        fitted = padim.fit_gaussian(
            lambda images: [np.concatenate([each[0] for each in work.chain.read(images)])],
            work.train,
            work.spec,
            np.arange(mean.shape[0], dtype=np.int64),
            identity,
            pooled_images=pooled,
            batch=config.batch,
            watch=work.watch,
        )
        arrays = dict(zip(site.constants, (fitted.mean, fitted.inverse), strict=True))
        return Measurement(lambda part: with_constants(part, arrays))
