"""The guard against skipped tests works: in CI a skip fails, elsewhere and for hardware it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest
def test_fine(): pass
def test_skipped(): pytest.skip("nothing here")
@pytest.mark.skipif(True, reason="never") 
def test_marked(): pass
@pytest.mark.trt
def test_hardware(): pytest.skip("no GPU")
@pytest.mark.xfail
def test_known(): assert False
"""


def outcome(folder: Path, text: str, ci: str) -> str:
    """The last line that pytest prints about *text*."""
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = trt: needs a GPU\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.no_skips",
            "-p",
            "no:cacheprovider",
            ".",
        ],
        cwd=folder,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("ci", "counts"),
    [
        ("", "1 passed, 3 skipped, 1 xfailed"),
        ("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"),
    ],
)
def test_skips_in_ci(ci: str, counts: str, tmp_path: Path) -> None:
    """Two skips fail, in the test or before it; one of hardware and an expected failure do not."""
    assert counts in outcome(tmp_path, TESTS, ci)


def test_a_file_that_skips_itself(tmp_path: Path) -> None:
    """A missing module must not hide a whole file."""
    text = "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n"
    assert "1 skipped" in outcome(tmp_path, text, "")
    assert "1 error" in outcome(tmp_path, text, "1")
