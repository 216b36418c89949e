"""Mosaics of regions in C++: the images and rows of the Python executor, bit for bit."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from adcompile.backends.host.build import NATIVE, STRICT
from adcompile.backends.host.library import DTYPES
from adcompile.backends.simulation import PartSessions
from adcompile.errors import FormatError, InputError
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.executor import Array
from adcompile.runtime.session import Session
from adcompile.runtime.tiles import Mosaic, TileSpec, pack, parse_mosaic, unpack
from benchmarks.tile_library import TileLibrary, image_for
from tests.host.toolchains import TOOLCHAINS

HERE = Path(__file__).parent
SOURCES = (
    "mosaic_layout",
    "mosaic_stage",
    "rows",
    "json",
    "npy",
    "part",
    "sha256",
    "threads",
)
KINDS = ("float32", "float16", "int8", "uint8", "int64")


class Program:
    """The test program of a toolchain, whose kernels can be replaced."""

    def __init__(self, toolchain: str, folder: Path) -> None:
        self._made = TOOLCHAINS[toolchain]
        if self._made.missing:
            pytest.skip(f"needs {self._made.missing}")
        self._folder = folder
        sources = [HERE / "mosaic_main.cpp", *(NATIVE / f"{n}.cpp" for n in SOURCES)]
        self._objects = [self._compile(s, folder / f"{s.stem}.o") for s in sources]
        self.path = self.link("program", NATIVE / "mosaic.cpp")

    def _compile(self, source: Path, out: Path) -> Path:
        flags = [*STRICT, *self._made.flags, f"-I{NATIVE}", "-c", str(source), "-o", str(out)]
        subprocess.run([self._made.compiler, *flags], check=True)
        return out

    def link(self, name: str, kernels: Path) -> Path:
        """The program with *kernels* in the place of ``mosaic.cpp``."""
        objects = [*self._objects, self._compile(kernels, self._folder / f"{name}.o")]
        out = self._folder / name
        command = [self._made.compiler, *self._made.flags, *map(str, objects), "-pthread"]
        subprocess.run([*command, "-o", str(out)], check=True)
        return out


@dataclass
class FileDevice:
    """A device in Python: answers with random images, and keeps what it was given."""

    channels: Mapping[str, int]
    layout: Mosaic
    rng: np.random.Generator
    images: list[dict[str, Array]] = field(default_factory=list[dict[str, Array]])
    answers: list[dict[str, Array]] = field(default_factory=list[dict[str, Array]])

    def run(self, images: Mapping[str, Array]) -> dict[str, Array]:
        """One call; its images may be larger than the grid."""
        name, spec = next(iter(self.layout.inputs.items()))
        high, wide = images[name].shape[2:]
        grid = next(g for g in self.layout.grids if spec.image(g) == (high, wide))
        found: dict[str, Array] = {}
        for name, spec in self.layout.outputs.items():
            more = self.rng.integers(0, 3, 2)
            shape = (1, self.channels[name], *(np.add(spec.image(grid), more)))
            found[name] = self.rng.standard_normal(shape).astype(np.float32)
        self.images.append(dict(images))
        self.answers.append(found)
        return found


def draw_tile(rng: np.random.Generator) -> TileSpec:
    """A tensor of any tile and gutter; every third one is flat."""
    flat = bool(rng.integers(0, 3) == 0)
    height, width = (1, 1) if flat else (int(n) for n in rng.integers(1, 9, 2))
    gutter_y, gutter_x = (int(n) for n in rng.integers(0, 5, 2))
    return TileSpec(height, width, height + gutter_y, width + gutter_x, flat)


def draw_layout(rng: np.random.Generator, most_grids: int) -> Mosaic:
    """Up to two inputs and three outputs, grids that hold different numbers of tiles."""
    grids: dict[int, tuple[int, int]] = {}
    for _ in range(int(rng.integers(1, most_grids + 1))):
        rows, columns = (int(n) for n in rng.integers(1, 6, 2))
        grids[rows * columns] = (rows, columns)
    tiles = {f"t{i}": draw_tile(rng) for i in range(int(rng.integers(2, 6)))}
    split = int(rng.integers(1, min(len(tiles), 3)))
    named = list(tiles.items())
    return Mosaic(dict(named[:split]), dict(named[split:]), tuple(grids.values()))


def tensors(layout: Mosaic, rng: np.random.Generator) -> dict[str, TensorSpec]:
    """Name, type and shape of every tensor outside of images."""
    found: dict[str, TensorSpec] = {}
    for name, spec in {**layout.inputs, **layout.outputs}.items():
        channels = int(rng.integers(1, 20))
        tail = () if spec.flat else (spec.height, spec.width)
        kind = str(rng.choice(KINDS)) if name in layout.inputs else "float32"
        found[name] = TensorSpec(name=name, dtype=kind, shape=("n", channels, *tail))
    return found


def write_case(folder: Path, seed: int, rows: int | None = None) -> tuple[int, int]:
    """One case with what Python makes of it, in ``wanted_…`` files; rows and calls.

    *rows* None is drawn around the capacities of the layout.
    """
    rng = np.random.default_rng(seed)
    layout = draw_layout(rng, 3)
    specs = tensors(layout, rng)
    least, largest = layout.capacities()[0], layout.capacities()[-1]
    around = [0, 1, least - 1, least, least + 1, largest - 1, largest, largest + 1]
    count = int(rng.choice([*around, 3 * largest + least])) if rows is None else rows
    feeds: dict[str, Array] = {}
    for name in layout.inputs:
        shape = [count, *(d for d in specs[name].shape if isinstance(d, int))]
        feeds[name] = rng.integers(-100, 100, shape).astype(specs[name].dtype)
    device = FileDevice(
        {n: cast(int, specs[n].shape[1]) for n in specs}, layout, np.random.default_rng(seed)
    )
    record = PartRecord(
        name="net",
        placement="device",
        role="head",
        executor="npu",
        precision="fp32",
        rows="roi",
        inputs=tuple(specs[n] for n in layout.inputs),
        outputs=tuple(specs[n] for n in layout.outputs),
        files={f"device_{n}": f"rows{n}.onnx" for n in layout.capacities()},
        options={"mosaic": layout.dump()},
    )
    sessions = PartSessions(record, folder, "device", lambda _path: cast(Session, device))
    results = sessions.run(feeds)
    folder.mkdir()
    (folder / "layout").write_text(layout.dump())
    ports = [f"{'in' if n in layout.inputs else 'out'} {port(s)}" for n, s in specs.items()]
    (folder / "ports").write_text("\n".join(ports))
    for i, name in enumerate(layout.inputs):
        np.save(folder / f"in{i}.npy", feeds[name])
    for i, name in enumerate(layout.outputs):
        np.save(folder / f"wanted_out{i}.npy", results[name])
    for call, (images, answers) in enumerate(zip(device.images, device.answers, strict=True)):
        for i, name in enumerate(layout.inputs):
            np.save(folder / f"wanted_image{call}_{i}.npy", images[name])
        for i, name in enumerate(layout.outputs):
            np.save(folder / f"answer{call}_{i}.npy", answers[name])
    return count, len(device.images)


def port(spec: TensorSpec) -> str:
    """Name, type number and fixed dimensions."""
    return " ".join([spec.name, str(DTYPES[spec.dtype]), *map(str, spec.shape[1:])])


def run_cases(program: Path, folder: Path, runner: tuple[str, ...] = ()) -> list[str]:
    """One printed line per case, in the order of the names."""
    command = [*runner, str(program), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def differing(folder: Path) -> list[str]:
    """Files of a case that are not what Python made, shape, type and bits."""
    wrong: list[str] = []
    for wanted in sorted(folder.glob("wanted_*.npy")):
        made = folder / wanted.name.removeprefix("wanted_")
        if not made.exists():
            wrong.append(made.name)
            continue
        a, b = np.load(made), np.load(wanted)
        if (a.shape, a.dtype, a.tobytes()) != (b.shape, b.dtype, b.tobytes()):
            wrong.append(made.name)
    return wrong


@pytest.fixture(scope="module")
def checked_main(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program("gcc-asan-ubsan", tmp_path_factory.mktemp("mosaic"))


@pytest.mark.parametrize("toolchain", ["gcc-asan-ubsan", "arm64"])
def test_equals_python_bit_for_bit(toolchain: str, checked_main: Program, tmp_path: Path) -> None:
    """Random layouts, grids, element types and row counts: images, rows and calls; a later frame
    takes no memory."""
    seen: set[tuple[bool, bool]] = set()
    number = 150 if toolchain == "gcc-asan-ubsan" else 40
    cases = tmp_path / "cases"
    cases.mkdir()
    for seed in range(number):
        rows, calls = write_case(cases / f"{seed:03}", seed)
        seen.add((rows == 0, calls > 1))
    assert seen == {(True, False), (False, False), (False, True)}
    program = checked_main if number == 150 else Program(toolchain, tmp_path)
    lines = run_cases(program.path, cases, TOOLCHAINS[toolchain].runner)
    assert lines == ["0"] * number
    assert {c.name: differing(c) for c in cases.iterdir() if differing(c)} == {}


def test_thousand_rows_take_several_calls(checked_main: Program, tmp_path: Path) -> None:
    """As many calls as the largest image needs."""
    cases = tmp_path / "cases"
    cases.mkdir()
    rows, calls = write_case(cases / "a", 3, 1000)
    assert rows == 1000
    assert calls > 10
    assert run_cases(checked_main.path, cases) == ["0"]
    assert differing(cases / "a") == []


SABOTAGE = {
    "gutter": ("at += tile.pitch_x", "at += tile.width"),
    "gutter left as it was": ("at[x] = 0;", "static_cast<void>(at[x]);"),
    "empty tiles left as they were": ("std::fill(at, to + wide, T{0});", ""),
    "next tile": ("t % grid.columns * tile.pitch_x", "(t + 1) % grid.columns * tile.pitch_x"),
    "line": ("line * tile.width;", "(line + 1) % tile.height * tile.width;"),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_wrong_kernels_are_noticed(name: str, checked_main: Program, tmp_path: Path) -> None:
    """The comparison above fails for a wrong gutter, a tile or a line beside the right one."""
    source = (NATIVE / "mosaic.cpp").read_text()
    right, wrong = SABOTAGE[name]
    assert source.count(right) == 1
    (tmp_path / "mosaic.cpp").write_text(source.replace(right, wrong))
    program = checked_main.link("wrong", tmp_path / "mosaic.cpp")
    cases = tmp_path / "cases"
    cases.mkdir()
    for seed in range(20):
        write_case(cases / f"{seed:03}", seed)
    run_cases(program, cases)
    assert any(differing(case) for case in cases.iterdir())


TILE = "[7,7,8,8,0]"
GOOD = '{"inputs":{"t0":[7,7,8,8,0]},"outputs":{"t1":[1,1,8,8,1]},"grids":[[2,2],[3,4]]}'
REFUSED = {
    GOOD.replace('"grids"', '"more":1,"grids"'): "more",
    GOOD.replace(',"grids":[[2,2],[3,4]]', ""): "grids",
    GOOD.replace("[[2,2],[3,4]]", "[]"): "grids",
    GOOD.replace("[[2,2],[3,4]]", "[[0,2]]"): "grids[0].rows",
    GOOD.replace("[3,4]", "[3,65537]"): "grids[1].columns",
    GOOD.replace("[3,4]", "[65536,2]"): "grids[1]",
    GOOD.replace("[3,4]", "[4,1]"): "grids",
    GOOD.replace("[3,4]", "[3,4,5]"): "grids[1]",
    GOOD.replace("[3,4]", "[3,4.5]"): "grids[1].columns",
    GOOD.replace("[3,4]", "[3,-4]"): "grids[1].columns",
    GOOD.replace("[3,4]", "[3,1e300]"): "grids[1].columns",
    GOOD.replace(TILE, "[9,7,8,8,0]"): "inputs.t0.height",
    GOOD.replace(TILE, "[7,9,8,8,0]"): "inputs.t0.width",
    GOOD.replace(TILE, "[0,7,8,8,0]"): "inputs.t0.height",
    GOOD.replace(TILE, "[7,7,65537,8,0]"): "inputs.t0.pitch_y",
    GOOD.replace(TILE, "[7,7,65536,65536,0]"): "inputs.t0",
    GOOD.replace(TILE, "[7,7,8,18446744073709551617,0]"): "inputs.t0.pitch_x",
    GOOD.replace(TILE, "[7,7,8,8,1]"): "inputs.t0.flat",
    GOOD.replace(TILE, "[7,7,8,8,2]"): "inputs.t0.flat",
    GOOD.replace(TILE, "[7,7,8,8]"): "inputs.t0",
    GOOD.replace(TILE, '"7,7,8,8,0"'): "inputs.t0",
    GOOD.replace('"t0":' + TILE, ""): "inputs",
    GOOD.replace('{"t0":' + TILE + "}", "3"): "inputs",
}


def test_damaged_layouts_are_refused(checked_main: Program, tmp_path: Path) -> None:
    """Python and C++ name the same field; what does not fit the part's tensors is refused as well."""
    cases = tmp_path / "cases"
    texts = {
        **REFUSED,
        GOOD.replace("t0", "t9"): "'t0'",
        GOOD.replace(TILE, "[7,6,8,8,0]"): "'t0'",
    }
    for number, text in enumerate(texts):
        case = cases / f"{number:03}"
        case.mkdir(parents=True)
        (case / "layout").write_text(text)
        (case / "ports").write_text("in t0 1 3 7 7\nout t1 1 5")
    lines = run_cases(checked_main.path, cases)
    for line, (text, named) in zip(lines, texts.items(), strict=True):
        place = f"mosaic of part net.{named}:"
        assert line.startswith("error: "), text
        assert (place if text in REFUSED else named) in line, text
    for text, named in REFUSED.items():
        with pytest.raises(FormatError) as caught:
            parse_mosaic(text)
        assert caught.value.where == named
    assert parse_mosaic(GOOD).dump() == parse_mosaic(parse_mosaic(GOOD).dump()).dump()


