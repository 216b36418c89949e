"""The numbers people compare detectors by, in one order: a row per category and their average."""

from __future__ import annotations

from collections.abc import Mapping

from adcompile.anomaly.model_folder import Metrics

COLUMNS: Mapping[str, tuple[str, str]] = {
    "images": ("image", "images"),
    "image AUROC": ("image", "auroc"),
    "F1": ("image", "f1"),
    "precision": ("image", "precision"),
    "recall": ("image", "recall"),
    "pixel AUROC": ("pixel", "auroc"),
    "pixel F1": ("pixel", "best_f1"),
    "AUPRO": ("pixel", "aupro"),
}
"""Title of a column to level and name of the metric it shows."""


def values_of(metrics: Metrics) -> dict[str, float | int | None]:
    """The table's numbers of one model; None where a metric is undefined."""
    tested = metrics.get("test", metrics.get("validation", {}))
    return {title: tested.get(level, {}).get(name) for title, (level, name) in COLUMNS.items()}


def averages(results: Mapping[str, Metrics]) -> dict[str, float | int | None]:
    """Mean over entries of each column where it is defined; the number of images is summed."""
    found: dict[str, float | int | None] = {}
    for title in COLUMNS:
        values = [values_of(metrics)[title] for metrics in results.values()]
        known = [value for value in values if value is not None]
        total = sum(known)
        found[title] = None if not known else total if title == "images" else total / len(known)
    return found
