"""Nearest-neighbour search: the bank is selected again from the network's own features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adcompile.anomaly import patchcore
from adcompile.anomaly.chain import RawNames
from adcompile.anomaly.config import PatchcoreConfig
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.remeasure.constants import constant_head
from adcompile.anomaly.remeasure.kind import (
    Measurement,
    Site,
    Work,
    arrays_of,
    check_finite,
    part_called,
    with_constants,
)
from adcompile.errors import InputError
from adcompile.interfaces import Part


class Bank:
    """PatchCore's KnnSearch over a constant bank [M, C]."""

    what = "bank"
    trained = True

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The search whose bank is a constant."""
        del raw
        return constant_head(parts, "KnnSearch")

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """A bank of the same number of rows."""
        del chosen
        (bank,) = arrays_of(part_called(parts, site.part), site.constants)
        return {"coreset_rows": len(bank)}

    def measure(self, site: Site, work: Work) -> Measurement:
        """Coreset again, from the features of the training images."""
        config = work.recipe.config
        assert isinstance(config, PatchcoreConfig)
        (old,) = arrays_of(work.part, site.constants)
        found = work.chain.values(work.train, work.spec, "features", work.watch)
        rows = check_finite(np.concatenate([each[0] for each in found]))
        if rows.shape[1] != old.shape[1]:
            raise InputError("features and bank differ in width", why=f"{rows.shape[1]}")
        bank = patchcore.build_bank(rows, config, work.recipe.chosen, work.watch)
        return Measurement(
            lambda part: with_constants(part, {site.constants[0]: bank}),
            {"rows": (len(old), len(bank))},
            bank,
        )
