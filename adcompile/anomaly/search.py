"""Exact nearest-neighbour search from Python: the C++ kernels, or NumPy with the same results.

Distances are *squared* Euclidean distances, float64, ascending; equal ones are in order of the
row's number. The neighbours are those of a brute-force search in double precision. Both
implementations give the same bits; ``reference_search.py`` is the one without a compiler.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from adcompile import native
from adcompile.anomaly.bank import Bank, check_vectors, pack_bank
from adcompile.anomaly.reference_search import ReferenceSearch
from adcompile.errors import InputError, ToolMissing, UsageError

MAX_NEIGHBOURS = 64
NATIVE_SOURCES = (
    "bank_search.cpp", "bank_worker.cpp", "bank_scan.cpp", "bank_dense.cpp", "bank_direct.cpp",
    "bank_nearest.cpp", "bank_half.cpp", "bank_alike.cpp",
    "bank_small.cpp", "bank_axes.cpp", "bank_bounds.cpp", "bank_paths.cpp", "bank_team.cpp",
    "bank_top.cpp", "bank_view.cpp", "bank_file.cpp", "bank_kernels_portable.cpp",
    "bank_kernels_avx2.cpp", "bank_kernels_avx512.cpp", "bank_kernels_avx512vnni.cpp",
    "bank_kernels_neon.cpp",
)  # fmt: skip
"""What a host project compiles to search a bank (below ``backends/host/native``)."""
NATIVE_HEADERS = (
    "bank_search.hpp", "bank_worker.hpp", "bank_bounds.hpp", "bank_top.hpp", "bank_view.hpp",
    "bank_file.hpp", "bank_axes.hpp", "bank_half.hpp", "bank_paths.hpp", "bank_status.hpp",
    "bank_team.hpp", "bank_alike.hpp",
    "bank_kernels.hpp", "bank_kernels_impl.hpp", "bank_kernels_int8.hpp", "bank_kernels_near.hpp",
    "bank_kernels_coreset.hpp",
    "bank_floats_avx512.hpp", "bank_lanes_avx512.hpp",
)  # fmt: skip
"""And the headers these include."""
CORESET_SOURCES = (
    "coreset.cpp", "coreset_axes.cpp", "coreset_cells.cpp", "coreset_first.cpp",
    "coreset_frame.cpp", "coreset_layout.cpp", "coreset_nearest.cpp", "coreset_picks.cpp",
    "coreset_rounds.cpp",
)  # fmt: skip
CORESET_HEADERS = (
    "coreset.hpp", "coreset_axes.hpp", "coreset_cells.hpp", "coreset_first.hpp",
    "coreset_frame.hpp", "coreset_layout.hpp", "coreset_list.hpp", "coreset_nearest.hpp",
    "coreset_panels.hpp", "coreset_picks.hpp", "coreset_rounds.hpp",
)  # fmt: skip
"""Selection of bank rows: part of the library Python loads, not of a host project."""
SHARED_HEADERS = ("pages.hpp",)
"""Headers of both, and of the generated programs."""

PATHS = ("auto", "numpy", "portable", "avx2", "avx512", "avx512vnni", "neon", "neondot")
"""Instruction sets that can be insisted on. ``auto``: the best one here, NumPy without compiler."""

NOT_FINITE = 3
"""``ADC_NOT_FINITE`` of ``bank_search.hpp``."""

Distances = NDArray[np.float64]
Indices = NDArray[np.int64]
Array = NDArray[np.generic]


class _Engine(Protocol):
    """Something that searches checked queries."""

    def run(self, queries: NDArray[np.float32], k: int) -> tuple[Distances, Indices]: ...

    def close(self) -> None: ...


class Searcher:
    """A bank opened for search. Use it as a context manager, or call ``close``.

    One call at a time; open one searcher per thread of the caller if there are several.
    """

    def __init__(self, bank: Bank, *, threads: int = 1, path: str = "auto") -> None:
        """*threads* work on one call (native only). Raises ToolMissing when *path* cannot run."""
        if path not in PATHS:
            raise UsageError(f"no search path {path!r}", why=f"known: {', '.join(PATHS)}")
        if not 1 <= threads <= 256:
            raise UsageError(f"{threads} threads", why="1 to 256 are allowed")
        self._bank = bank
        self._engine = _engine(bank, threads, path)

    def knn(self, queries: Array, k: int) -> tuple[Distances, Indices]:
        """Squared distances and row numbers, both [n, k], of the k nearest rows of each query.

        *queries*: float32 [n, D]. Raises InputError for another width, NaN, or k above the rows.
        """
        # The kernels look at every value anyway: they find what is not finite.
        checked = check_vectors(
            queries, "queries", finite=not isinstance(self._engine, _NativeSearch)
        )
        if checked.shape[1] != self._bank.columns:
            raise InputError(
                "queries and bank differ in width",
                why=f"queries have {checked.shape[1]} columns, the bank {self._bank.columns}",
                fix="use the backbone and layers the bank was built with",
            )
        if not 1 <= k <= MAX_NEIGHBOURS:
            raise InputError(f"k is {k}", why=f"1 to {MAX_NEIGHBOURS} are allowed")
        if k > self._bank.rows:
            raise InputError(
                "k is larger than the bank",
                why=f"k {k}, bank rows {self._bank.rows}",
                fix="lower k or keep more rows (coreset ratio)",
            )
        return self._engine.run(checked, k)

    def close(self) -> None:
        """Free threads and memory."""
        self._engine.close()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def knn(
    bank: Bank, queries: Array, k: int, *, threads: int = 1, path: str = "auto"
) -> tuple[Distances, Indices]:
    """One search: see ``Searcher.knn``. Opening a bank costs; keep a Searcher for many calls."""
    with Searcher(bank, threads=threads, path=path) as searcher:
        return searcher.knn(queries, k)


def load_kernels() -> native.Loaded:
    """The compiled library of search and coreset, or the reason why there is none."""
    return native.load(
        "anomaly",
        NATIVE_SOURCES + CORESET_SOURCES,
        NATIVE_HEADERS + CORESET_HEADERS + SHARED_HEADERS,
    )


def _engine(bank: Bank, threads: int, path: str) -> _Engine:
    if path == "numpy":
        return ReferenceSearch(bank)
    loaded = load_kernels()
    if loaded.library is not None:
        return _NativeSearch(loaded.library, bank, threads, path)
    if path == "auto":
        return ReferenceSearch(bank)
    raise ToolMissing(f"search path {path!r} needs the C++ kernels", why=loaded.reason)


class _NativeSearch:
    """The C interface of ``bank_search.hpp``."""

    def __init__(self, library: ctypes.CDLL, bank: Bank, threads: int, path: str) -> None:
        self._library = library
        self._data = _aligned(pack_bank(bank))
        self._bank, self._searcher = ctypes.c_void_p(), ctypes.c_void_p()
        self._message = ctypes.create_string_buffer(256)
        # A function object of our own, with types: a call converts nothing else.
        self._run = library["adc_searcher_run"]
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._run.argtypes = [
            pointer, pointer, size, ctypes.c_int, pointer, pointer, ctypes.c_char_p, ctypes.c_size_t,
        ]  # fmt: skip
        self._call(
            "adc_bank_open_memory",
            ctypes.c_void_p(self._data.ctypes.data),
            ctypes.c_size_t(self._data.size),
            ctypes.byref(self._bank),
        )
        try:
            self._call(
                "adc_searcher_create",
                self._bank,
                ctypes.c_int(threads),
                ctypes.c_char_p(path.encode()),
                ctypes.byref(self._searcher),
            )
        except ToolMissing:
            self.close()
            raise

    def run(self, queries: NDArray[np.float32], k: int) -> tuple[Distances, Indices]:
        squared = np.empty((len(queries), k), np.float64)
        indices = np.empty((len(queries), k), np.int64)
        status = self._run(
            self._searcher,
            queries.ctypes.data,
            len(queries),
            k,
            _address(indices),
            _address(squared),
            self._message,
            len(self._message),
        )
        if status != 0:
            self._refuse(status)
        return squared, indices

    def close(self) -> None:
        searcher, self._searcher = self._searcher, ctypes.c_void_p()
        bank, self._bank = self._bank, ctypes.c_void_p()
        self._library.adc_searcher_close(searcher)
        self._library.adc_bank_close(bank)

    def __del__(self) -> None:
        self.close()

    def _call(self, name: str, *arguments: object) -> None:
        status: int = getattr(self._library, name)(
            *arguments, self._message, ctypes.c_size_t(len(self._message))
        )
        if status != 0:
            self._refuse(status)

    def _refuse(self, status: int) -> NoReturn:
        text = self._message.value.decode(errors="replace")
        if status == NOT_FINITE:
            raise InputError("queries hold NaN or an infinity", why=text)
        raise ToolMissing("the native search refused", why=text)


def _address(fresh: NDArray[Any]) -> int:
    """Where a fresh array begins; ``.ctypes`` takes three times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(fresh.data)) if fresh.size else 0


def _aligned(data: bytes) -> NDArray[np.uint8]:
    """A copy whose first byte is on a 64-byte boundary, so that the kernels use it in place."""
    room = np.empty(len(data) + 64, np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return room[start : start + len(data)]
