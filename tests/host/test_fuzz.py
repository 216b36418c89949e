"""Every reader of the C++ side under libFuzzer, for a bounded time.

Longer: ``python -m tests.host.test_fuzz SECONDS``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
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
from adcompile.backends.npu.session import Wishes, plan_session
from tests.host.pictures import claims

HERE = Path(__file__).parent
SECONDS = 4
LONGEST_FILE = 4096
# A PNG of LONGEST_FILE bytes holds at most 1032 times as many packed bytes; one bit of a palette
# picture becomes three bytes. Nothing else may take as much at once.
LARGEST_MIB = LONGEST_FILE * 1032 * 24 // 2**20 + 1
# The program and its corpus take about 110 MiB; a picture that grows is held twice, once at up to
# double size; the sanitizer adds an eighth.
MEMORY_MIB = 128 + 4 * LARGEST_MIB
# Freed memory must not count as used: libFuzzer looks at what the process holds.
LARGEST_CLAIM_MIB = 2  # a stream is taken in pieces of one MiB
CATEGORY = {
    "schema_version": 1,
    "engine": {"p": "0"},
    "files": {"a": {"sha256": hashlib.sha256(b"").hexdigest()}},
    "score": {
        "normalisation": "min_max",
        "compare": ">",
        "threshold": 1,
        "minimum": 0,
        "maximum": 2,
    },
    "banks": ["a"],
    "weights": "",
}
TENSOR = {"name": "x", "dtype": "float32", "shape": ["n", 3]}
PART = {
    "name": "p",
    "role": "p",
    "placement": "host",
    "executor": "cpu",
    "precision": "fp32",
    "inputs": [TENSOR],
    "outputs": [TENSOR],
    "options": {"o": "1"},
}
MANIFEST = {"schema_version": 1, "parts": [PART]}
LAYOUT = '{"inputs":{"x":[7,7,8,8,0]},"outputs":{"y":[1,1,8,8,1]},"grids":[[2,2],[3,4]]}'
REPORT = {"deviceStat": [{"name": "NPU", "nodeNum": 2, "supportedOpType": ["::Conv"]}]}
SANITIZER = "quarantine_size_mb=8:allocator_release_to_os_interval_ms=0"


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
        (7, json.dumps(CATEGORY).encode()),
        (8, LAYOUT.encode()),
        (9, json.dumps(MANIFEST).encode()),
        (
            10,
            plan_session("phx", "1.3", "xint8", "k", Wishes(cpu_fallback=False))
            .as_json()
            .encode(),
        ),
        (11, json.dumps(REPORT).encode()),
    ]
    picture = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    palette = picture.quantize(2)
    for image, kind, options in (
        (picture, "PNG", {}),
        (palette, "PNG", {"bits": 1}),
        (picture, "JPEG", {}),
        (picture, "JPEG", {"progressive": True}),
        (palette, "BMP", {}),
        (picture, "BMP", {}),
        (picture, "PPM", {}),
    ):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        samples.append((2, stream.getvalue()))
    samples.append((4, stream.getvalue() * 2))
    for number, (which, data) in enumerate(samples):
        (folder / f"seed{number}").write_bytes(bytes([which]) + data)


def build(folder: Path) -> Path:
    """The fuzzer with both sanitizers."""
    program = folder / "fuzzer"
    wanted = {
        "category.cpp",
        "image.cpp",
        "image_pnm.cpp",
        "image_bmp.cpp",
        "json.cpp",
        "manifest.cpp",
        "mosaic.cpp",
        "mosaic_layout.cpp",
        "npy.cpp",
        "part.cpp",
        "placement_report.cpp",
        "provider_session.cpp",
        "weights.cpp",
        "sha256.cpp",
        "threads.cpp",
    }
    names = [n for n in core_sources() if n in wanted or n.startswith("bank_")]
    files = [HERE / "fuzz_main.cpp", *(NATIVE / n for n in names)]
    files += [NATIVE / "image_png.cpp", NATIVE / "image_jpeg.cpp"]
    flags = ["-O1", "-g1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags += ["-DADC_WITH_PNG", "-DADC_WITH_JPEG", f"-I{NATIVE}", "-pthread"]
    command = ["clang++", *STRICT, *flags, *map(str, files), "-lpng", "-ljpeg"]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def fuzz(program: Path, folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run for *seconds*; libFuzzer's exit code is not 0 when it finds something."""
    seeds(folder / "seeds")
    # a loaded machine may stop a process for ten seconds; a real hang has no end
    limits = [f"-max_total_time={seconds}", "-timeout=30", f"-max_len={LONGEST_FILE}"]
    limits += [f"-malloc_limit_mb={LARGEST_MIB}", f"-rss_limit_mb={MEMORY_MIB}"]
    # A program's peak memory starts at that of the process that started it (Linux keeps ru_maxrss
    # across exec), and a test process holds more than the limit: a shell stands between the two.
    between = ["sh", "-c", '"$@"; exit $?', "sh"]
    return subprocess.run(
        [*between, str(program), *limits, "-seed=1", str(folder / "seeds")],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "ASAN_OPTIONS": SANITIZER},
    )


@pytest.mark.skipif(shutil.which("clang++") is None, reason="libFuzzer comes with clang")
def test_readers_survive_damaged_files(tmp_path: Path) -> None:
    """No crash, no hang, no over-read, bounded memory."""
    program = build(tmp_path)
    for number, data in enumerate(claims().values()):
        for which in (2, 4):  # a whole file; a stream of frames
            (tmp_path / f"claim{number}-{which}").write_bytes(bytes([which]) + data)
    few = [f"-malloc_limit_mb={LARGEST_CLAIM_MIB}", *map(str, sorted(tmp_path.glob("claim*")))]
    claimed = subprocess.run([str(program), *few], capture_output=True, text=True, cwd=tmp_path)
    assert claimed.returncode == 0, claimed.stderr[-3000:]
    done = fuzz(program, tmp_path, SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        result = fuzz(
            build(Path(place)), Path(place), int(sys.argv[1]) if len(sys.argv) > 1 else 600
        )
        sys.stderr.write(result.stderr)
        sys.exit(result.returncode)
