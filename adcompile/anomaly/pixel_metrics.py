"""Exact per-pixel metrics over any number of maps, in bounded memory: AUROC, AP, best F1, AUPRO.

How it stays exact without holding or sorting everything at once: only the scores of *defect*
pixels matter as thresholds. The best F1 is reached at one of them, and ROC and PRO curves are
straight between them. So each map is split into defect and background pixels, both sorted; the
defect scores are kept, the background runs go to a temporary file once they exceed the memory
limit. At the end the value range is walked in slices; a slice counts how many background pixels
lie above, at and below each distinct defect score.

Two sorts of small arrays and one merge replace one sort of everything, which is also why this is
many times faster than sorting all pixels (``benchmarks/metrics.py`` prints how many).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.regions import label_regions
from adcompile.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
"""Scores as collected; at run time the dtype is float32 when the maps were at most that."""

SLICE = 1 << 18
"""Defect scores per slice of the final walk: bounds its working memory."""


@dataclass(frozen=True, slots=True)
class PixelMetrics:
    """Result of :class:`PixelAccumulator`. NaN where the data does not define a number.

    ``best_threshold`` decides ``>=`` and is the lowest of those that reach ``best_f1``.
    ``aupro`` is the mean per-region overlap integrated over false-positive rates from 0 to
    ``fpr_limit`` and divided by it.
    """

    maps: int
    pixels: int
    defect_pixels: int
    regions: int
    auroc: float
    average_precision: float
    best_f1: float
    best_threshold: float
    aupro: float
    fpr_limit: float


class _Runs:
    """Sorted arrays of one dtype, in memory up to a limit and in one temporary file beyond it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[Scores] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._spilled: list[tuple[int, int, np.dtype[np.float64]]] = []

    def add(self, run: Scores) -> None:
        if run.size == 0:
            return
        if self._held_bytes + run.nbytes <= self._limit:
            self._held.append(run)
            self._held_bytes += run.nbytes
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="adcompile-")  # noqa: SIM115
        offset = self._file.seek(0, 2)
        self._file.write(run.tobytes())
        self._spilled.append((offset, run.size, run.dtype))

    def __iter__(self) -> Iterator[Scores]:
        yield from self._held
        if self._file is None:
            return
        self._file.flush()
        for offset, size, dtype in self._spilled:
            self._file.seek(offset)
            yield np.frombuffer(self._file.read(size * dtype.itemsize), dtype=dtype)

    def close(self) -> None:
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


