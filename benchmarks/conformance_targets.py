"""Every model that comes inside the ``onnx`` package, compiled for every target and executed.

    python benchmarks/conformance_targets.py [--targets trt,npu,drpai] [--match TEXT] [--every N]

Each model is built at fp32, loaded, and run in simulation; its outputs must be the expected ones. A
model that ONNX Runtime itself cannot run, or that is random by definition, is listed with the
reason (by name with --list-skipped). Prints the counts; exits 1 when anything failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from conformance import ROOT, Case, cases, same, samples

import adcompile
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import AdcompileError
from adcompile.interfaces import Array
from adcompile.runtime.session import open_session

RANDOM = ("dropout", "bernoulli", "random_", "randomnormal", "randomuniform", "multinomial")
OPTIONS = BuildOptions(
    precision="fp32", verify="none", golden_count=0, host_code=False, force=True, cache=False
)
Data = tuple[dict[str, Array], list[Array]]


def read(case: Case) -> Data | str:
    """Feeds and expected outputs, or why the case cannot be used: ONNX Runtime is asked first."""
    if any(word in case.name for word in RANDOM):
        return "random by definition"
    if case.name.startswith("light/"):
        feeds, wanted = _light(case)
    else:
        feeds, wanted = next(samples(case))
    values = [*feeds.values(), *wanted]
    if not all(isinstance(v, np.ndarray | np.generic) for v in values):
        return "an input or output is no tensor"
    arrays = {name: np.asarray(v) for name, v in feeds.items()}
    expected = [np.asarray(v) for v in wanted]
    try:
        got = open_session(case.model.read_bytes(), optimize=False).run(arrays)
    except AdcompileError as error:
        return f"{error.what}: {error.why}".splitlines()[0][:160]
    wrong = _first_difference(expected, list(got.values()))
    return f"ONNX Runtime itself: {wrong}" if wrong else (arrays, expected)


def _light(case: Case) -> tuple[dict[str, object], list[object]]:
    """The light models' stored outputs were made with a ramp from 0 to 1."""
    proto = onnx.load(str(case.model), load_external_data=False)
    stored = {t.name for t in proto.graph.initializer}
    feeds: dict[str, object] = {}
    for value in proto.graph.input:
        if value.name not in stored:
            shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            feeds[value.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    files = sorted((ROOT / "light").glob(f"{case.model.stem}_output_*.pb"))
    outputs = [onnx.TensorProto.FromString(f.read_bytes()) for f in files]
    return feeds, [onnx.numpy_helper.to_array(t) for t in outputs]


def _first_difference(expected: list[Array], got: list[Array]) -> str:
    for number, (want, have) in enumerate(zip(expected, got, strict=False)):
        if wrong := same(want, have):
            return f"output {number}: {wrong}"
    return ""


def run_compiled(case: Case, data: Data, target: str, scratch: Path) -> str:
    """Build, load, run, compare; "" when all is right, otherwise what went wrong."""
    feeds, expected = data
    try:
        compile(case.model, target, scratch / "bundle", OPTIONS)
        with adcompile.load(scratch / "bundle", device="simulate") as bundle:
            outputs = bundle.run(feeds).outputs
            got = [outputs[spec.name] for spec in bundle.outputs]
    except AdcompileError as error:
        return f"{type(error).__name__}: {error.what} {error.why}"[:200]
    return _first_difference(expected, got)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", default="trt,npu,drpai")
    parser.add_argument("--every", type=int, default=1, help="take only every Nth case")
    parser.add_argument("--match", default="", help="take only cases whose name matches")
    parser.add_argument("--list-skipped", action="store_true")
    arguments = parser.parse_args()
    targets = cast("str", arguments.targets).split(",")
    started = time.monotonic()
    chosen = list(cases(match=arguments.match))[:: arguments.every]
    counts: Counter[tuple[str, str]] = Counter()
    skipped: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(chosen):
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{number}/{len(chosen)} {case.name:<70.70}")
            data = read(case)
            if isinstance(data, str):
                skipped.append((case.name, data))
                continue
            for target in targets:
                wrong = run_compiled(case, data, target, Path(folder))
                counts[target, "wrong" if wrong else "right"] += 1
                if wrong:
                    print(f"FAILED {case.name} [{target}]: {wrong}", flush=True)
    if arguments.list_skipped:
        for name, reason in skipped:
            print(f"not run: {name}: {reason}")
    print(f"{len(chosen)} models, {len(skipped)} that ONNX Runtime cannot run or that are random")
    for target in targets:
        print(f"{target}: {counts[target, 'right']} right, {counts[target, 'wrong']} wrong")
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if any(kind == "wrong" for _, kind in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
