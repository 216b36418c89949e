"""Which images a head is measured on again, and on which others the result is judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adcompile.anomaly.config import FitConfig
from adcompile.anomaly.layouts import detect
from adcompile.anomaly.samples import DataSet, Sample, SplitOptions, share
from adcompile.anomaly.sources import read_data
from adcompile.errors import InputError, UsageError


@dataclass(frozen=True)
class Images:
    """Normal images to measure from, images that set the threshold, and images to judge on.

    ``train`` is empty where only images to judge were given. ``judged`` are ``validation`` itself when
    there are no others. ``fresh`` is False when the
    validation images were split off the normal ones: trained networks may have seen them.
    """

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    judged: tuple[Sample, ...]
    fresh: bool
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> tuple[Sample, ...]:
        """Normal images that were kept apart; all of ``train`` when there are none."""
        return tuple(s for s in self.validation if not s.label) or self.train

    @property
    def others(self) -> int:
        """How many images set the threshold without being judged."""
        return 0 if self.judged == self.validation else len(self.validation)


def read_images(
    data: Path | None, val: Path | None, config: FitConfig | None, seed: int
) -> Images:
    """Divide *data* (and *val*) as the fit of *config* does; with *seed* and the defaults without.

    A folder of normal images only gives some of them for the threshold; without *data* nothing is
    trained on. Raises InputError when nothing is left to take a threshold from.
    """
    split = SplitOptions(seed=seed)
    if data is None:
        return _only_judged(val, split if config is None else _as_fitted(config))
    category = ""
    if config is not None:
        split = _as_fitted(config)
        category = config.category_in(data)
    validation = split.validation
    if data.is_dir() and not category and detect(data) == "images":
        # a folder without labels: keep some of its images apart only when there are no others
        validation = "train" if val is None else "same"
    found = read_data(data, replace(split, validation=validation), category=category)
    tested = found if val is None else _judges(val, split, found.train)
    if not tested.validation:
        raise InputError("no validation image", where=str(val or data), fix="give --val DIR")
    notes = found.notes if val is None else (*found.notes, *tested.notes)
    return Images(
        found.train,
        tested.validation,
        tested.test or tested.validation,
        fresh=val is not None or not _inside(found),
        notes=tuple(dict.fromkeys(notes)),
    )


def _as_fitted(config: FitConfig) -> SplitOptions:
    return SplitOptions(config.test_ratio, config.validation, config.seed)


def _only_judged(val: Path | None, split: SplitOptions) -> Images:
    """Half of *val*'s images set the threshold, the other half is judged; none is trained on."""
    if val is None:
        raise UsageError("no images were given", fix="--data GOOD_IMAGES or --val DIR")
    tested = _judges(val, split, ())
    if not any(not s.label for s in tested.validation):
        raise InputError(
            "no normal validation image",
            where=str(val),
            why="threshold and calibration need some",
            fix="good and bad images in --val DIR, or normal ones in --data DIR",
        )
    judged = tested.test or tested.validation
    return Images((), tested.validation, judged, fresh=True, notes=tested.notes)


def _inside(data: DataSet) -> bool:
    """True when the validation images were taken from the normal ones."""
    return not any(s.label for s in (*data.validation, *data.test))


def _judges(folder: Path, split: SplitOptions, used: tuple[Sample, ...]) -> DataSet:
    """Labelled images: those that the fit would test on, and normal ones nobody trained on.

    In layouts with a folder of training images those are left out; elsewhere every normal image
    that is not *used* is judged too.
    """
    data = read_data(folder, split)
    known = {sample.path.resolve() for sample in used}
    more = [s for s in data.train if s.path.resolve() not in known]
    if data.layout in {"mvtec", "r1"} and (data.validation or data.test):
        more = []
    if not more:
        return data
    labelled = [*dict.fromkeys([*data.validation, *data.test]), *more]
    rest, held = share(labelled, 0.5, split.seed)
    if split.validation == "same" or not any(s.label for s in labelled):
        rest = held = tuple(labelled)
    return replace(data, validation=held, test=rest)