def test_tiles_of_the_c_interface(tmp_path: Path) -> None:
    """Other programs pack and cut the same; memory that is too small and odd sizes are refused."""
    library = TileLibrary(tmp_path)
    rng = np.random.default_rng(1)
    grid = (3, 4)
    for seed in range(20):
        spec = draw_tile(np.random.default_rng(seed))
        tail = () if spec.flat else (spec.height, spec.width)
        rows = rng.standard_normal((7, 5, *tail)).astype(np.float16)
        image, again = image_for(rows, spec, grid), np.empty_like(rows)
        library.pack(rows, spec, grid, image)
        assert image.tobytes() == pack(rows, spec, grid).tobytes()
        library.unpack(image, spec, grid, again)
        assert again.tobytes() == unpack(image, spec, grid, 7).tobytes() == rows.tobytes()
        with pytest.raises(InputError, match="does not fit"):
            library.pack(rows, spec, grid, image[:, :4].copy())
        with pytest.raises(InputError, match="do not fit 6 tiles"):
            library.pack(rows, spec, (2, 3), image)
        with pytest.raises(InputError, match="does not hold"):
            library.unpack(image, spec, (3, 5), again)
        with pytest.raises(InputError, match="a grid of so many tiles"):
            library.pack(rows, spec, (2, -1), image)
