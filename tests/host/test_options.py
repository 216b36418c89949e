"""Options of the generated project: OpenMP, OpenCV, constants inside the program, Windows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.backends.host.build import NATIVE, STRICT, find_compiler
from adcompile.contract import Preprocess
from adcompile.runtime.images import read_image
from adcompile.runtime.preprocess import preprocess
from tests.host.bundles import TestBundle, make_bundle
from tests.host.test_images import converted, natural

HERE = Path(__file__).parent
OPENCV = Path("/usr/include/opencv4")
WINDOWS = "x86_64-w64-mingw32-g++-posix"
needs_opencv = pytest.mark.skipif(not OPENCV.exists(), reason="needs libopencv-imgcodecs-dev")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> TestBundle:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return make_bundle(tmp_path_factory.mktemp("options"), {"a": picture})


def compile_program(
    out: Path, sources: list[Path], flags: list[str], libraries: list[str]
) -> Path:
    command = [find_compiler(), *STRICT, "-O1", *flags, f"-I{NATIVE}", *map(str, sources)]
    done = subprocess.run([*command, *libraries, "-o", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_openmp_does_what_the_own_threads_do(tmp_path: Path) -> None:
    """Every item once, exceptions reach the caller, nested loops work."""
    sources = [HERE / "threads_main.cpp", NATIVE / "threads_openmp.cpp"]
    program = compile_program(tmp_path / "program", sources, ["-fopenmp"], [])
    assert subprocess.run([str(program)]).returncode == 0


@pytest.fixture(scope="module")
def opencv_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture program with OpenCV and without libpng and libjpeg."""
    names = ("image", "image_pnm", "image_bmp", "image_opencv", "preprocess", "resample", "npy")
    sources = [HERE / "image_main.cpp", *(NATIVE / f"{n}.cpp" for n in (*names, "part"))]
    flags = ["-DADC_WITH_OPENCV", f"-isystem{OPENCV}"]
    libraries = ["-lopencv_imgcodecs", "-lopencv_imgproc", "-lopencv_core"]
    return compile_program(tmp_path_factory.mktemp("opencv") / "p", sources, flags, libraries)


@needs_opencv
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tiff", {}),
        ("a.webp", {"lossless": True}),
        ("a.png", {}),
        ("a.jpg", {}),
        ("a.bmp", {}),
        ("a.ppm", {}),
    ],
)
def test_opencv_reads_what_python_reads(
    name: str, options: dict[str, bool], opencv_program: Path, tmp_path: Path
) -> None:
    """The same bits for formats with and without a reader of our own."""
    Image.fromarray(natural(37, 53, 3)).save(tmp_path / name, **options)
    spec = Preprocess(size=(32, 40), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    wanted = preprocess(read_image(tmp_path / name), spec)
    np.testing.assert_array_equal(
        converted(opencv_program, tmp_path / name, spec, tmp_path), wanted
    )


@needs_opencv
def test_opencv_refuses_what_is_no_picture(opencv_program: Path, tmp_path: Path) -> None:
    """A sentence and exit code 2, like the own readers."""
    (tmp_path / "a.tiff").write_bytes(b"II*\0" + bytes(60))
    words = [tmp_path / "a.tiff", tmp_path / "out.npy", 8, 8, "stretch", 0, 0, "pil_bilinear"]
    command = [str(opencv_program), *map(str, words), "rgb", "nchw", "float32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a.tiff" in done.stderr


@needs_opencv
def test_opencv_draws(tmp_path: Path) -> None:
    """Small letters appear, which the built-in font does not have."""
    source = tmp_path / "draw.cpp"
    source.write_text(
        """#include "draw.hpp"
int main() {
  adc::Image image = adc::make_image(200, 60, 3, "test");
  const float box[4] = {5.0f, 30.0f, 190.0f, 55.0f};
  adc::draw_text(image, 5, 5, "zebra", 2, {255, 0, 0});
  adc::draw_box(image, box, {0, 255, 0});
  adc::write_image("drawn.ppm", image);
}
"""
    )
    names = ("image", "image_pnm", "image_bmp", "draw_opencv", "image_opencv", "npy", "part")
    sources = [source, *(NATIVE / f"{n}.cpp" for n in names)]
    flags = ["-DADC_WITH_OPENCV", f"-isystem{OPENCV}"]
    libraries = ["-lopencv_imgcodecs", "-lopencv_imgproc", "-lopencv_core"]
    program = compile_program(tmp_path / "program", sources, flags, libraries)
    subprocess.run([str(program)], check=True, cwd=tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "drawn.ppm"))
    text, frame = drawn[:26], drawn[26:]
    assert (text[:, :, 0] > 128).sum() > 50
    assert text[:, :, 1:].max() == 0
    assert (frame[:, :, 1] > 128).sum() > 300


@pytest.mark.slow
@needs_opencv
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_all_options_through_cmake(compiler: str, bundle: TestBundle, tmp_path: Path) -> None:
    """Configured, built and run with everything optional switched on."""
    options = ["OPENCV", "OPENMP"]
    configure = ["cmake", "-S", str(bundle.folder / "host"), "-B", str(tmp_path)]
    configure += [
        f"-DADC_WITH_{name}=ON" for name in options if compiler == "g++" or name != "OPENMP"
    ]
    configure += ["-DADC_EMBED_WEIGHTS=ON", f"-DCMAKE_CXX_COMPILER={compiler}"]
    subprocess.run(configure, check=True, capture_output=True)
    build = subprocess.run(
        ["cmake", "--build", str(tmp_path), "-j2"], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    subprocess.run([str(tmp_path / "selftest"), str(bundle.folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(WINDOWS) is None, reason="needs g++-mingw-w64-x86-64-posix")
def test_compiles_for_windows(bundle: TestBundle, tmp_path: Path) -> None:
    """Where Ryzen AI machines are: the same warnings are errors, nothing of POSIX is missed."""
    configure = ["cmake", "-S", str(bundle.folder / "host"), "-B", str(tmp_path)]
    configure += ["-DCMAKE_SYSTEM_NAME=Windows", f"-DCMAKE_CXX_COMPILER={WINDOWS}"]
    configure += ["-DADC_WITH_PNG=OFF", "-DADC_WITH_JPEG=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
    subprocess.run(configure, check=True, capture_output=True)
    command = ["cmake", "--build", str(tmp_path), "-j2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "selftest.exe").exists()
