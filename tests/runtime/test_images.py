"""Image files become arrays in one documented way, and bad files become clear errors."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adcompile.errors import AdcompileError, FormatError, InputError
from adcompile.runtime.images import find_images, read_image


def rgb(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["plain.png", "größe 写真.png", "UPPER.PNG", "with space.bmp"])
def test_lossless_files_come_back_as_stored(tmp_path: Path, name: str) -> None:
    """Pixels are those of the file, whatever its name."""
    pixels = rgb()
    Image.fromarray(pixels).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), pixels)


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    """A fully transparent pixel keeps its colour."""
    pixels = np.dstack([rgb(), np.zeros((5, 7), np.uint8)])
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels[:, :, :3])


def test_grey_stays_one_channel(tmp_path: Path) -> None:
    """8-bit grey, grey with alpha and 1-bit files have one channel."""
    grey = rgb()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "g.png")
    assert np.array_equal(read_image(tmp_path / "g.png"), grey[:, :, None])
    Image.fromarray(np.dstack([grey, grey]), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png"), grey[:, :, None])
    Image.fromarray(grey > 128).save(tmp_path / "1.png")
    assert np.array_equal(read_image(tmp_path / "1.png"), np.where(grey > 128, 255, 0)[:, :, None])


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    """A 16-bit grey PNG arrives as uint16, every bit of it."""
    wide = np.random.default_rng(1).integers(0, 65536, (4, 6), dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "w.png")
    found = read_image(tmp_path / "w.png")
    assert found.dtype == np.uint16
    assert np.array_equal(found[:, :, 0], wide)


def test_palette_becomes_rgb(tmp_path: Path) -> None:
    """Indexed colours are looked up."""
    image = Image.fromarray(rgb()).quantize(8)
    image.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), np.asarray(image.convert("RGB")))


def test_orientation_is_ignored(tmp_path: Path) -> None:
    """An EXIF "rotate" changes nothing: pixels come as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb(16, 24)).save(tmp_path / "e.jpg", exif=exif)
    assert read_image(tmp_path / "e.jpg").shape == (16, 24, 3)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"not an image at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (png(100_000, 100_000), "too many pixels"),
        (png(70_000, 1), "too many pixels"),
        (png(9_000, 9_000), "too many pixels"),
        (png(64, 64), "cannot be decoded"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Nothing that is no bounded image of a known format is decoded."""
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """No file, and a folder in place of one, are told apart from damage."""
    for path in (tmp_path / "none.png", tmp_path, Path("a\0b")):
        with pytest.raises(InputError):
            read_image(path)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb(9, 11)).save(stream, kind)
    return stream.getvalue()


FILES = {kind: encoded(kind) for kind in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")}


@given(
    kind=st.sampled_from(sorted(FILES)),
    place=st.floats(0, 1),
    change=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damaged_files_never_escape(
    tmp_path: Path, kind: str, place: float, change: bytes, cut: bool
) -> None:
    """Any damage gives an array or one of our errors."""
    data = FILES[kind]
    at = int(place * len(data))
    path = tmp_path / "x.img"
    path.write_bytes(data[:at] + (b"" if cut else change + data[at + len(change) :]))
    try:
        found = read_image(path)
    except AdcompileError as error:
        message = str(error)
    else:
        message = str(path) if found.ndim == 3 and found.dtype.kind == "u" else ""
    assert str(path) in message


def test_find_images_sorted_without_links(tmp_path: Path) -> None:
    """Only real image files, by name; an empty folder is an error."""
    with pytest.raises(InputError, match="holds no image"):
        find_images(tmp_path)
    for name in ("b.png", "a.JPG", "note.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    assert [p.name for p in find_images(tmp_path)] == ["a.JPG", "b.png"]
