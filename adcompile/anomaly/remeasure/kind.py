"""What every kind of head has in common: where it is, what it reads, how it is measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from adcompile.anomaly.chain import Chain, RawNames
from adcompile.anomaly.config import FitConfig
from adcompile.anomaly.maps import Array
from adcompile.anomaly.parts import Watch
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import Sample
from adcompile.contract import Preprocess
from adcompile.errors import InputError, ModelError
from adcompile.interfaces import Part
from adcompile.ir.constants import refill
from adcompile.ir.graph import constant


@dataclass(frozen=True)
class Site:
    """Where a head was found: its part, the values it reads from the network, its constants.

    ``reads`` are names of values that the chain is to hand out; ``constants`` names of
    initializers. ``rows_per_image`` is the number of feature rows of one image (search only).
    """

    part: str
    reads: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    rows_per_image: int = 1


@dataclass(frozen=True)
class Recipe:
    """How the head was made the first time: configuration and preset of the fit."""

    config: FitConfig
    chosen: Preset


@dataclass(frozen=True)
class Work:
    """What a kind measures with.

    ``chain`` runs the lowered parts; ``part`` is the one that holds the head. ``train`` are normal
    images, ``held`` normal images that were kept apart from them (the same ones when none were).
    """

    chain: Chain
    part: Part
    train: tuple[Sample, ...]
    held: tuple[Sample, ...]
    spec: Preprocess
    recipe: Recipe
    watch: Watch


@dataclass(frozen=True)
class Measurement:
    """What was measured: how the part changes, and numbers to show as name to (before, now)."""

    change: Callable[[Part], Part]
    numbers: Mapping[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )
    bank: Array | None = None
    notes: tuple[str, ...] = ()


class HeadKind(Protocol):
    """One kind of head, and how its constants are measured again.

    ``what`` names them in reports: bank, statistics, quantiles, threshold. ``trained`` ones are made
    from the normal images that a fit trains on, others from images that were kept apart.
    """

    what: str
    trained: bool

    def find(self, parts: Sequence[Part], raw: RawNames) -> Site | str:
        """The head in the host parts; else why not: "" when there is nothing of this kind."""
        ...

    def defaults(self, site: Site, parts: Sequence[Part], chosen: Preset) -> Mapping[str, object]:
        """Hyper-parameters for a head of this size, for models without a configuration of a fit."""
        ...

    def measure(self, site: Site, work: Work) -> Measurement:
        """New constants from the chain's values."""
        ...


def arrays_of(part: Part, names: Sequence[str]) -> list[Array]:
    """The float32 arrays behind initializers of *part*."""
    found = [constant(part.model.graph.initializers[name]) for name in names]
    if any(array is None for array in found):
        raise ModelError("the head's constants cannot be read", where=part.name)
    return [np.asarray(array, dtype=np.float32) for array in found]


def part_called(parts: Sequence[Part], name: str) -> Part:
    """The part of that name."""
    return next(part for part in parts if part.name == name)


def with_constants(part: Part, arrays: Mapping[str, Array]) -> Part:
    """The part with other arrays behind the named initializers."""
    model = part.model.clone()
    for name, array in arrays.items():
        refill(model.graph.initializers[name], array)
    return replace(part, model=model)


def check_finite(array: Array) -> Array:
    """The array; InputError when the network gave something that is not finite."""
    if not np.isfinite(array).all():
        raise InputError("the network gives features that are not finite")
    return array
