"""Times the exact bank search against faiss.IndexFlatL2 and a full-matrix loop, in one run.

    python benchmarks/bank_search.py [--quick] [--model resnet18_features.onnx] [--path avx2]
    python benchmarks/bank_search.py --instructions --quick      counts instructions instead of time

784 queries (one 28x28 image) against 18,033, 361 and 37 rows of 384 and 1,536 columns, k 1 and 9,
one and two threads; rows are features of a CNN over generated textures (`cnn`: a ResNet18, for 1,536
columns a Wide ResNet50-2, or --model/--wide-model; `rough`: a plain chain of convolutions, which is
harder), or isotropic noise. The networks' weights are random and seeded. How hard the data is: the
share of pairs that lower bounds from the first principal axes and the rest's length rule out.
With the deeper map enlarged by nearest, as the reference systems do, four neighbouring queries are
alike in two thirds of their columns, which the search of small banks makes use of; --enlarge bilinear
shows it without that.
Times are the best of --repeat runs, taken in turns, wall clock, and include everything from the
float32 queries to indices and distances; the bank was prepared before, as faiss's index was. The
queries lie on a 64-byte boundary, for both, as the buffers of a generated program do. With two
threads a rest and some untimed calls come before each timed one, of either: OpenMP's idle threads
spin for a while after faiss's call, on a core that the next search would need, and threads that have
slept take a while to wake.
`x faiss` above 1 means faster than faiss: of the best times, and the median over the turns, which
tells more on a busy machine. GFLOP/s: what a search that evaluates every pair (2 operations for
each query, row and column) would have needed; faiss does, and the machine's peak limits it. Indices
of every run are compared with brute force in double precision on 32 of the queries. Without
faiss-cpu the columns stay empty.
Instructions: of 112 queries, k 1; x86 under `valgrind --tool=callgrind` (the avx2 path: valgrind
has no AVX-512), arm64 under qemu-user with the plugin qemu_count.c.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from texture_features import features

from adcompile.anomaly.bank import Bank, prepare_bank, write_bank
from adcompile.anomaly.bank_axes import principal_axes
from adcompile.anomaly.search import NATIVE_SOURCES, Searcher
from adcompile.native import SOURCES

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
HERE = Path(__file__).parent
DRIVER = HERE.parent / "tests" / "host" / "bank_search_main.cpp"
QUERIES = 784
REST = 0.01
"""Seconds until spinning threads are asleep."""
AWAKE = 0.003
"""Seconds of untimed calls until all threads of a search are awake."""
COUNTED = 112
"""Queries whose instructions are counted."""


def in_turns(
    runs: Sequence[Callable[[], object]], repeat: int, *, rest: float = 0.0
) -> NDArray[np.float64]:
    """Milliseconds [repeat, runs], after one round of warming up.

    With a *rest* (seconds) each timed call follows this rest and AWAKE seconds of untimed calls.
    """
    took = np.empty((repeat + 1, len(runs)))
    for round_ in range(repeat + 1):
        for i, run in enumerate(runs):
            if rest > 0:
                time.sleep(rest)
                awake = time.perf_counter() + AWAKE
                while time.perf_counter() < awake:
                    run()
            start = time.perf_counter()
            run()
            took[round_, i] = (time.perf_counter() - start) * 1e3
    return took[1:]


def aligned(array: F32) -> F32:
    """A copy on a 64-byte boundary, as the buffers of a generated program are."""
    memory = np.empty(array.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    copy = memory[start : start + array.size].reshape(array.shape)
    copy[:] = array
    return copy


def compiled(source: str, folder: Path, flags: Sequence[str]) -> ctypes.CDLL | None:
    """A C++ file of this folder as a library; None without g++."""
    if shutil.which("g++") is None:
        return None
    made = folder / f"{source}.so"
    command = [
        "g++",
        "-std=c++17",
        *flags,
        "-fPIC",
        "-shared",
        str(HERE / source),
        "-o",
        str(made),
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(made))


def peak(folder: Path) -> str:
    """The machine's float32 peak, as a sentence."""
    library = compiled("peak.cpp", folder, ["-O2", "-march=native"])
    if library is None:
        return "peak unknown: no g++"
    library.peak_gflops.restype = ctypes.c_double
    best = max(float(library.peak_gflops()) for _ in range(3))
    return f"float32 peak of one thread {best:.0f} GFLOP/s"


