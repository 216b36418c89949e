"""Small models and compiled libraries for the tests of the host backend."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.backends.host.build import (
    NATIVE,
    STRICT,
    Toolchain,
    compile_library,
    find_compiler,
)
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from adcompile.ir.evaluate import evaluate
from adcompile.ir.shapes import infer_shapes
from tests.host import toolchains

Array = npt.NDArray[np.generic]
QUICK = ("-O0",)
CHECKED = ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")


def model(text: str, opset: int = 17) -> ir.Model:
    """A model from ONNX text without header, shapes inferred."""
    made = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    infer_shapes(made)
    return made


def build(
    models: Sequence[tuple[str, ir.Model]], folder: Path, flags: tuple[str, ...] = QUICK
) -> HostLibrary:
    """Generate, compile and open."""
    folder.mkdir(parents=True, exist_ok=True)
    generated = generate(models)
    path = compile_library(generated, folder, Toolchain(find_compiler(), flags), batch=64)
    return HostLibrary(path, folder / "weights.bin")


def assert_like_reference(
    library: HostLibrary, name: str, made: ir.Model, feeds: dict[str, Array]
) -> None:
    """The part's results equal ONNX Runtime's."""
    part = library.part(name)
    wanted = evaluate(made, feeds)
    got = part.run(feeds)
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        assert got[key].dtype == value.dtype
        np.testing.assert_allclose(got[key], value, rtol=1e-5, atol=1e-6, err_msg=f"{name} {key}")
    part.close()


def printed(source: str, toolchain: toolchains.Toolchain, program: Path) -> str:
    """What a small test program prints that needs the kernels' headers and threads only."""
    sources = [Path(__file__).parent / source]
    sources += [NATIVE / name for name in ("threads.cpp", "part.cpp")]
    command = [toolchain.compiler, *STRICT, *toolchain.flags, f"-I{NATIVE}", *map(str, sources)]
    made = subprocess.run(
        [*command, "-pthread", "-o", str(program)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run([*toolchain.runner, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