class PixelAccumulator:
    """Collects maps one at a time; :meth:`result` may be called once, at the end.

    ``memory`` bounds the bytes of background scores held in RAM (the rest goes to a temporary
    file). Defect pixels always stay in RAM: 12 bytes each. ``fpr_limit`` is AUPRO's limit.
    """

    def __init__(self, *, fpr_limit: float = 0.3, memory: int = 128 << 20) -> None:
        if not 0.0 < fpr_limit <= 1.0:
            raise InputError("fpr_limit must lie in (0, 1]", why=f"got {fpr_limit}")
        self._limit = fpr_limit
        self._background = _Runs(memory)
        self._scores: list[Scores] = []
        self._areas: list[npt.NDArray[np.int32]] = []
        self._maps = 0
        self._pixels = 0
        self._negatives = 0
        self._regions = 0
        self._done = False

    def add(self, anomaly_map: npt.ArrayLike, mask: npt.ArrayLike | None) -> None:
        """Add one map [H, W] and its mask [H, W] (nonzero is defect; None is all normal).

        Refuses shapes that differ and scores that are not finite. float16 and float32 scores
        are kept as float32, everything else as float64: no rounding takes place.
        """
        scores = np.squeeze(np.asarray(anomaly_map))
        if scores.ndim != 2:
            scores = np.asarray(anomaly_map).reshape(np.asarray(anomaly_map).shape[-2:])
        kind = "f4" if scores.dtype.kind == "f" and scores.itemsize <= 4 else "f8"
        flat: Scores = scores.ravel().astype(kind, copy=False)
        if not np.isfinite(flat).all():
            raise InputError(
                "an anomaly map holds a value that is not finite", where=self._where()
            )
        self._maps += 1
        self._pixels += flat.size
        truth = None if mask is None else np.squeeze(np.asarray(mask)) != 0
        if truth is None or not truth.any():
            self._take_background(flat)
            return
        if truth.shape != scores.shape:
            raise InputError(
                "map and mask differ in shape",
                where=self._where(),
                why=f"map {scores.shape}, mask {truth.shape}",
            )
        labels, count = label_regions(truth)
        marked = truth.ravel()
        self._take_background(flat[~marked])
        areas = np.bincount(labels.ravel()[marked] - 1, minlength=count).astype(np.int32)
        self._scores.append(flat[marked])
        self._areas.append(areas[labels.ravel()[marked] - 1])
        self._regions += count

    def _where(self) -> str:
        return f"map {self._maps}"

    def _take_background(self, scores: Scores) -> None:
        self._negatives += scores.size
        self._background.add(np.sort(scores))

    def result(self) -> PixelMetrics:
        """All metrics; frees what was collected."""
        if self._done:
            raise InputError("the pixel metrics were already taken")
        self._done = True
        try:
            return self._result()
        finally:
            self._background.close()
            self._scores.clear()
            self._areas.clear()

    def _result(self) -> PixelMetrics:
        positives = sum(part.size for part in self._scores)
        if not positives:
            return self._report(0, float("nan"), float("nan"), 0.0, float("nan"), float("nan"))
        values, hits, overlap = self._positives()
        above, ties = self._count_background(values)
        tp = np.cumsum(hits[::-1])[::-1]
        fp = above + ties
        f1 = 2.0 * tp / (tp + fp + positives)
        at = int(np.argmax(f1))
        return self._report(
            positives,
            self._auroc(hits, above, ties, positives),
            float(np.sum(hits * (tp / (tp + fp))) / positives),
            float(f1[at]),
            float(values[at]),
            self._aupro(overlap, above, fp),
        )

    def _report(
        self, positives: int, auc: float, ap: float, f1: float, threshold: float, pro: float
    ) -> PixelMetrics:
        return PixelMetrics(
            maps=self._maps,
            pixels=self._pixels,
            defect_pixels=positives,
            regions=self._regions,
            auroc=auc,
            average_precision=ap,
            best_f1=f1,
            best_threshold=threshold,
            aupro=pro,
            fpr_limit=self._limit,
        )

    def _positives(self) -> tuple[Scores, Ints, Floats]:
        """Distinct defect scores ascending; pixels and summed region share (1/area) at each."""
        scores = np.concatenate(self._scores)
        shares = 1.0 / np.concatenate(self._areas).astype(np.float64)
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        first = np.flatnonzero(np.append(np.bool_(True), ordered[1:] != ordered[:-1]))
        hits = np.diff(np.append(first, ordered.size)).astype(np.int64)
        return ordered[first], hits, np.add.reduceat(shares[order], first)

    def _count_background(self, values: Scores) -> tuple[Ints, Ints]:
        """For each distinct defect score: background pixels strictly above it, and equal to it."""
        cells = np.zeros(2 * values.size + 1, dtype=np.int64)
        for run in self._background:
            bounds: Ints = np.searchsorted(run, values[::SLICE], side="left")
            edges = [0, *bounds[1:].tolist(), run.size]
            for start, low, high in zip(
                range(0, values.size, SLICE), edges, edges[1:], strict=False
            ):
                part: Scores = values[start : start + SLICE]
                self._count_slice(
                    run[low:high], part, cells[2 * start : 2 * (start + part.size) + 1]
                )
        from_top = np.cumsum(cells[::-1])[::-1]
        above = from_top[2::2]
        return above, cells[1::2]

    @staticmethod
    def _count_slice(run: Scores, part: Scores, cells: Ints) -> None:
        """Add a sorted run's counts: cell 2i lies below value i, 2i+1 equals it."""
        if run.size == 0:
            return
        if run.size < 2 * part.size:
            place = np.searchsorted(part, run, side="left")
            equal = part[np.minimum(place, part.size - 1)] == run
            cells += np.bincount(2 * place + equal, minlength=cells.size)
            return
        lower = np.searchsorted(run, part, side="left")
        upper = np.searchsorted(run, part, side="right")
        edges = np.empty(cells.size + 1, dtype=np.int64)
        edges[0] = 0
        edges[1:-1:2] = lower
        edges[2:-1:2] = upper
        edges[-1] = run.size
        cells += np.diff(edges)

    def _auroc(self, hits: Ints, above: Ints, ties: Ints, positives: int) -> float:
        if not self._negatives:
            return float("nan")
        wins = self._negatives - above - ties
        doubled = 2 * wins + ties
        if self._negatives * positives < 1 << 60:
            return int(np.dot(hits, doubled)) / 2 / self._negatives / positives
        total = float(np.dot(hits.astype(np.float64), doubled.astype(np.float64)))
        return total / 2 / self._negatives / positives

    def _aupro(self, overlap: Floats, above: Ints, fp: Ints) -> float:
        """Area under (false-positive rate, mean overlap) up to the limit, over the limit."""
        if not self._negatives or not self._regions:
            return float("nan")
        pro = np.cumsum(overlap[::-1]) / self._regions
        before = np.append(0.0, pro[:-1])
        # Highest score first. Between two defect scores the overlap stands still while the
        # false positives grow from the last "at or above" to the next "strictly above".
        x = np.empty(2 * pro.size + 2)
        y = np.empty(2 * pro.size + 2)
        x[0], y[0] = 0.0, 0.0
        x[1:-1:2], y[1:-1:2] = above[::-1] / self._negatives, before
        x[2:-1:2], y[2:-1:2] = fp[::-1] / self._negatives, pro
        x[-1], y[-1] = 1.0, pro[-1]
        return _area_until(x, y, self._limit) / self._limit


def _area_until(x: Floats, y: Floats, limit: float) -> float:
    """Trapezoids under a curve with ascending x, cut at *limit* by linear interpolation."""
    end = int(np.searchsorted(x, limit, side="right"))
    area = float(np.sum(np.diff(x[:end]) * (y[1:end] + y[: end - 1]) / 2.0))
    if end == x.size or x[end - 1] == limit:
        return area
    share = (limit - x[end - 1]) / (x[end] - x[end - 1])
    cut = y[end - 1] + share * (y[end] - y[end - 1])
    return area + float((limit - x[end - 1]) * (y[end - 1] + cut) / 2.0)
