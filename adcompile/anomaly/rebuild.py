"""What measuring a head again on the lowered network repairs, compared with float.

A quantized network gives other features than the float one that bank, statistics, quantiles and
threshold were measured on. So they are measured again on its own (``remeasure``); what that
repairs is said here, on labelled images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from adcompile.anomaly.detector import Outcome
from adcompile.anomaly.fitting import measured
from adcompile.anomaly.model_folder import Numbers
from adcompile.anomaly.samples import Sample
from adcompile.anomaly.threshold import is_anomalous, normalise
from adcompile.contract import Score


def names_of(kind: str) -> tuple[str, str, str]:
    """The three variants that are compared."""
    return "float", f"quantized, float {kind}", f"quantized, own {kind}"


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

    @property
    def wrong(self) -> bool:
        """True when the image is now decided against its label (float decided it right)."""
        return self.anomalous != (self.label == 1)


@dataclass(frozen=True)
class Rebuilt:
    """Float, quantized with the float's constants, quantized with its own: side by side.

    ``kind`` says which constants: bank, statistics, quantiles, threshold. ``numbers`` are those
    that can be shown as one (before, now). ``images`` were judged; ``others`` set the threshold,
    0 when the same images did. ``before`` and ``after`` are the decisions that differ from float,
    with scores on the normalised scale.
    """

    kind: str
    numbers: Mapping[str, tuple[float, float]]
    images: int
    others: int
    variants: tuple[Measured, Measured, Measured]
    before: tuple[Flip, ...]
    after: tuple[Flip, ...]

    @property
    def title(self) -> str:
        """What was made again, from what to what."""
        changes = [f"{n}: {a:.4g} before, {b:.4g} now" for n, (a, b) in self.numbers.items()]
        detail = f" ({'; '.join(changes)})" if changes else ""
        return f"{self.kind} rebuilt from the lowered network{detail}"

    @property
    def judged(self) -> str:
        """On which images, in words."""
        source = f"{self.others} others" if self.others else "the same"
        return f"judged on {self.images} images, threshold from {source}"

    @property
    def lists(self) -> tuple[tuple[str, tuple[Flip, ...]], ...]:
        """Flips with the float network's constants, and with the network's own."""
        names = [each.name.partition(", ")[2] for each in self.variants[1:]]
        return tuple(zip(names, (self.before, self.after), strict=True))

    def flips(self, variant: int) -> tuple[Flip, ...]:
        """Decisions of a variant that differ from float's."""
        return ((), self.before, self.after)[variant]

    def shift(self, variant: int) -> float:
        """Mean absolute change of the raw score against float, relative to float's mean."""
        base = np.asarray(self.variants[0].scores)
        gap = np.abs(np.asarray(self.variants[variant].scores) - base).mean()
        return float(gap / max(float(np.abs(base).mean()), 1e-12))

    def table(self) -> list[tuple[str, ...]]:
        """Rows to print: variant, AUROC, F1, threshold, score shift, flips."""
        return [
            (
                each.name,
                _number(each.image.get("auroc")),
                _number(each.image.get("f1")),
                f"{each.score.threshold:.4g}",
                f"{100 * self.shift(i):.2f} %",
                _flips(self.flips(i)),
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
                flips = self.flips(i)
                found[f"{each.name} decision_flips"] = float(len(flips))
                found[f"{each.name} flips_now_wrong"] = float(sum(f.wrong for f in flips))
                if flips:
                    found[f"{each.name} flipped_images"] = ", ".join(f.image for f in flips)
        return found

    def record(self) -> dict[str, object]:
        """Plain data, for ``--json``."""
        return {
            "kind": self.kind,
            "numbers": {name: list(pair) for name, pair in self.numbers.items()},
            "images": self.images,
            "threshold_images": self.others or self.images,
            "variants": [
                {"name": v.name, "image": dict(v.image), "pixel": dict(v.pixel),
                 "score": v.score.model_dump(mode="json")}
                for v in self.variants
            ],
            "flips_before": [asdict(f) for f in self.before],
            "flips_after": [asdict(f) for f in self.after],
        }  # fmt: skip


def _flips(flips: Sequence[Flip]) -> str:
    """How many, and how many of them are now decided against their label."""
    return f"{len(flips)}, {sum(f.wrong for f in flips)} now wrong" if flips else "0"


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
