"""Mahalanobis distance: mean and inverse covariance of the network's own embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adcompile.anomaly import padim
from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.config import PadimConfig
from adcompile.anomaly.maps import Array
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.recognise.describe import head_nodes
from adcompile.anomaly.remeasure.constants import constant_head
from adcompile.anomaly.remeasure.kind import Measurement, Site, Work, arrays_of, with_constants
from adcompile.anomaly.statistics import ROLES
from adcompile.interfaces import Part


class Gaussian:
    """PaDiM's distance with constant mean and inverse covariance, or factors of the latter."""

    what = "statistics"
    trained = True

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The distance whose statistics are constants."""
        del raw
        reason = ""
        for op_type in ROLES:
            found = constant_head(parts, op_type)
            if isinstance(found, Site):
                return found
            reason = reason or found
        return reason

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """The preset's regulariser."""
        del site, parts
        return {"covariance": chosen.covariance}

    def measure(self, site: Site, work: Work) -> Measurement:
        """Statistics again, of the embedding [1, C, h, w] of each training image."""
        config = work.recipe.config
        assert isinstance(config, PadimConfig)
        mean, _ = arrays_of(work.part, site.constants)
        reader = next(
            n
            for n in head_nodes(work.part.model, *ROLES)
            if tuple(v.name for v in n.inputs[1:] if v is not None) == site.constants
        )
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
        measured: list[Array] = [getattr(fitted, role) for role in ROLES[reader.op_type]]
        arrays = dict(zip(site.constants, measured, strict=True))
        return Measurement(lambda part: with_constants(part, arrays))
