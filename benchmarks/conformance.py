"""Every model that comes inside the ``onnx`` package, compiled for every target and executed.

    python benchmarks/conformance.py [--targets trt,npu,drpai] [--sets node,simple,…] [--every N]

Each model is built at fp32 and run in simulation; its outputs must be the expected ones. A model
that ONNX Runtime itself cannot run is listed by name with the reason. Prints the counts; exits 1
when anything failed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import __file__ as _test_package

import adcompile
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array
from adcompile.runtime.session import open_session

DATA = Path(_test_package).parent / "data"
SETS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
RTOL, ATOL = 1e-3, 1e-5


@dataclass(frozen=True)
class Case:
    """A model with one recorded input and the outputs expected for it."""

    name: str
    model: Path
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]


def cases(group: str) -> Iterator[Case]:
    """All cases of one set, by name."""
    folder = DATA / group
    if group == "light":
        for model in sorted(folder.glob("*.onnx")):
            outputs = tuple(sorted(folder.glob(f"{model.stem}_output_*.pb")))
            yield Case(f"light/{model.stem}", model, (), outputs)
        return
    for case in sorted(folder.iterdir()):
        data = case / "test_data_set_0"
        model = case / "model.onnx"
        if model.is_file() and data.is_dir():
            yield Case(
                f"{group}/{case.name}", model, _numbered(data, "input"), _numbered(data, "output")
            )


def _numbered(folder: Path, kind: str) -> tuple[Path, ...]:
    return tuple(sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1])))


def tensor(path: Path) -> Array | None:
    """A stored tensor; None when the file holds a sequence or another type."""
    proto = onnx.TensorProto()
    try:
        proto.ParseFromString(path.read_bytes())
        return np.asarray(numpy_helper.to_array(proto))
    except (ValueError, TypeError, RuntimeError, onnx.parser.ParseError):
        return None


@dataclass
class Data:
    """Feeds and expected outputs by name, or the reason why this case cannot be used."""

    feeds: dict[str, Array]
    expected: dict[str, Array]


def read(case: Case) -> Data | str:
    """Load a case and run it with ONNX Runtime as it is: what that cannot run, nobody can here."""
    try:
        proto = onnx.load(case.model)
        weights = {t.name for t in proto.graph.initializer}
        names = [v.name for v in proto.graph.input if v.name not in weights]
        if case.inputs or not case.name.startswith("light"):
            arrays = [tensor(p) for p in case.inputs]
        else:
            arrays = [_ramp(v) for v in proto.graph.input if v.name not in weights]
        if any(a is None for a in arrays):
            return "an input is no tensor"
        feeds = {n: a for n, a in zip(names, arrays, strict=False) if a is not None}
        session = open_session(case.model.read_bytes(), optimize=False)
        outputs = session.run(feeds)
    except (AdcompileError, RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        return str(error).splitlines()[0][:160]
    stored = [tensor(p) for p in case.outputs]
    if any(a is None for a in stored):
        return "an output is no tensor"
    order = [v.name for v in proto.graph.output]
    expected = {n: a for n, a in zip(order, stored, strict=False) if a is not None}
    if wrong := compare(expected, dict(outputs)):
        return f"ONNX Runtime itself: {wrong}"
    return Data(feeds, expected)


def _ramp(value: onnx.ValueInfoProto) -> Array:
    """The input that the stored outputs of the light models were made with."""
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def run_compiled(case: Case, data: Data, target: str, scratch: Path) -> str:
    """Build, load, run, compare; "" when all is right, otherwise what went wrong."""
    bundle = scratch / "bundle"
    options = BuildOptions(
        precision="fp32", verify="none", golden_count=0, host_code=False, force=True, cache=False
    )
    try:
        compile(case.model, target, bundle, options)
        with adcompile.load(bundle, device="simulate") as opened:
            got = opened.run(data.feeds).outputs
    except AdcompileError as error:
        return f"{type(error).__name__}: {error.what} {error.why}"[:200]
    return compare(data.expected, got)


def compare(expected: Mapping[str, Array], got: Mapping[str, Array]) -> str:
    """The first output that differs, in words."""
    for name, want in expected.items():
        have = got.get(name)
        if have is None:
            return f"output {name!r} is missing"
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"output {name!r}: {have.dtype}{have.shape}, not {want.dtype}{want.shape}"
        if want.dtype.kind in "fc":
            if not np.allclose(have, want, rtol=RTOL, atol=ATOL, equal_nan=True):
                return f"output {name!r} differs by {np.nanmax(np.abs(have - want)):.3g}"
        elif not np.array_equal(have, want):
            return f"output {name!r} differs"
    return ""


RANDOM = ("dropout", "bernoulli", "random", "multinomial", "training")  # not a function


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="trt,npu,drpai")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--every", type=int, default=1, help="take only every Nth case")
    parser.add_argument("--match", default="", help="take only cases whose name holds this text")
    parser.add_argument("--list-skipped", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    chosen = [c for group in arguments.sets.split(",") for c in cases(group)]
    chosen = [c for c in chosen if arguments.match in c.name][:: arguments.every]
    counts: Counter[tuple[str, str]] = Counter()
    skipped: list[tuple[str, str]] = []
    failed: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(chosen):
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{number}/{len(chosen)} {case.name:<70.70}")
            data = read(case)
            if isinstance(data, str):
                skipped.append((case.name, data))
                continue
            if any(word in case.name for word in RANDOM) and "default" not in case.name:
                skipped.append((case.name, "random by definition"))
                continue
            for target in arguments.targets.split(","):
                wrong = run_compiled(case, data, target, Path(folder))
                counts[target, "wrong" if wrong else "right"] += 1
                if wrong:
                    failed.append((case.name, target, wrong))
    sys.stderr.write("\r" + " " * 90 + "\r")
    for name, target, why in failed:
        print(f"FAILED {name} [{target}]: {why}")
    for reason, count in Counter(r for _, r in skipped).most_common(
        None if arguments.list_skipped else 5
    ):
        print(f"not run, {count} cases: {reason}")
    if arguments.list_skipped:
        for name, reason in skipped:
            print(f"  {name}: {reason}")
    print(f"{len(chosen)} models, {len(skipped)} that ONNX Runtime cannot run or that are random")
    for target in arguments.targets.split(","):
        print(f"{target}: {counts[target, 'right']} right, {counts[target, 'wrong']} wrong")
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
