"""The onnx package's node test cases, compiled and run: what the table lists, it computes.

By default a sample (the first case of every third operator); ``-m slow`` runs all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import HostLibrary
from adcompile.errors import ModelError, Unsupported
from tests.host.nodecases import Array, NodeCase, all_cases, claimed
from tests.host.retyped import Retyped, retyped_cases
from tests.host.support import QUICK, build

# name -> why the case is not expected to pass
KNOWN = {
    "resize_downsample_scales_linear_align_corners": "the file expects a fractional length; "
    "ONNX Runtime, our reference, uses the whole one",
    "resize_downsample_scales_cubic_align_corners": "as above",
    "mvn": "the file's own function body does not pass shape inference",
    "mvn_expanded": "as above",
    "reduce_log_sum_exp_empty_set_expanded": "shape inference broadcasts 0 and 1 to 1",
}
STEP = 3


def ready(cases: Sequence[NodeCase]) -> list[tuple[NodeCase, ir.Model]]:
    """Cases whose types the table claims and that are no training graphs."""
    found: list[tuple[NodeCase, ir.Model]] = []
    for case in cases:
        if case.name in KNOWN or "training" in case.name:
            continue
        made = case.model()
        if claimed(made):
            found.append((case, made))
    return found


def sample() -> list[NodeCase]:
    """The first case of every third operator, by name."""
    first: dict[str, NodeCase] = {}
    for case in all_cases():
        if case.name in KNOWN or "training" in case.name:
            continue
        first.setdefault(case.name.partition("_")[0], case)
    return list(first.values())[::STEP]


def failures(library: HostLibrary, cases: Sequence[tuple[NodeCase, ir.Model]]) -> list[str]:
    """One line per case whose result differs from the file's."""
    bad: list[str] = []
    for (case, made), name in zip(cases, library.names(), strict=True):
        part = library.part(name)
        for feeds, wanted in case.data(made):
            got = list(part.run(feeds).values())
            bad += differences(case.name, got, wanted, case.rtol, case.atol)
        part.close()
    return bad


def differences(
    name: str,
    got: Sequence[Array],
    wanted: Sequence[Array],
    rtol: float = 1e-3,
    atol: float = 1e-6,
) -> list[str]:
    """A line for every result of another type or shape, or outside the tolerance."""
    bad: list[str] = []
    for i, (mine, right) in enumerate(zip(got, wanted, strict=True)):
        if mine.dtype != right.dtype or mine.shape != right.shape:
            bad.append(f"{name}: {mine.dtype}{mine.shape}, not {right.dtype}{right.shape}")
        elif not close(mine, right, rtol, atol):
            bad.append(f"{name}: output {i} differs")
    return bad


def close(got: Array, wanted: Array, rtol: float, atol: float) -> bool:
    """Within the tolerance, or that of 16-bit floats."""
    narrow = {2: 2e-3}.get(wanted.dtype.itemsize, 1e-3) if wanted.dtype.kind != "i" else 0.0
    narrow = 2e-2 if wanted.dtype.name == "bfloat16" else narrow
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    return bool(np.allclose(a, b, rtol=max(rtol, narrow), atol=max(atol, 1e-6), equal_nan=True))


def check(cases: Sequence[NodeCase], folder: Path) -> int:
    """Build all cases into one library and compare; returns how many there were."""
    todo = ready(cases)
    library = build([(case.name, made) for case, made in todo], folder, QUICK)
    assert failures(library, todo) == []
    return len(todo)


def test_sample_of_node_cases(tmp_path: Path) -> None:
    """One case of every third operator equals its recorded result."""
    assert check(sample(), tmp_path) >= 35


@pytest.mark.slow
def test_all_node_cases(tmp_path: Path) -> None:
    """Every case of every listed operator equals its recorded result."""
    count = check(all_cases(), tmp_path)
    print(f"{count} node cases")
    assert count > 1100


def check_types(cases: Sequence[Retyped], folder: Path) -> None:
    """Build all cases into one library and compare."""
    library = build([(case.name, case.model) for case in cases], folder, QUICK)
    bad: list[str] = []
    for case, name in zip(cases, library.names(), strict=True):
        part = library.part(name)
        got = list(part.run(case.feeds).values())
        bad += differences(case.name, got, case.wanted, atol=absolute(case))
        part.close()
    assert bad == []


def absolute(case: Retyped) -> float:
    """Bound for narrow types: what a step before the last lost by rounding."""
    first = case.wanted[0].dtype
    if first.kind in "iub":
        # Where the reference evaluator rounds, ONNX Runtime and we cut.
        return 1.0 if case.name.startswith("resize") else 1e-6
    return 1e-6 if min(w.dtype.itemsize for w in case.wanted) > 2 else 2e-2


@pytest.fixture(scope="module")
def retyped() -> list[Retyped]:
    """Claimed element types without a case in the package."""
    made, left = retyped_cases(set(KNOWN))
    # Types that ONNX or its reference evaluator do not know for that operator.
    assert len(left) < 60
    return made


def test_sample_of_other_types(retyped: list[Retyped], tmp_path: Path) -> None:
    """Every twenty-fifth pair of operator and claimed type."""
    check_types(retyped[::25], tmp_path)


@pytest.mark.slow
def test_all_other_types(retyped: list[Retyped], tmp_path: Path) -> None:
    """Every claimed type of every operator."""
    print(f"{len(retyped)} operators and types")
    assert len(retyped) > 700
    check_types(retyped, tmp_path)


def test_training_graphs_are_refused() -> None:
    """What the table does not claim is refused by name, not computed wrongly."""
    cases = [c for c in all_cases() if "training" in c.name]
    assert cases
    for case in cases:
        with pytest.raises((Unsupported, ModelError)):
            generate([(case.name, case.model())])
