"""Times the streaming pixel metrics against scikit-learn on the same maps, and compares results.

    python benchmarks/metrics.py [--maps 100] [--side 1024] [--reference-maps 100]

Prints one line per run: seconds, peak memory, the largest difference of any metric. The
reference needs about 8 GB for 100 maps of 1024x1024; with fewer ``--reference-maps`` both sides
are also run on that smaller set, so the ratio always compares the same data.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import numpy.typing as npt

Sample = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def samples(maps: int, side: int) -> Iterator[Sample]:
    """Deterministic smooth-ish maps with one defect in two of three images."""
    for index in range(maps):
        random = np.random.default_rng(index)
        mask = np.zeros((side, side), dtype=np.bool_)
        if index % 3:
            top, left = random.integers(0, side // 2, 2)
            mask[top : top + side // 5, left : left + side // 6] = True
        noise = random.gamma(2.0, 1.0, (side, side)).astype(np.float32)
        yield noise + np.float32(1.5) * mask, mask


def ours(maps: int, side: int) -> dict[str, float]:
    """AUROC, AP, best F1 and AUPRO by the streaming accumulator."""
    from adcompile.anomaly.pixel_metrics import PixelAccumulator

    stream = PixelAccumulator()
    busy = 0.0
    for scores, mask in samples(maps, side):
        start = time.perf_counter()
        stream.add(scores, mask)
        busy += time.perf_counter() - start
    start = time.perf_counter()
    result = stream.result()
    return {
        "seconds": busy + time.perf_counter() - start,
        "auroc": result.auroc,
        "ap": result.average_precision,
        "f1": result.best_f1,
        "aupro": result.aupro,
    }


def sklearn(maps: int, side: int) -> dict[str, float]:
    """AUROC alone, then AP and the best F1, by scikit-learn on all pixels at once."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores = np.empty(maps * side * side, dtype=np.float32)
    labels = np.empty(scores.size, dtype=np.bool_)
    for index, (map_, mask) in enumerate(samples(maps, side)):
        scores[index * side * side : (index + 1) * side * side] = map_.ravel()
        labels[index * side * side : (index + 1) * side * side] = mask.ravel()
    start = time.perf_counter()
    area = roc_auc_score(labels, scores)
    middle = time.perf_counter()
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))
    end = time.perf_counter()
    return {
        "auroc_seconds": middle - start,
        "seconds": end - start,
        "auroc": float(area),
        "ap": float(average_precision_score(labels, scores)),
        "f1": f1,
    }


def _child(name: str, maps: int, side: int, out: multiprocessing.SimpleQueue[str]) -> None:
    run = cast("dict[str, Callable[[int, int], dict[str, float]]]", globals())[name]
    result = run(maps, side)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.put(json.dumps(result))


def measured(name: str, maps: int, side: int) -> dict[str, float]:
    """Run one side in its own process, so that peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    process = context.Process(target=_child, args=(name, maps, side, out))
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"{name} failed with exit code {process.exitcode}")
    return cast("dict[str, float]", json.loads(out.get()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--reference-maps", type=int, default=None)
    options = parser.parse_args()
    count = options.reference_maps or options.maps
    full = measured("ours", options.maps, options.side)
    print(f"streaming    {options.maps} maps  {full['seconds']:7.2f} s  {full['peak_mb']:7.0f} MB")
    same = full if count == options.maps else measured("ours", count, options.side)
    reference = measured("sklearn", count, options.side)
    worst = max(abs(same[key] - reference[key]) for key in ("auroc", "ap", "f1"))
    print(
        f"scikit-learn {count} maps  {reference['seconds']:7.2f} s  {reference['peak_mb']:7.0f} MB"
        f"  (AUROC alone {reference['auroc_seconds']:.2f} s)"
    )
    print(f"all metrics  {reference['seconds'] / same['seconds']:.1f} times faster")
    print(f"against AUROC alone {reference['auroc_seconds'] / same['seconds']:.1f} times faster")
    print(f"largest difference  {worst:.1e}")
    print(f"AUPRO (no reference in scikit-learn)  {same['aupro']:.6f}")


if __name__ == "__main__":
    main()