def wrong(rows: F32, queries: F32, indices: I64, k: int) -> int:
    """Neighbours that are not those of brute force in double precision, ties aside."""
    count = 0
    for i in range(0, len(queries), max(1, len(queries) // 32)):
        squared = np.square(rows.astype(np.float64) - queries[i].astype(np.float64)).sum(axis=1)
        mine = squared[indices[i]]
        count += int((np.abs(mine - np.sort(squared)[:k]) > 1e-13 * mine).sum())
    return count


def ruled_out(rows: F32, queries: F32) -> str:
    """Shares of pairs, by axes, whose lower bound is beyond the nearest row, in double precision."""
    centre = rows.mean(axis=0)
    axes = principal_axes(rows, centre, 1.0, 64)
    u, v = ((part - centre).astype(np.float64) for part in (rows, queries[::8]))
    lengths = [np.square(part).sum(axis=1) for part in (v, u)]
    nearest = (lengths[0][:, None] + lengths[1] - 2 * v @ u.T).min(axis=1, keepdims=True)
    shares: list[str] = []
    for count in (8, 16, 64):
        along = [part @ axes[:, :count] for part in (v, u)]
        inside = [np.square(part).sum(axis=1) for part in along]
        rests = [
            np.sqrt(np.maximum(whole - part, 0))
            for whole, part in zip(lengths, inside, strict=True)
        ]
        bound = inside[0][:, None] + inside[1] - 2 * along[0] @ along[1].T
        bound += np.square(rests[0][:, None] - rests[1])
        shares.append(f"{count} axes {100 * float((bound > nearest).mean()):.2f} %")
    return ", ".join(shares)


def compare(
    kind: str, rows: F32, queries: F32, loop: ctypes.CDLL | None, options: argparse.Namespace
) -> None:
    """One line per k and number of threads."""
    bank = prepare_bank(rows)
    index = faiss_index(rows)
    for threads in (1, 2):
        for k in (1, 9):
            if k > len(rows):
                continue
            line(
                kind,
                bank,
                rows,
                queries,
                index,
                loop if threads == 1 else None,
                threads,
                k,
                options,
            )


def faiss_index(rows: F32) -> object | None:
    """A flat index, or None where faiss is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    return index


def line(
    kind: str, bank: Bank, rows: F32, queries: F32, index: object | None, loop: ctypes.CDLL | None,
    threads: int, k: int, options: argparse.Namespace,
) -> None:  # fmt: skip
    """Time and print one configuration."""
    with Searcher(bank, threads=threads, path=options.path) as searcher:
        runs: list[Callable[[], object]] = [lambda: searcher.knn(queries, k)]
        if index is not None:
            import faiss

            faiss.omp_set_num_threads(threads)
            runs.append(lambda: index.search(queries, k))  # type: ignore[attr-defined]
        repeat = options.repeat if len(rows) > 1000 else 8 * options.repeat
        took = in_turns(runs, repeat, rest=REST if threads > 1 else 0.0)
        indices = searcher.knn(queries, k)[1]
    best = took.min(axis=0)
    ratio = ""
    if len(best) > 1:
        median = float(np.median(took[:, 1] / took[:, 0]))
        ratio = f"{best[1]:9.2f} {best[1] / best[0]:8.1f} {median:7.1f}"
    speeds = [2e-6 * queries.size * len(rows) / float(t) for t in best]
    text = (
        f"{kind:6s} {len(rows):6d} {rows.shape[1]:5d} {k:2d} {threads:3d} {best[0]:9.3f} {ratio:26s}"
        f" {' '.join(f'{speed:7.0f}' for speed in speeds):15s}"
    )
    if loop is not None and options.loop:
        text += f" {loop_time(loop, rows, queries, k, best[0]):8.1f}"
    bad = wrong(rows, queries, indices, k)
    print(text + (f"   {bad} WRONG" if bad else ""), flush=True)


def loop_time(loop: ctypes.CDLL, rows: F32, queries: F32, k: int, ours: float) -> float:
    """How many times slower the full-matrix loop is, one thread (for large banks on 98 queries)."""
    part = queries if len(rows) < 1000 else queries[::8].copy()
    distances = np.empty((len(part), k), np.float32)
    indices = np.empty((len(part), k), np.int64)
    size = ctypes.c_int64

    def run() -> None:
        loop.full_matrix(
            ctypes.c_void_p(part.ctypes.data), size(len(part)), ctypes.c_void_p(rows.ctypes.data),
            size(len(rows)), size(rows.shape[1]), ctypes.c_int(k),
            ctypes.c_void_p(distances.ctypes.data), ctypes.c_void_p(indices.ctypes.data),
        )  # fmt: skip

    omp = ctypes.CDLL("libgomp.so.1")
    omp.omp_set_num_threads(1)
    took = float(in_turns([run], 1 if len(rows) > 1000 else 3).min())
    return took * len(queries) / len(part) / ours


def build_driver(folder: Path, compiler: str, flags: Sequence[str]) -> Path:
    """The tests' command-line driver of the search."""
    made = folder / f"driver-{compiler}"
    sources = [str(DRIVER), *(str(SOURCES / s) for s in NATIVE_SOURCES)]
    command = [compiler, "-std=c++17", "-O3", "-pthread", *flags, f"-I{SOURCES}", *sources]
    subprocess.run([*command, "-o", str(made)], check=True)
    return made


Counter = Callable[[Path, Path], int]
"""Instructions of the driver with the bank in a folder and a file of queries."""


def counters(folder: Path) -> list[Counter | None]:
    """Of x86 avx2, arm64 neondot and neon; None where the tools are missing. Compiled once."""
    made: list[Counter | None] = [None, None, None]
    if shutil.which("valgrind"):
        x86 = build_driver(folder, "g++", ())
        made[0] = partial(callgrind, x86)
    if shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-g++"):
        plugin = folder / "count.so"
        source = str(HERE / "qemu_count.c")
        subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", str(plugin)], check=True)
        arm = build_driver(folder, "aarch64-linux-gnu-g++", ("-static",))
        made[1:] = [partial(qemu, arm, plugin, path) for path in ("neondot", "neon")]
    return made


def instructions(name: str, rows: F32, queries: F32, counting: Sequence[Counter | None]) -> None:
    """Instructions of one search (a run with queries less a run without), in millions."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "none").write_bytes(b"")
        (folder / "queries").write_bytes(queries[:COUNTED].tobytes())
        write_bank(folder / "bank", prepare_bank(rows))
        cells = ["-" if count is None else difference(folder, count) for count in counting]
        print(f"{name:24s} " + " ".join(f"{cell:>14s}" for cell in cells), flush=True)


def difference(folder: Path, count: Counter) -> str:
    """Counts with all queries less counts with none: opening the bank is left out."""
    return f"{(count(folder, folder / 'queries') - count(folder, folder / 'none')) / 1e6:.1f}"


def callgrind(driver: Path, folder: Path, queries: Path) -> int:
    """Instructions under callgrind."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'out'}", str(driver),
               "search", str(folder / "bank"), str(queries), "1", "1", "avx2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    (text,) = re.findall(rb"Collected : (\d+)", done.stderr)
    return int(text)


def qemu(driver: Path, plugin: Path, path: str, folder: Path, queries: Path) -> int:
    """Instructions by the plugin."""
    command = ["qemu-aarch64", "-plugin", str(plugin), "-d", "plugin",
               str(driver), "search", str(folder / "bank"), str(queries), "1", "1", path]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    (text,) = re.findall(rb"instructions: (\d+)", done.stderr)
    return int(text)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="384 columns only")
    parser.add_argument("--model", type=Path, help="ONNX backbone with 128 + 256 channels")
    parser.add_argument("--wide-model", type=Path, help="ONNX backbone with 512 + 1024 channels")
    parser.add_argument(
        "--images", type=int, default=26, help="textures (the last one is queried)"
    )
    parser.add_argument(
        "--enlarge", choices=("nearest", "bilinear"), default="nearest",
        help="how the deeper map is enlarged; nearest repeats its values",
    )  # fmt: skip
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--path", default="auto")
    parser.add_argument("--no-loop", dest="loop", action="store_false")
    parser.add_argument("--instructions", action="store_true", help="count, instead of timing")
    options = parser.parse_args()
    for columns in (384,) if options.quick else (384, 1536):
        model = options.model if columns == 384 else options.wide_model
        sources: dict[str, F32] = {}
        for kind in ("cnn", "rough"):
            sources[kind], source = features(
                options.images,
                columns,
                model if kind == "cnn" else None,
                rough=kind == "rough",
                enlarge=options.enlarge,
            )
            print(f"{columns} columns, {kind}: features of {source}, rows drawn at random")
        random = np.random.default_rng(0)
        drawn = random.permutation(len(sources["cnn"]) - QUERIES)
        sources["noise"] = random.standard_normal((18033 + QUERIES, columns)).astype(np.float32)
        cases = [
            (
                kind,
                rows[np.sort(drawn[:count])] if kind != "noise" else rows[:count].copy(),
                aligned(rows[-QUERIES:]),
            )
            for count in (18033, 361, 37)
            for kind, rows in sources.items()
        ]
        for kind, bank, queries in cases[: len(sources)]:
            print(f"ruled out in {len(bank)} rows of {kind}: {ruled_out(bank, queries)}")
        if options.instructions:
            print("million instructions        x86 avx2  arm64 neondot     arm64 neon")
            with tempfile.TemporaryDirectory() as scratch:
                counting = counters(Path(scratch))
                for kind, bank, queries in cases:
                    instructions(f"{kind} {len(bank)} x {columns}", bank, queries, counting)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            print(peak(Path(scratch)))
            print("                                          x faiss  x faiss  GFLOP/s GFLOP/s")
            print(
                "kind     rows  cols  k thr   ours ms  faiss ms  best  median    ours   faiss    x loop"
            )
            loop = compiled("full_matrix.cpp", Path(scratch), ["-O3", "-fopenmp"])
            for kind, bank, queries in cases:
                compare(kind, bank, queries, loop, options)


if __name__ == "__main__":
    main()
