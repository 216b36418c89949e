"""Picture files and pre-processing in C++: equal, bit for bit, to the Python reference."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from adcompile.backends.host.build import NATIVE, STRICT, find_compiler
from adcompile.contract import Preprocess
from adcompile.runtime.images import read_image
from adcompile.runtime.preprocess import preprocess
from tests.detectors import photographs
from tests.host.pictures import claims

PICTURES = ("image", "image_pnm", "image_bmp", "image_png", "image_jpeg")
SOURCES = (*PICTURES, "preprocess", "resample", "npy", "part", "sha256")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program with libpng, libjpeg and sanitizers."""
    out = tmp_path_factory.mktemp("images") / "program"
    files = [Path(__file__).parent / "image_main.cpp", *(NATIVE / f"{n}.cpp" for n in SOURCES)]
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += ["-DADC_WITH_PNG", "-DADC_WITH_JPEG", f"-I{NATIVE}"]
    command = [find_compiler(), *STRICT, *flags, *map(str, files), "-lpng", "-ljpeg"]
    subprocess.run([*command, "-o", str(out)], check=True)
    return out


def natural(height: int, width: int, channels: int, bits: int = 8) -> npt.NDArray[np.generic]:
    """A picture with smooth parts, edges and noise."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[0:height, 0:width]
    base = 128 + 60 * np.sin(x / 7.3) + 50 * np.cos(y / 4.1) + 40 * ((x // 9 + y // 7) % 2)
    planes = [base + 20 * c + rng.normal(0, 12, base.shape) for c in range(channels)]
    top = (1 << bits) - 1
    picture = np.clip(np.stack(planes, axis=2) * (top / 255), 0, top)
    return picture.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per format and kind."""
    folder = tmp_path_factory.mktemp("pictures")
    made: dict[str, Image.Image] = {
        "colour.png": Image.fromarray(natural(61, 83, 3)),
        "grey.png": Image.fromarray(natural(47, 33, 1)[:, :, 0]),
        "rgba.png": Image.fromarray(natural(40, 52, 4), "RGBA"),
        "wide16.png": Image.fromarray(natural(38, 29, 1, bits=16)[:, :, 0]),
        "palette.png": Image.fromarray(natural(31, 45, 3)).quantize(17),
        "bits.png": Image.fromarray(natural(20, 24, 1)[:, :, 0]).convert("1"),
        "photo.jpg": Image.fromarray(natural(75, 101, 3)),
        "grey.jpg": Image.fromarray(natural(64, 49, 1)[:, :, 0]),
        "colour.bmp": Image.fromarray(natural(27, 35, 3)),
        "grey.bmp": Image.fromarray(natural(27, 35, 1)[:, :, 0]),
        "colour.ppm": Image.fromarray(natural(51, 37, 3)),
        "grey.pgm": Image.fromarray(natural(51, 37, 1)[:, :, 0]),
        "wide16.pgm": Image.fromarray(natural(22, 31, 1, bits=16)[:, :, 0]),
    }
    for name, image in made.items():
        image.save(folder / name)
    return {name: folder / name for name in made}


def converted(
    program: Path, picture: Path, spec: Preprocess, folder: Path
) -> npt.NDArray[np.generic]:
    """The C++ tensor of one picture."""
    to = spec.resize_to
    sides = (0, 0) if to is None else (to, to) if isinstance(to, int) else to
    words = [picture, folder / "out.npy", *spec.size, spec.resize, *sides, spec.resample]
    words += [spec.channels, spec.layout, spec.dtype]
    subprocess.run([str(program), *map(str, words)], check=True)
    array: npt.NDArray[np.generic] = np.load(folder / "out.npy")
    return array


def spec_of(**fields: object) -> Preprocess:
    grey = fields.get("channels") == "gray"
    values: dict[str, object] = {
        "size": (32, 40),
        "mean": (0.45,) if grey else (0.485, 0.456, 0.406),
        "std": (0.226,) if grey else (0.229, 0.224, 0.225),
        **fields,
    }
    return Preprocess.model_validate(values)


