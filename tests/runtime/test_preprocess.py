"""Pre-processing: the conventions of Pillow, OpenCV and torchvision, and our own rounding rules."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adcompile.contract import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from adcompile.errors import InputError
from adcompile.runtime.preprocess import place, placement, preprocess
from adcompile.runtime.resample import CONVENTIONS, pil_weights, resize

SIDE = st.integers(1, 70)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pillow(image: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    source = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    found = np.asarray(source.resize((width, height), how))
    return found if found.ndim == 3 else found[:, :, None]


@given(h=SIDE, w=SIDE, rows=SIDE, columns=SIDE, channels=st.sampled_from([1, 3]))
def test_pil_bilinear_is_pillows(h: int, w: int, rows: int, columns: int, channels: int) -> None:
    """Within one level always; equal where one pass runs, or Pillow goes across first as we do."""
    image = noise(h, w, channels, seed=h * w)
    ours = resize(image, rows, columns, "pil_bilinear").astype(int)
    theirs = pillow(image, rows, columns, Image.Resampling.BILINEAR)
    assert np.abs(ours - theirs).max() <= 1
    if rows >= h or columns == w:
        assert np.array_equal(ours, theirs)


@given(h=SIDE, w=SIDE, rows=SIDE, columns=SIDE)
def test_pil_nearest_is_pillows(h: int, w: int, rows: int, columns: int) -> None:
    """Exactly equal."""
    image = noise(h, w)
    theirs = pillow(image, rows, columns, Image.Resampling.NEAREST)
    assert np.array_equal(resize(image, rows, columns, "pil_nearest"), theirs)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is optional")
@given(h=SIDE, w=SIDE, rows=SIDE, columns=SIDE, channels=st.sampled_from([1, 3]))
def test_cv_conventions_are_opencvs(
    h: int, w: int, rows: int, columns: int, channels: int
) -> None:
    """Bilinear within one level of 255, nearest equal."""
    import cv2  # pyright: ignore[reportMissingImports]

    image = noise(h, w, channels, seed=h)
    for name, how, allowed in (
        ("cv_bilinear", cv2.INTER_LINEAR, 1),
        ("cv_nearest", cv2.INTER_NEAREST, 0),
    ):
        theirs = cv2.resize(image, (columns, rows), interpolation=how)
        theirs = theirs if theirs.ndim == 3 else theirs[:, :, None]
        ours = resize(image, rows, columns, name).astype(int)
        assert np.abs(ours - theirs).max() <= allowed


@given(size=st.integers(1, 400), out=st.integers(1, 400))
def test_weights_sum_to_one(size: int, out: int) -> None:
    """The taps of every output sum to one (to rounding) and stay inside the image."""
    first, table = pil_weights(size, out)
    assert np.abs(table.astype(np.int64).sum(axis=1) - (1 << 22)).max() <= table.shape[1]
    assert first.min() >= 0
    assert int((first + (table > 0).sum(axis=1)).max()) <= size


@pytest.mark.parametrize("how", sorted(CONVENTIONS))
def test_same_size_and_flat_images_are_kept(how: str) -> None:
    """Resizing to the same size changes nothing; a flat image stays flat."""
    image = noise(13, 9)
    assert np.array_equal(resize(image, 13, 9, how), image)
    flat = np.full((13, 9, 3), 201, np.uint8)
    assert (resize(flat, 30, 4, how) == 201).all()


def test_normalisation_order_in_float32() -> None:
    """((v * scale) - mean) / std, each step rounded to float32."""
    spec = Preprocess(size=(1, 256), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    tensor = preprocess(ramp, spec)
    assert tensor.shape == (1, 3, 1, 256)
    assert tensor.dtype == np.float32
    for channel in range(3):
        expected = np.arange(256, dtype=np.float32) * np.float32(1 / 255)
        expected = expected - np.float32(IMAGENET_MEAN[channel])
        expected = expected / np.float32(IMAGENET_STD[channel])
        assert np.array_equal(tensor[0, channel, 0], expected)


@pytest.mark.parametrize("layout", ["nchw", "chw", "nhwc", "hwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_layout_and_dtype(layout: str, dtype: str) -> None:
    """All layouts hold the same numbers; bytes pass unchanged where nothing is scaled."""
    spec = Preprocess.model_validate(
        {"size": (4, 6), "scale": 1.0, "layout": layout, "dtype": dtype}
    )
    image = noise(4, 6)
    tensor = preprocess(image, spec)
    assert str(tensor.dtype) == dtype
    plain = tensor[0] if layout[0] == "n" else tensor
    plain = plain.transpose(1, 2, 0) if layout.endswith("chw") else plain
    assert np.array_equal(plain.astype(int), image.astype(int))
    assert tensor.flags["C_CONTIGUOUS"]


def test_channels() -> None:
    """BGR is the reverse; grey is repeated; the two grey formulas round as documented."""
    image = noise(3, 3)
    rgb = preprocess(image, Preprocess(size=(3, 3), scale=1.0))
    bgr = preprocess(image, Preprocess(size=(3, 3), scale=1.0, channels="bgr"))
    assert np.array_equal(rgb[:, ::-1], bgr)
    three = preprocess(image[:, :, :1], Preprocess(size=(3, 3), scale=1.0))
    assert np.array_equal(three[0, 0], three[0, 2])
    one = {"size": (3, 3), "scale": 1.0, "channels": "gray", "mean": (0.0,), "std": (1.0,)}
    pil = preprocess(image, Preprocess.model_validate(one))[0, 0]
    assert np.array_equal(pil, np.asarray(Image.fromarray(image).convert("L"), np.float32))


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is optional")
def test_cv_gray_is_opencvs() -> None:
    """The grey formula of cv_* is OpenCV's, to one level."""
    import cv2  # pyright: ignore[reportMissingImports]

    image = noise(64, 64)
    spec = Preprocess(
        size=(64, 64), scale=1.0, channels="gray", mean=(0.0,), std=(1.0,), resample="cv_bilinear"
    )
    theirs = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    assert np.abs(preprocess(image, spec)[0, 0] - theirs).max() <= 1


