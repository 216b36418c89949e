"""Bank, statistics, threshold and range from the network that really runs, compared with float.

A quantized network gives other features than the float one a bank was built from. So its own
features of the normal images make the bank (coreset again) or the Gaussians (statistics again),
and its own scores the threshold; what that repairs is measured on labelled images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx_ir as ir

from adcompile.anomaly import padim, patchcore
from adcompile.anomaly.chain import Chain, Head
from adcompile.anomaly.config import FitConfig, PadimConfig, PatchcoreConfig
from adcompile.anomaly.detector import Outcome
from adcompile.anomaly.fitting import measured
from adcompile.anomaly.images import batches
from adcompile.anomaly.maps import Array
from adcompile.anomaly.model_folder import Numbers
from adcompile.anomaly.parts import Watch
from adcompile.anomaly.presets import Preset
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import is_anomalous, normalise
from adcompile.contract import Preprocess, Score
from adcompile.errors import InputError
from adcompile.interfaces import Part
from adcompile.ir.graph import DOMAIN


@dataclass(frozen=True)
class Recipe:
    """How the bank was made the first time: configuration and preset of the fit."""

    config: FitConfig
    chosen: Preset


def new_constants(
    chain: Chain,
    head: Head,
    old: Sequence[Array],
    samples: Sequence[Sample],
    spec: Preprocess,
    recipe: Recipe,
    watch: Watch | None,
) -> list[Array]:
    """The head's arrays from the chain's features: bank [M, C], or mean [C, P] and inverse."""
    config = recipe.config
    if head.kind == "knn":
        assert isinstance(config, PatchcoreConfig)
        rows = _rows(chain, samples, spec, watch)
        if rows.shape[1] != old[0].shape[1]:
            raise InputError("features and bank differ in width", why=f"{rows.shape[1]}")
        return [patchcore.build_bank(rows, config, recipe.chosen, watch)]
    assert isinstance(config, PadimConfig)
    identity, pooled = padim.regularisers(config, recipe.chosen)
    gaussian = padim.fit_gaussian(
        lambda images: [np.concatenate(chain.features(images))],
        samples,
        spec,
        np.arange(old[0].shape[0], dtype=np.int64),
        identity,
        pooled_images=pooled,
        batch=config.batch,
        watch=watch,
    )
    return [gaussian.mean, gaussian.inverse]


def _rows(chain: Chain, samples: Sequence[Sample], spec: Preprocess, watch: Watch | None) -> Array:
    found: list[Array] = []
    for images in batches(samples, spec, 1):
        found += chain.features(images)
        if watch is not None:
            watch("features", len(found), len(samples))
    rows = np.concatenate(found)
    if not np.isfinite(rows).all():
        raise InputError("the network gives features that are not finite")
    return rows


def with_new_score(part: Part, score: Score) -> Part:
    """The part with threshold and range of its normalisations as *score* says."""
    copy = part.model.clone()
    for node in copy.graph:
        if node.domain != DOMAIN or not node.op_type.startswith("NormalizeScore"):
            continue
        heat = len(node.outputs[0].shape or ()) == 4
        threshold = score.pixel_threshold if heat else score.threshold
        values = {
            "threshold": threshold,
            "minimum": score.minimum,
            "maximum": score.maximum,
            "std": score.std,
        }
        for name in node.attributes:
            value = values.get(name)
            if value is not None:
                node.attributes[name] = ir.AttrFloat32(name, value)
    return replace(part, model=copy)


def settled(score: Score, scores: Sequence[float]) -> Score:
    """A strict threshold moved to the middle of its gap between two of *scores*.

    A best-F1 threshold lies a float32 step below a score; the graph's normalisation rounds that
    step away, and ``>`` would decide that image otherwise than the threshold says.
    """
    if score.threshold is None or score.compare != ">" or score.normalisation == "none":
        return score
    above = [s for s in scores if s > score.threshold]
    under = [s for s in scores if s <= score.threshold]
    if not above or not under:
        return score
    middle = float(np.float32((min(above) + max(under)) / 2))
    return score.model_copy(update={"threshold": middle})


@dataclass(frozen=True)
class Measured:
    """One variant on the labelled images: its score contract, metrics and decisions."""

    name: str
    score: Score
    image: Numbers
    pixel: Numbers
    scores: tuple[float, ...]
    anomalous: tuple[bool, ...]


def measure(name: str, outcome: Outcome, score: Score) -> Measured:
    """Metrics and decisions of an outcome."""
    found = measured(outcome, score)
    decisions = tuple(bool(d) for d in is_anomalous(outcome.scores, score))
    return Measured(
        name, score, found["image"], found.get("pixel", {}), tuple(outcome.scores), decisions
    )


@dataclass(frozen=True)
class Flip:
    """An image that is decided otherwise than by the float network."""

    image: str
    label: int
    float_score: float
    score: float
    anomalous: bool


@dataclass(frozen=True)
class Rebuilt:
    """Float, quantized with the float bank, quantized with its own: side by side.

    ``before`` and ``after`` are the decisions that differ from float. Scores are normalised.
    """

    kind: str
    rows: tuple[int, int]
    images: int
    variants: tuple[Measured, Measured, Measured]
    before: tuple[Flip, ...]
    after: tuple[Flip, ...]
    note: str = ""

    def shift(self, variant: int) -> float:
        """Mean absolute change of the raw score against float, relative to float's mean."""
        base = np.asarray(self.variants[0].scores)
        gap = np.abs(np.asarray(self.variants[variant].scores) - base).mean()
        return float(gap / max(float(np.abs(base).mean()), 1e-12))

    def table(self) -> list[tuple[str, ...]]:
        """Rows to print: variant, AUROC, F1, threshold, score shift, flips."""
        flips = (0, len(self.before), len(self.after))
        return [
            (
                each.name,
                _number(each.image.get("auroc")),
                _number(each.image.get("f1")),
                f"{each.score.threshold:.4g}",
                f"{100 * self.shift(i):.2f} %",
                str(flips[i]),
            )
            for i, each in enumerate(self.variants)
        ]

    def results(self) -> dict[str, float | str]:
        """For the manifest: one entry per variant and number, and the flipped images."""
        found: dict[str, float | str] = {}
        for i, each in enumerate(self.variants):
            for name in ("auroc", "f1"):
                value = each.image.get(name)
                if value is not None:
                    found[f"{each.name} image_{name}"] = float(value)
            value = each.pixel.get("auroc")
            if value is not None:
                found[f"{each.name} pixel_auroc"] = float(value)
            found[f"{each.name} threshold"] = float(each.score.threshold or 0.0)
            if i:
                found[f"{each.name} score_shift"] = round(self.shift(i), 6)
                flips = self.before if i == 1 else self.after
                found[f"{each.name} decision_flips"] = float(len(flips))
                if flips:
                    found[f"{each.name} flipped_images"] = ", ".join(f.image for f in flips)
        return found

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "kind": self.kind,
            "rows": list(self.rows),
            "images": self.images,
            "note": self.note,
            "variants": [
                {"name": v.name, "image": dict(v.image), "pixel": dict(v.pixel),
                 "score": v.score.model_dump(mode="json")}
                for v in self.variants
            ],
            "flips_before": [asdict(f) for f in self.before],
            "flips_after": [asdict(f) for f in self.after],
        }  # fmt: skip


def _number(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def flips_of(
    reference: Measured, other: Measured, names: Sequence[str], samples: Sequence[Sample]
) -> tuple[Flip, ...]:
    """Images that *other* decides differently, those furthest from float first."""
    base = normalise(reference.scores, reference.score)
    own = normalise(other.scores, other.score)
    found = [
        Flip(names[i], samples[i].label, float(base[i]), float(own[i]), other.anomalous[i])
        for i in range(len(samples))
        if reference.anomalous[i] != other.anomalous[i]
    ]
    return tuple(sorted(found, key=lambda f: (-abs(f.score - f.float_score), f.image)))