NAMES = [
    "colour.png",
    "grey.png",
    "rgba.png",
    "wide16.png",
    "palette.png",
    "bits.png",
    "photo.jpg",
    "grey.jpg",
    "colour.bmp",
    "grey.bmp",
    "colour.ppm",
    "grey.pgm",
    "wide16.pgm",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_file(
    name: str, program: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    """Decoded, resized and normalised to the same bits as Python."""
    spec = spec_of()
    wanted = preprocess(read_image(pictures[name]), spec)
    got = converted(program, pictures[name], spec, tmp_path)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


PHOTOGRAPHS = ["chelsea.png", "camera.png", "rocket.jpg", "coffee.png", "china.jpg", "retina.jpg"]
REAL: dict[str, dict[str, object]] = {
    "pil_bilinear": {"size": (97, 131)},
    "pil_nearest": {"size": (97, 131), "resample": "pil_nearest"},
    "cv_bilinear": {"size": (97, 131), "resample": "cv_bilinear"},
    "cv_nearest": {"size": (97, 131), "resample": "cv_nearest"},
    "letterbox": {"size": (160, 224), "resize": "letterbox"},
    "crop": {"resize_to": (129, 129), "size": (113, 113), "crop": (113, 113)},
}


@pytest.mark.parametrize("key", list(REAL))
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_real_photographs(name: str, key: str, program: Path, tmp_path: Path) -> None:
    """Odd sizes, colour and grey: the same bits, and the libraries' own result to one level."""
    with Image.open(next(p for p in photographs() if p.name == name)) as opened:
        odd = opened.crop((0, 0, opened.width - 1 + opened.width % 2, opened.height - 3))
    picture = tmp_path / "odd.png"
    odd.save(picture)
    spec = spec_of(**REAL[key])
    wanted = preprocess(read_image(picture), spec)
    got = converted(program, picture, spec, tmp_path)
    np.testing.assert_array_equal(got, wanted)
    if key in {"pil_bilinear", "pil_nearest", "cv_bilinear", "cv_nearest"}:
        levels = np.rint((got[0].transpose(1, 2, 0) * spec.std + spec.mean) * 255)
        theirs = resized_by_library(np.asarray(odd.convert("RGB")), key, spec.size)
        assert np.abs(levels - theirs).max() <= 1


def resized_by_library(
    pixels: npt.NDArray[np.uint8], key: str, size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """What Pillow or OpenCV makes of the picture."""
    sides = (size[1], size[0])
    if key.startswith("pil"):
        kind = Image.Resampling.BILINEAR if key == "pil_bilinear" else Image.Resampling.NEAREST
        return np.asarray(Image.fromarray(pixels).resize(sides, kind), np.float64)
    cv2 = pytest.importorskip("cv2")
    kind = cv2.INTER_LINEAR if key == "cv_bilinear" else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(pixels, sides, interpolation=kind), np.float64)


SPECS: dict[str, dict[str, object]] = {
    "pil_nearest": {"resample": "pil_nearest"},
    "cv_bilinear": {"resample": "cv_bilinear"},
    "cv_nearest": {"resample": "cv_nearest"},
    "larger": {"size": (130, 151)},
    "larger cv": {"size": (130, 151), "resample": "cv_bilinear"},
    "letterbox": {"resize": "letterbox"},
    "letterbox tall": {"resize": "letterbox", "size": (90, 20), "resample": "cv_bilinear"},
    "crop": {"resize": "shorter", "resize_to": 45, "size": (32, 32), "crop": (32, 32)},
    "grey pil": {"channels": "gray"},
    "grey cv": {"channels": "gray", "resample": "cv_bilinear"},
    "bgr": {"channels": "bgr"},
    "nhwc": {"layout": "nhwc"},
    "chw half": {"layout": "chw", "dtype": "float16"},
}


@pytest.mark.parametrize("key", list(SPECS))
def test_every_step_of_the_contract(
    key: str, program: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    """Resize conventions, placement, channels, layout and element type."""
    spec = spec_of(**SPECS[key])
    wanted = preprocess(read_image(pictures["colour.png"]), spec)
    got = converted(program, pictures["colour.png"], spec, tmp_path)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["colour.png", "photo.jpg", "colour.bmp", "colour.ppm"])
@pytest.mark.parametrize("keep", [0.02, 0.5])
def test_truncated_files_are_refused(
    name: str, keep: float, program: Path, pictures: dict[str, Path], tmp_path: Path
) -> None:
    """Half a picture is an error with a sentence, not a guess and not a crash."""
    data = pictures[name].read_bytes()
    file = tmp_path / name
    file.write_bytes(data[: int(len(data) * keep)])
    words = [file, tmp_path / "o.npy", 32, 40, "stretch", 0, 0, "pil_bilinear", "rgb", "nchw"]
    done = subprocess.run(
        [str(program), *map(str, words), "float32"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_pictures_for_print_are_refused_by_name(program: Path, tmp_path: Path) -> None:
    """Four inks are no colours of a screen; the file is not called damaged."""
    file = tmp_path / "print.jpg"
    Image.fromarray(natural(31, 45, 3)).convert("CMYK").save(file)
    words = [file, tmp_path / "o.npy", 32, 40, "stretch", 0, 0, "pil_bilinear", "rgb", "nchw"]
    done = subprocess.run(
        [str(program), *map(str, words), "float32"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "this one is for print (CMYK)" in done.stderr
    assert "damaged" not in done.stderr


@pytest.mark.parametrize("kind", ["pnm", "bmp", "png", "jpeg", "jpeg-progressive"])
def test_a_claimed_size_needs_bytes(kind: str, program: Path, tmp_path: Path) -> None:
    """8000 x 8000 pixels in a hundred bytes: refused for that reason, not for a later one."""
    picture = tmp_path / "claim"
    picture.write_bytes(claims()[kind])
    words = [picture, tmp_path / "out.npy", 8, 8, "stretch", 0, 0, "bilinear", "rgb", "nchw"]
    done = subprocess.run(
        [str(program), *map(str, words), "float32"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "too short" in done.stderr or "file of this size" in done.stderr