def test_sixteen_bits_use_the_high_byte() -> None:
    """A 16-bit image gives what its high bytes give."""
    wide = np.random.default_rng(3).integers(0, 65536, (5, 4, 1), dtype=np.uint16)
    spec = Preprocess(size=(8, 8))
    assert np.array_equal(preprocess(wide, spec), preprocess((wide >> 8).astype(np.uint8), spec))


@given(h=st.integers(1, 3000), w=st.integers(1, 3000), rows=st.integers(1, 700))
def test_letterbox_fits_and_is_centred(h: int, w: int, rows: int) -> None:
    """One side fits exactly, the other is the nearest integer; the rest is split evenly."""
    where = placement(h, w, Preprocess(size=(rows, 500), resize="letterbox"))
    fit = min(rows / h, 500 / w)
    assert where.resized[0] == rows or where.resized[1] == 500
    for got, side, limit in ((where.resized[0], h, rows), (where.resized[1], w, 500)):
        assert 1 <= got <= limit
        assert abs(got - side * fit) <= 0.5 + 1e-9 or got == 1
    assert where.offset == ((rows - where.resized[0]) // 2, (500 - where.resized[1]) // 2)


def test_letterbox_pads_with_the_value() -> None:
    """Outside the image lies pad_value, inside the resized image."""
    spec = Preprocess(size=(8, 8), resize="letterbox", scale=1.0, pad_value=7)
    tensor = preprocess(np.full((4, 8, 3), 200, np.uint8), spec)[0, 0]
    assert (tensor[:2] == 7).all()
    assert (tensor[2:6] == 200).all()
    assert (tensor[6:] == 7).all()


@given(h=st.integers(8, 300), w=st.integers(8, 300))
def test_shorter_and_crop_as_torchvision(h: int, w: int) -> None:
    """Resize(8) + CenterCrop(7): longer side truncated, crop offset rounded half to even."""
    spec = Preprocess(size=(7, 7), resize="shorter", resize_to=8, crop=(7, 7))
    where = placement(h, w, spec)
    longer = int(8 * max(h, w) / min(h, w))
    assert sorted(where.resized) == sorted([8, longer])
    expected = tuple(round((side - 7) / 2.0) for side in where.resized)
    assert tuple(-o for o in where.offset) == expected


def test_boxes_go_back_to_the_image() -> None:
    """A box around the whole image in the tensor is the whole image, under every resize."""
    for resize_mode in ("stretch", "letterbox"):
        spec = Preprocess.model_validate({"size": (64, 48), "resize": resize_mode})
        _, where = place(noise(30, 50), spec)
        top, left = where.offset
        box = [left, top, left + where.resized[1], top + where.resized[0]]
        assert np.allclose(where.boxes_to_image(np.array([box])), [[0, 0, 50, 30]], atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 4, 4), "uint8"), ((4, 4, 2), "uint8"), ((0, 4, 3), "uint8"), ((4, 4, 3), "float32")],
)
def test_what_is_no_image(shape: tuple[int, ...], dtype: str) -> None:
    """Wrong channel counts, empty images and float pixels are refused."""
    with pytest.raises(InputError):
        preprocess(np.zeros(shape, dtype), Preprocess(size=(4, 4)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec",
    [
        {"size": (8, 8), "resize": "none"},
        {"size": (8, 8), "resize": "shorter", "resize_to": 6, "crop": (8, 8)},
        {"size": (8, 8), "resize": "stretch", "resize_to": (9, 9)},
    ],
)
def test_sizes_that_do_not_fit(spec: dict[str, object]) -> None:
    """A crop larger than the image, or an image that no resize fits, is refused."""
    with pytest.raises(InputError, match="tensor holds"):
        preprocess(noise(7, 20), Preprocess.model_validate(spec))
