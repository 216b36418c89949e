"""Named score formulas: what each reference system really computes, as contracts.

| preset | metric | weighting | deep layers | map | decision |
|---|---|---|---|---|---|
| ``r0`` | Euclidean | own k, farthest | nearest | nearest, no blur | ``>=`` |
| ``r1_host`` | squared | none, k 1 | bilinear | patch grid | ``>`` |
| ``r2`` | squared | own k, farthest | nearest | bilinear, σ 4, symmetric border | ``>=`` |
| ``r3`` | Euclidean | neighbours of nearest | nearest | nearest, σ 4 | ``>=`` |
| ``anomalib`` | Euclidean | neighbours of nearest | bilinear | nearest, σ 4 | ``>`` |
| ``paper`` | Euclidean | neighbours of nearest | bilinear | bilinear, σ 4 | ``>=`` |

For PaDiM: ``r1_host`` (squared form, patch grid), ``r3`` and ``anomalib`` (root, bilinear, σ 4).
For the VAE: ``r1`` (mean squared error of the image) and ``local`` (largest deviation of the
error from what is usual at its place).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from adcompile.anomaly.maps import Upsampling
from adcompile.anomaly.threshold import ThresholdOptions
from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD, Preprocess, Score
from adcompile.errors import UsageError

FirstCentre = Literal["kept", "dropped", "index0"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A score formula with the habits around it.

    ``deep_upsampling`` belongs to the embedding (it is part of the graph). ``first_centre`` says
    what the system does with the starting point of its coreset. ``covariance`` is the multiple of
    the identity added to PaDiM's covariance.
    """

    name: str
    score: Score
    preprocess: Preprocess
    deep_upsampling: Upsampling
    threshold: ThresholdOptions
    first_centre: FirstCentre = "kept"
    covariance: float = 0.01


def _image(
    side: int, *, resize_to: int | None = None, resample: str = "pil_bilinear", plain: bool = False
) -> Preprocess:
    mean, std = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if plain else (IMAGENET_MEAN, IMAGENET_STD)
    values: dict[str, object] = {
        "size": (side, side),
        "resample": resample,
        "mean": mean,
        "std": std,
    }
    if resize_to is not None:
        values |= {"resize_to": (resize_to, resize_to), "crop": (side, side)}
    return Preprocess.model_validate(values)


def _patchcore(name: str, **fields: object) -> Score:
    return Score.model_validate({"method": "patchcore", "preset": name, **fields})


_PATCHCORE: dict[str, Preset] = {
    "r0": Preset(
        "r0",
        _patchcore("r0", k=9, weighting="own_neighbours", map_upsampling="nearest"),
        _image(224),
        "nearest",
        ThresholdOptions(range_of="maps"),
    ),
    "r1_host": Preset(
        "r1_host",
        _patchcore("r1_host", metric="squared_l2", k=1, map_upsampling="none", compare=">"),
        _image(256, resample="cv_bilinear"),
        "bilinear",
        ThresholdOptions(normalisation="none"),
        first_centre="dropped",
    ),
    "r2": Preset(
        "r2",
        _patchcore(
            "r2",
            metric="squared_l2",
            k=9,
            weighting="own_neighbours",
            map_upsampling="bilinear",
            blur_sigma=4.0,
            blur_border="symmetric",
        ),
        _image(224, resize_to=256),
        "nearest",
        ThresholdOptions(normalisation="none"),
        first_centre="index0",
    ),
    "r3": Preset(
        "r3",
        _patchcore("r3", k=9, weighting="paper", map_upsampling="nearest", blur_sigma=4.0),
        _image(224, resample="cv_bilinear"),
        "nearest",
        ThresholdOptions(range_of="maps_and_scores"),
        first_centre="dropped",
    ),
    "anomalib": Preset(
        "anomalib",
        _patchcore(
            "anomalib",
            k=9,
            weighting="paper",
            map_upsampling="nearest",
            blur_sigma=4.0,
            compare=">",
        ),
        _image(224, resize_to=256),
        "bilinear",
        ThresholdOptions(range_of="maps_and_scores"),
        first_centre="dropped",
    ),
    "paper": Preset(
        "paper",
        _patchcore("paper", k=9, weighting="paper", map_upsampling="bilinear", blur_sigma=4.0),
        _image(224, resize_to=256),
        "bilinear",
        ThresholdOptions(range_of="maps_and_scores"),
    ),
}


def _padim(name: str, **fields: object) -> Score:
    return Score.model_validate({"method": "padim", "preset": name, "k": 1, **fields})


_PADIM: dict[str, Preset] = {
    "r1_host": Preset(
        "r1_host",
        _padim("r1_host", square_root=False, map_upsampling="none", compare=">"),
        _image(256, resample="cv_bilinear"),
        "nearest",
        ThresholdOptions(normalisation="none"),
    ),
    "r3": Preset(
        "r3",
        _padim("r3", map_upsampling="bilinear", blur_sigma=4.0),
        _image(256, resample="cv_bilinear"),
        "nearest",
        ThresholdOptions(range_of="maps_and_scores"),
    ),
    "anomalib": Preset(
        "anomalib",
        _padim("anomalib", map_upsampling="bilinear", blur_sigma=4.0, compare=">"),
        _image(256),
        "nearest",
        ThresholdOptions(range_of="maps_and_scores"),
        covariance=0.01 + 1e-5,
    ),
}

_EFFICIENTAD: dict[str, Preset] = {
    "anomalib": Preset(
        "anomalib",
        Score(
            method="efficientad", preset="anomalib", k=1, map_upsampling="bilinear", compare=">"
        ),
        _image(256, plain=True),
        "bilinear",
        ThresholdOptions(range_of="maps_and_scores"),
    ),
}

_VAE: dict[str, Preset] = {
    "r1": Preset(
        "r1",
        Score(method="vae", preset="r1", k=1, map_upsampling="none", compare=">"),
        _image(256, plain=True),
        "bilinear",
        ThresholdOptions(range_of="scores"),
    ),
    "local": Preset(
        "local",
        Score(
            method="vae",
            preset="local",
            k=1,
            map_upsampling="nearest",
            blur_sigma=1.5,
            compare=">",
        ),
        _image(64, plain=True),
        "bilinear",
        ThresholdOptions(range_of="maps_and_scores"),
    ),
}

PRESETS: dict[str, dict[str, Preset]] = {
    "patchcore": _PATCHCORE,
    "padim": _PADIM,
    "efficientad": _EFFICIENTAD,
    "vae": _VAE,
}
"""Method to preset name to preset."""

DEFAULT_PRESET = {
    "patchcore": "r0",
    "padim": "anomalib",
    "efficientad": "anomalib",
    "vae": "local",
}


def preset(method: str, name: str = "", *, side: int | None = None) -> Preset:
    """The named preset of a method (its default without a name), for inputs of *side* pixels.

    A preset that resizes and crops keeps its 256:224 proportion.
    """
    table = PRESETS.get(method)
    if table is None:
        raise UsageError(f"no method is called {method!r}", fix=f"one of {', '.join(PRESETS)}")
    found = table.get(name or DEFAULT_PRESET[method])
    if found is None:
        raise UsageError(
            f"{method} has no scoring preset {name!r}", fix=f"one of {', '.join(table)}"
        )
    if side is None:
        return found
    old = found.preprocess
    fields: dict[str, object] = {"size": (side, side)}
    if old.crop is not None:
        resized = round(side * 256 / 224)
        fields |= {"crop": (side, side), "resize_to": (resized, resized)}
    changed = Preprocess.model_validate(old.model_dump() | fields)
    return replace(found, preprocess=changed)
