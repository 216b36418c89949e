"""Every reader of the C++ side under libFuzzer, for a bounded time.

Longer: ``python -m tests.host.test_fuzz SECONDS``.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adcompile.anomaly.bank import pack_bank, prepare_bank
from adcompile.backends.host.build import NATIVE, STRICT
from adcompile.backends.host.codegen.constants import WeightStore
from adcompile.backends.host.emit import core_sources

HERE = Path(__file__).parent
SECONDS = 4
MEMORY_MIB = 1024


def seeds(folder: Path) -> None:
    """One valid file per reader, with the byte that selects it."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    store = WeightStore()
    store.add(rng.standard_normal(7).astype(np.float32))
    array = io.BytesIO()
    np.save(array, rng.standard_normal((2, 3)).astype(np.float32))
    rows = rng.standard_normal((5, 3)).astype(np.float32)
    samples: list[tuple[int, bytes]] = [
        (0, array.getvalue()),
        (1, json.dumps({"files": {"a": {"size": 1, "sha256": "é"}}, "x": [1.5, None]}).encode()),
        (5, store.file()),
        (6, pack_bank(prepare_bank(rows))),
    ]
    picture = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    for kind in ("PNG", "JPEG", "BMP", "PPM"):
        stream = io.BytesIO()
        picture.save(stream, kind)
        samples.append((2, stream.getvalue()))
    samples.append((4, stream.getvalue() * 2))
    for number, (which, data) in enumerate(samples):
        (folder / f"seed{number}").write_bytes(bytes([which]) + data)


def build(folder: Path) -> Path:
    """The fuzzer with both sanitizers."""
    program = folder / "fuzzer"
    wanted = {"image.cpp", "json.cpp", "npy.cpp", "part.cpp", "sha256.cpp"}
    names = [n for n in core_sources() if n in wanted or n.startswith("bank_")]
    files = [HERE / "fuzz_main.cpp", *(NATIVE / n for n in names)]
    files += [NATIVE / "image_png.cpp", NATIVE / "image_jpeg.cpp"]
    flags = ["-O1", "-g1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags += ["-DADC_WITH_PNG", "-DADC_WITH_JPEG", f"-I{NATIVE}", "-pthread"]
    command = ["clang++", *STRICT, *flags, *map(str, files), "-lpng", "-ljpeg"]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def fuzz(folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run for *seconds*; libFuzzer's exit code is not 0 when it finds something."""
    program = build(folder)
    seeds(folder / "seeds")
    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MIB}", "-timeout=10"]
    return subprocess.run(
        [str(program), *limits, "-max_len=4096", "-seed=1", str(folder / "seeds")],
        capture_output=True,
        text=True,
        cwd=folder,
    )


@pytest.mark.skipif(shutil.which("clang++") is None, reason="libFuzzer comes with clang")
def test_readers_survive_damaged_files(tmp_path: Path) -> None:
    """No crash, no hang, no over-read, bounded memory."""
    done = fuzz(tmp_path, SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        result = fuzz(Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else 600)
        sys.stderr.write(result.stderr)
        sys.exit(result.returncode)
