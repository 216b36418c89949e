"""Times the exact coreset selection against anomalib's procedure and the plain greedy loop.

    python benchmarks/coreset.py [--rows 20000] [--threads 2] [--noise] [--numpy] [--no-reference]
    python benchmarks/coreset.py --curve          time and peak memory up to 180,320 rows at 10 %

Rows are features of a CNN over generated textures (--model, or seeded random weights), or isotropic
noise. References, same run, same threads: anomalib's KCenterGreedy (the installed package's own
class, or its steps in torch where anomalib is missing or --steps is given: sparse projection for
eps 0.9, pairwise distances to each new centre, arg-max), and the plain loop in NumPy on the
unprojected rows. Ours includes everything from float32 rows to indices; kernels are compiled
before. Covering radii are computed for all selections in the unprojected space, in double. The plain
loop is run in double precision too, untimed: how many picks of ours and of the float32 loop differ
from its picks says whose differences are rounding.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from texture_features import features

from adcompile.anomaly.coreset import select_coreset, sparse_projection

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Floats = NDArray[np.floating]


def make_rows(count: int, noise: bool, model: Path | None) -> tuple[F32, str]:
    """*count* rows of 384 columns in random order, and where they come from."""
    random = np.random.default_rng(0)
    if noise:
        return random.standard_normal((count, 384)).astype(np.float32), "isotropic noise"
    rows, source = features(-(-count // 784), 384, model, rough=True)
    return rows[random.permutation(len(rows))[:count]], f"features of {source}"


def anomalib_procedure(rows: F32, count: int, threads: int, steps: bool) -> tuple[I64, float, str]:
    """Picks and seconds of anomalib's KCenterGreedy, or of its steps in torch."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if not steps and importlib.util.find_spec("anomalib") is not None:
        sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
        import torchvision_cpu

        torchvision_cpu.install()  # anomalib imports torchvision
        from anomalib.models.components.sampling import KCenterGreedy

        sampler = KCenterGreedy(embedding=torch.from_numpy(rows), sampling_ratio=count / len(rows))
        start = time.perf_counter()
        chosen = sampler.select_coreset_idxs()
        took = time.perf_counter() - start
        return np.array([int(i) for i in chosen], np.int64), took, "anomalib's own class"
    start = time.perf_counter()
    space = torch.from_numpy(sparse_projection(rows, 0))
    nearest: torch.Tensor | None = None
    newest = int(torch.randint(len(space), (1,)))
    picks: list[int] = []
    for _ in range(count):
        away = torch.nn.functional.pairwise_distance(space, space[newest : newest + 1], p=2)
        nearest = away if nearest is None else torch.minimum(nearest, away)
        newest = int(torch.argmax(nearest))
        nearest[newest] = 0
        picks.append(newest)
    took = time.perf_counter() - start
    return np.array(picks, np.int64), took, "anomalib's steps in torch"


def plain_loop(rows: Floats, count: int, first: int) -> I64:
    """The loop everyone writes: squared norms once, one product per new centre; in rows' precision."""
    norms = np.einsum("nc,nc->n", rows, rows)
    nearest = np.full(len(rows), np.inf, rows.dtype)
    chosen = [first]
    for _ in range(count - 1):
        centre = chosen[-1]
        away = norms + norms[centre] - 2 * (rows @ rows[centre])
        np.minimum(nearest, away, out=nearest)
        nearest[centre] = -1
        chosen.append(int(nearest.argmax()))
    return np.array(chosen, np.int64)


def radius(rows: F32, chosen: I64) -> float:
    """Largest distance of a row to its nearest chosen one."""
    centre = rows.mean(axis=0)
    wide = (rows - centre).astype(np.float64)
    picks = wide[chosen]
    squares = np.square(picks).sum(axis=1)
    most = 0.0
    for start in range(0, len(rows), 1024):
        part = wide[start : start + 1024]
        away = squares - 2 * part @ picks.T + np.square(part).sum(axis=1)[:, None]
        most = max(most, float(away.min(axis=1).max()))
    return float(np.sqrt(most))


def timed_ours(rows: F32, count: int, threads: int, path: str, repeat: int) -> tuple[float, I64]:
    """Seconds (best of *repeat*) and picks, from row 0."""
    best, picks = np.inf, np.empty(0, np.int64)
    for _ in range(repeat):
        start = time.perf_counter()
        picks = select_coreset(rows, count, first="first", threads=threads, path=path).indices
        best = min(best, time.perf_counter() - start)
    return best, picks


def compare(options: argparse.Namespace) -> None:
    """Ours and the references on one set of rows."""
    rows, source = make_rows(options.rows, options.noise, options.model)
    count = len(rows) // 10
    print(f"{len(rows)} x {rows.shape[1]}, {count} picks, {options.threads} threads: {source}")
    select_coreset(rows[:64], 2)
    ours, picks = timed_ours(rows, count, options.threads, "auto", 3)
    print(f"ours            {ours:8.3f} s   radius {radius(rows, picks):.6f}", flush=True)
    if options.numpy:
        took, same = timed_ours(rows, count, options.threads, "numpy", 1)
        agree = (same == picks).mean()
        print(f"ours, NumPy     {took:8.3f} s   same picks {agree:.4f}", flush=True)
    if not options.reference:
        return
    start = time.perf_counter()
    loop = plain_loop(rows, count, 0)
    took = time.perf_counter() - start
    print(
        f"plain loop      {took:8.3f} s   radius {radius(rows, loop):.6f}   ours x {took / ours:.0f}",
        flush=True,
    )
    # Centred: less of double precision is lost to what all rows have in common.
    wide = rows - rows.mean(axis=0, dtype=np.float64)
    exact = plain_loop(wide, count, 0)
    print(
        f"double precision: ours differs in {(picks != exact).sum()} of {count} picks, the float32 loop"
        f" in {(loop != exact).sum()}; as sets in {(~np.isin(loop, exact)).sum()}",
        flush=True,
    )
    theirs, took, name = anomalib_procedure(rows, count, options.threads, options.steps)
    print(
        f"KCenterGreedy   {took:8.3f} s   radius {radius(rows, theirs):.6f}   ours x {took / ours:.0f}"
        f"   ({name})"
    )


def one_size(rows: int, options: argparse.Namespace) -> None:
    """Time and memory of one selection, in a process of its own."""
    data, _ = make_rows(rows, options.noise, options.model)
    select_coreset(data[:64], 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took, picks = timed_ours(data, rows // 10, options.threads, "auto", 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rows:8d} {len(picks):6d} {took:8.2f} s   peak {peak:6.0f} MB"
        f" (features, {data.nbytes >> 20} MB, and their making: {before:.0f} MB)",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, help="ONNX backbone with 128 + 256 channels")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--numpy", action="store_true", help="also without compiled kernels")
    parser.add_argument("--steps", action="store_true", help="anomalib's steps, not its class")
    parser.add_argument("--no-reference", dest="reference", action="store_false")
    parser.add_argument("--curve", action="store_true")
    sizes = [5000, 10000, 20000, 45000, 90000, 180320]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="rows of the curve")
    options = parser.parse_args()
    if not options.curve:
        compare(options)
        return
    for rows in options.sizes:
        process = multiprocessing.get_context("spawn").Process(
            target=one_size, args=(rows, options)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
