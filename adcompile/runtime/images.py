"""Image files to arrays: checked, bounded, and the same on every machine.

What is decided here, so that generated C++ can do the same:

* transparency is dropped, never blended; palettes and CMYK become RGB (Pillow's conversion);
* one-channel files stay one channel; 1-bit files become 0 and 255;
* 16-bit files keep 16 bits (H×W×C ``uint16``) where Pillow keeps them, which is for grey files;
  16-bit colour files arrive as their high bytes, and pre-processing takes the high byte as well;
* an EXIF orientation is ignored: pixels come in the order in which they are stored, as cameras,
  COCO annotations and training loaders without special care see them.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from adcompile.errors import FormatError, InputError

ImageArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")  # nothing that runs an interpreter
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 1 << 26
MAX_SIDE = 1 << 16
MAX_FILE_BYTES = 1 << 29

# Pillow's decoders let these escape on damaged files
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    RuntimeError,
)
_KEEP = {"L", "RGB"}
_GREY = {"1", "LA", "La"}
_WIDE = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


def read_image(path: Path | str) -> ImageArray:
    """Decode an image file to H×W×C, C = 1 or 3 (RGB order), ``uint8`` or ``uint16``.

    Raises InputError when there is no such file, FormatError when it is no image of
    :data:`FORMATS`, is damaged, has float pixels, or more than 2^26 pixels.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
    except (OSError, ValueError) as error:
        raise InputError("no such image file", where=str(file), why=str(error)) from error
    if not file.is_file():
        raise InputError("not a file", where=str(file), fix="give one image file")
    if size > MAX_FILE_BYTES:
        raise FormatError("image file too large", where=str(file), why=f"{size} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(file)
        except UnidentifiedImageError as error:
            raise FormatError(
                "not an image", where=str(file), why="known formats: " + ", ".join(FORMATS)
            ) from error
        except Image.DecompressionBombError as error:
            raise _too_many_pixels(file) from error
        except _DECODE_ERRORS as error:
            raise FormatError(
                "image cannot be decoded", where=str(file), why=str(error) or type(error).__name__
            ) from error


def _decode(file: Path) -> ImageArray:
    with Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or width * height > MAX_PIXELS:
            raise _too_many_pixels(file)
        return _pixels(image, file)


def from_pillow(image: Image.Image) -> ImageArray:
    """The pixels of an opened picture, by the same rules as :func:`read_image`."""
    return _pixels(image, Path(getattr(image, "filename", "") or "picture"))


def _pixels(image: Image.Image, file: Path) -> ImageArray:
    mode = image.mode
    if mode in _WIDE:
        return _wide(np.asarray(image), file)
    if mode in {"F"}:
        raise FormatError("image has float pixels", where=str(file), fix="store 8 or 16 bits")
    if mode not in _KEEP:
        image = image.convert("L" if mode in _GREY else "RGB")
    pixels = np.array(image, dtype=np.uint8)
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def _wide(pixels: npt.NDArray[np.generic], file: Path) -> ImageArray:
    values = np.asarray(pixels, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise FormatError("image has more than 16 bits", where=str(file), fix="store 8 or 16 bits")
    return values.astype(np.uint16)[:, :, np.newaxis]


def _too_many_pixels(file: Path) -> FormatError:
    return FormatError(
        "image has too many pixels",
        where=str(file),
        why=f"more than {MAX_PIXELS:,}, or a side above {MAX_SIDE:,}",
    )


def find_images(folder: Path) -> list[Path]:
    """The image files directly inside *folder*, sorted by name; links are not followed.

    Raises InputError when there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise InputError("no such folder of images", where=str(folder))
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink()
    )
    if not found:
        raise InputError(
            "folder holds no image", where=str(folder), fix="expected " + ", ".join(SUFFIXES)
        )
    return found


def as_rgb(image: ImageArray) -> npt.NDArray[np.uint8]:
    """A decoded image as 8-bit RGB for drawing: 16-bit values are cut, grey is repeated."""
    pixels = (image >> 8 if image.dtype == np.uint16 else image).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
