"""The C interface's tiles, called from Python as other programs call them. For ``mosaic.py``."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np

from adcompile.backends.host.build import NATIVE, OPTIMIZED, STRICT, find_compiler
from adcompile.backends.host.library import Array, to_c
from adcompile.errors import InputError
from adcompile.runtime.tiles import TileSpec

_SOURCES = (
    "c_api",
    "c_api_mosaic",
    "json",
    "mosaic",
    "mosaic_layout",
    "npy",
    "part",
    "sha256",
    "threads",
)


class CTiles(ctypes.Structure):
    """``adc_tiles`` of ``adc_host.h``."""

    _fields_ = (
        ("grid_rows", ctypes.c_int64),
        ("grid_columns", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("pitch_y", ctypes.c_int64),
        ("pitch_x", ctypes.c_int64),
        ("flat", ctypes.c_int32),
    )


class TileLibrary:
    """``adc_tiles_pack`` and ``adc_tiles_unpack``, compiled into *folder*."""

    def __init__(self, folder: Path) -> None:
        library = folder / "libtiles.so"
        sources = [str(NATIVE / f"{name}.cpp") for name in _SOURCES]
        flags = [*STRICT, *OPTIMIZED, f"-I{NATIVE}", "-fPIC", "-shared", "-pthread"]
        command = [find_compiler(), *flags, *sources, "-o", str(library)]
        subprocess.run(command, check=True)
        self._lib = ctypes.CDLL(str(library))
        self._lib.adc_last_error.restype = ctypes.c_char_p

    def pack(self, rows: Array, spec: TileSpec, grid: tuple[int, int], image: Array) -> None:
        """Rows into *image* (1 × channels × the grid's size). Raises InputError."""
        tiles = _describe(spec, grid)
        size = ctypes.c_uint64(image.nbytes)
        place = ctypes.c_void_p(image.ctypes.data)
        self._check(
            self._lib.adc_tiles_pack(ctypes.byref(to_c(rows)), ctypes.byref(tiles), place, size)
        )

    def unpack(self, image: Array, spec: TileSpec, grid: tuple[int, int], rows: Array) -> None:
        """The first tiles of *image* into *rows*, as many as it has. Raises InputError."""
        tiles = _describe(spec, grid)
        count, size = ctypes.c_int64(len(rows)), ctypes.c_uint64(rows.nbytes)
        place = ctypes.c_void_p(rows.ctypes.data)
        self._check(
            self._lib.adc_tiles_unpack(
                ctypes.byref(to_c(image)), ctypes.byref(tiles), count, place, size
            )
        )

    def _check(self, failed: int) -> None:
        if failed:
            text: bytes = self._lib.adc_last_error()
            raise InputError("tiles could not be moved", why=text.decode("utf-8", "replace"))


def image_for(rows: Array, spec: TileSpec, grid: tuple[int, int]) -> Array:
    """Memory for the image of *rows*, filled with something that is not zero."""
    return np.full((1, rows.shape[1], *spec.image(grid)), 1, rows.dtype)


def _describe(spec: TileSpec, grid: tuple[int, int]) -> CTiles:
    return CTiles(*grid, spec.height, spec.width, spec.pitch_y, spec.pitch_x, int(spec.flat))
