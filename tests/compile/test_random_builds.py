"""Whole builds of random models: whatever the target cannot take stays on the host, and it verifies.

Longer runs, one seed after the other:  python -m tests.compile.test_random_builds SECONDS [SEED]
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from adcompile.anomaly.formats.npz import write_npz
from adcompile.compiler import BuildOptions, compile
from tests.rewrite.random_models import random_model

TARGETS = (
    ("trt:orin-nx", "fp16"),
    ("trt:orin-nx", "int8"),
    ("trt:gpu@10.16", "fp32"),
    ("npu:stx", "xint8"),
    ("npu:phx", "a8w8"),
    ("drpai:v2h", "int8"),
)
# models in which a build once failed: a reader in a removed branch, a constant output in half
# precision, tensors without elements, and one that ONNX Runtime's optimizer spoils
FOUND = ((147, "npu:phx", "xint8"), (619, "trt:orin-nx", "fp16"), (140, "npu:stx", "a8w8"),
         (394, "drpai:v2h", "int8"))  # fmt: skip


def build(seed: int, target: str, precision: str, folder: Path) -> None:
    """The random model of *seed*, built and verified on its own feeds."""
    proto, feeds = random_model(seed, random.Random(seed).randint(1, 40))
    write_npz(folder / "golden.npz", feeds)
    options = BuildOptions(
        precision=precision,
        input_shapes={name: array.shape for name, array in feeds.items()},
        golden=(folder / "golden.npz",),
        golden_count=1,
        host_code=seed % 5 == 0,
        cache=False,
    )
    result = compile(proto, target, folder / "bundle", options)
    assert result.ok, result.notes


def case(seed: int) -> tuple[str, str]:
    """Target and precision that go with a seed."""
    return TARGETS[seed % len(TARGETS)]


@pytest.mark.parametrize(("seed", "target", "precision"), FOUND)
def test_models_that_once_failed(seed: int, target: str, precision: str, tmp_path: Path) -> None:
    """Found by longer runs of this file."""
    build(seed, target, precision, tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_random_models_build_and_verify(seed: int, tmp_path: Path) -> None:
    """Any valid model: control flow, empty tensors, numbers, every target."""
    build(seed, *case(seed), tmp_path)


def soak(seconds: float, first: int) -> int:
    """Build until the time is over; returns how many failed, each printed with its seed."""
    start, failed = time.monotonic(), 0
    for seed in itertools.count(first):
        if time.monotonic() - start > seconds:
            print(f"seeds {first} to {seed - 1}: {failed} failed")
            return failed
        with tempfile.TemporaryDirectory() as folder:
            try:
                build(seed, *case(seed), Path(folder))
            except Exception:  # whatever it is, the seed is wanted
                failed += 1
                print(f"seed {seed} {case(seed)}:")
                traceback.print_exc(limit=-3, file=sys.stdout)
    return failed


if __name__ == "__main__":
    words = dict(enumerate(sys.argv))
    sys.exit(min(1, soak(float(words.get(1, "600")), int(words.get(2, "0")))))
