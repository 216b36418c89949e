"""Times the exact bank search against faiss.IndexFlatL2 and a full-matrix loop, in one run.

    python benchmarks/bank_search.py [--quick] [--model resnet18_features.onnx] [--path avx2]
    python benchmarks/bank_search.py --instructions      also counts instructions (slow)

784 queries (one 28x28 image) against 18,033, 361 and 37 rows of 384 and 1,536 columns, k 1 and 9,
one and two threads; rows are features of a CNN over generated textures, or isotropic noise. The
network is named in the first line; without --model/--wide-model its weights are random and seeded.
Times are the best of --repeat runs, taken in turns, wall clock, and include everything from the
float32 queries to indices and distances; the bank was prepared before, as faiss's index was.
`x faiss` above 1 means faster than faiss. Indices of every run are compared with brute force in
double precision on 32 of the queries. Without faiss-cpu the column stays empty.
Instructions: x86 under `valgrind --tool=callgrind` (the avx2 path: valgrind has no AVX-512),
arm64 by qemu-user's instruction counter plugin where one is given with --qemu-plugin.
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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from texture_features import features

from adcompile.anomaly.bank import Bank, prepare_bank, write_bank
from adcompile.anomaly.search import NATIVE_SOURCES, Searcher
from adcompile.native import SOURCES

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
HERE = Path(__file__).parent
DRIVER = HERE.parent / "tests" / "host" / "bank_search_main.cpp"
QUERIES = 784


def best_in_turns(runs: Sequence[Callable[[], object]], repeat: int) -> list[float]:
    """Milliseconds of each, the best of *repeat* rounds after one round of warming up."""
    best = [np.inf] * len(runs)
    for round_ in range(repeat + 1):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            took = (time.perf_counter() - start) * 1e3
            best[i] = min(best[i], took) if round_ else best[i]
    return best


def full_matrix(folder: Path) -> ctypes.CDLL | None:
    """The full-matrix loop, compiled with -O3."""
    if shutil.which("g++") is None:
        return None
    made = folder / "full_matrix.so"
    source = str(HERE / "full_matrix.cpp")
    command = ["g++", "-std=c++17", "-O3", "-fopenmp", "-fPIC", "-shared", source, "-o", str(made)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(made))


def wrong(rows: F32, queries: F32, indices: I64, k: int) -> int:
    """Neighbours that are not those of brute force in double precision, ties aside."""
    count = 0
    for i in range(0, len(queries), max(1, len(queries) // 32)):
        squared = np.square(rows.astype(np.float64) - queries[i].astype(np.float64)).sum(axis=1)
        mine = squared[indices[i]]
        count += int((np.abs(mine - np.sort(squared)[:k]) > 1e-13 * mine).sum())
    return count


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
        best = best_in_turns(runs, options.repeat if len(rows) > 1000 else 5 * options.repeat)
        indices = searcher.knn(queries, k)[1]
    ratio = f"{best[1]:9.2f} {best[1] / best[0]:8.1f}" if len(best) > 1 else " " * 18
    text = (
        f"{kind:6s} {len(rows):6d} {rows.shape[1]:5d} {k:2d} {threads:3d} {best[0]:9.3f} {ratio}"
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
    (took,) = best_in_turns([run], 1 if len(rows) > 1000 else 3)
    return took * len(queries) / len(part) / ours


def build_driver(folder: Path, compiler: str, flags: Sequence[str]) -> Path:
    """The tests' command-line driver of the search."""
    made = folder / f"driver-{compiler}"
    sources = [str(DRIVER), *(str(SOURCES / s) for s in NATIVE_SOURCES)]
    command = [compiler, "-std=c++17", "-O3", "-pthread", *flags, f"-I{SOURCES}", *sources]
    subprocess.run([*command, "-o", str(made)], check=True)
    return made


def instructions(banks: dict[str, F32], queries: F32, options: argparse.Namespace) -> None:
    """Instructions of one search (a run with queries less a run without), in millions."""
    print(
        "\ninstructions, millions: bank | x86 callgrind avx2 | arm64 qemu neondot | neon",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "none").write_bytes(b"")
        (folder / "queries").write_bytes(queries.tobytes())
        x86 = build_driver(folder, "g++", ()) if shutil.which("valgrind") else None
        arm = None
        if options.qemu_plugin and shutil.which("aarch64-linux-gnu-g++"):
            arm = build_driver(folder, "aarch64-linux-gnu-g++", ("-static",))
        for name, rows in banks.items():
            write_bank(folder / "bank", prepare_bank(rows))
            cells = [
                difference(folder, lambda q: callgrind(x86, folder, q)) if x86 else "-",
                *(
                    difference(folder, lambda q, p=p: qemu(arm, folder, q, p, options))
                    if arm
                    else "-"
                    for p in ("neondot", "neon")
                ),
            ]
            print(f"{name:24s} | " + " | ".join(cells), flush=True)


def difference(folder: Path, count: Callable[[Path], int]) -> str:
    """Counts with all queries less counts with none: opening the bank is left out."""
    return f"{(count(folder / 'queries') - count(folder / 'none')) / 1e6:.1f}"


def callgrind(driver: Path, folder: Path, queries: Path) -> int:
    """Instructions under callgrind."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'out'}", str(driver),
               "search", str(folder / "bank"), str(queries), "1", "1", "avx2"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    (text,) = re.findall(rb"Collected : (\d+)", done.stderr)
    return int(text)


def qemu(driver: Path, folder: Path, queries: Path, path: str, options: argparse.Namespace) -> int:
    """Instructions by QEMU's `insn` plugin."""
    command = ["qemu-aarch64", "-plugin", f"{options.qemu_plugin},inline=on", "-d", "plugin",
               str(driver), "search", str(folder / "bank"), str(queries), "1", "1", path]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    return sum(int(n) for n in re.findall(rb"insns: (\d+)", done.stderr)[-1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="384 columns only")
    parser.add_argument("--model", type=Path, help="ONNX backbone with 128 + 256 channels")
    parser.add_argument("--wide-model", type=Path, help="ONNX backbone with 512 + 1024 channels")
    parser.add_argument(
        "--images", type=int, default=26, help="textures (the last one is queried)"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--path", default="auto")
    parser.add_argument("--no-loop", dest="loop", action="store_false")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--qemu-plugin", type=Path, help="libinsn.so of QEMU, for arm64 counts")
    options = parser.parse_args()
    for columns in (384,) if options.quick else (384, 1536):
        model = options.model if columns == 384 else options.wide_model
        rows, source = features(options.images, columns, model)
        print(f"{columns} columns: features of {source}; bank rows drawn from them at random")
        print("kind     rows  cols  k thr   ours ms  faiss ms  x faiss   x loop", flush=True)
        random = np.random.default_rng(0)
        drawn = random.permutation(len(rows) - QUERIES)
        noise = random.standard_normal((18033 + QUERIES, columns)).astype(np.float32)
        counted: dict[str, F32] = {}
        with tempfile.TemporaryDirectory() as scratch:
            loop = full_matrix(Path(scratch))
            for count in (18033, 361, 37):
                banks = {"cnn": rows[np.sort(drawn[:count])], "noise": noise[:count].copy()}
                compare("cnn", banks["cnn"], rows[-QUERIES:].copy(), loop, options)
                compare("noise", banks["noise"], noise[-QUERIES:].copy(), loop, options)
                counted[f"cnn {count} x {columns} k 1"] = banks["cnn"]
        if options.instructions:
            instructions(counted, rows[-QUERIES:].copy(), options)


if __name__ == "__main__":
    main()
