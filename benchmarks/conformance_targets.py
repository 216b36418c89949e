"""Every model that comes inside the ``onnx`` package, compiled for every target and executed.

    python benchmarks/conformance_targets.py [--targets trt,npu,drpai] [--match REGEX] [--every N]
                                             [--jobs N] [--journal FILE] [--quiet]

Each model is built at fp32, loaded, and run in simulation on all its recorded samples; its outputs
must be the expected ones. ONNX Runtime is asked first: what it cannot run itself, or gives other
values for, is listed by name with the reason. Prints the counts; exits 1 when anything failed.

``--journal`` keeps every result in a file of JSON lines as soon as it is known. A run that was
stopped goes on where it was; delete the file after a change of the compiler.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
from conformance import ROOT, Case, cases, same, samples

import adcompile
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import AdcompileError
from adcompile.runtime.session import open_session

RANDOM_OPS = frozenset(
    (
        *("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    )
)
OPTIONS = BuildOptions(
    precision="fp32", verify="none", golden_count=0, host_code=False, force=True, cache=False
)
Sample = tuple[dict[str, object], list[object]]


@dataclass
class Outcome:
    """What became of one case: why ONNX Runtime cannot run it, or per target what went wrong."""

    case: str
    not_run: str = ""
    wrong: dict[str, str] = field(default_factory=dict)  # target -> "" when all is right


def recorded(case: Case) -> Iterator[Sample]:
    """Feeds and expected outputs. The light models' outputs were made with a ramp from 0 to 1."""
    if not case.name.startswith("light/"):
        yield from samples(case)
        return
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
    yield feeds, [onnx.numpy_helper.to_array(t) for t in outputs]


def refusal(case: Case, data: Sequence[Sample]) -> str:
    """Why ONNX Runtime itself does not reproduce the recorded outputs; "" when it does."""
    try:
        session = open_session(case.model.read_bytes(), optimize=False)
        for feeds, expected in data:
            got = list(session.run(feeds).values())  # type: ignore[arg-type]
            if wrong := _first_difference(expected, got):
                return _random_op(case) or f"ONNX Runtime itself: {wrong}"
    except AdcompileError as error:
        return f"{error.what}: {error.why}".splitlines()[0][:160]
    return ""


def _random_op(case: Case) -> str:
    ops = {node.op_type for node in onnx.load(str(case.model)).graph.node}
    return f"random by definition: {', '.join(sorted(ops & RANDOM_OPS))}" * bool(ops & RANDOM_OPS)


def _first_difference(expected: Sequence[object], got: Sequence[object]) -> str:
    if len(expected) != len(got):
        return f"{len(got)} outputs, expected {len(expected)}"
    for number, (want, have) in enumerate(zip(expected, got, strict=True)):
        if wrong := same(want, have):
            return f"output {number}: {wrong}"
    return ""


def run_compiled(case: Case, data: Sequence[Sample], target: str, scratch: Path) -> str:
    """Build, load, run, compare; "" when all is right, otherwise what went wrong."""
    try:
        compile(case.model, target, scratch / "bundle", OPTIONS)
        with adcompile.load(scratch / "bundle", device="simulate") as bundle:
            for feeds, expected in data:
                outputs = bundle.run(feeds).outputs  # type: ignore[arg-type]
                got = [outputs[spec.name] for spec in bundle.outputs]
                if wrong := _first_difference(expected, got):
                    return wrong
    except AdcompileError as error:
        return f"{type(error).__name__}: {error.what} {error.why}"[:200]
    except Exception as error:  # a crash of one case is a finding, and no reason to stop
        return f"crash: {type(error).__name__}: {error}"[:200]
    return ""


def judge(case: Case, targets: Sequence[str]) -> Outcome:
    """One case on every target."""
    data = list(recorded(case))
    if why := refusal(case, data):
        return Outcome(case.name, not_run=why)
    with tempfile.TemporaryDirectory() as folder:
        wrong = {t: run_compiled(case, data, t, Path(folder)) for t in targets}
    return Outcome(case.name, wrong=wrong)


def outcomes(
    chosen: Sequence[Case], targets: Sequence[str], jobs: int, journal: Path | None
) -> list[Outcome]:
    """Judge all cases, those of the journal excepted; failures are printed as they come."""
    done = {o.case: o for o in _read(journal) if o.not_run or set(targets) <= set(o.wrong)}
    names = {case.name for case in chosen}
    found = [o for name, o in done.items() if name in names]
    todo = [case for case in chosen if case.name not in done]
    for number, outcome in enumerate(_judged(todo, targets, jobs)):
        found.append(outcome)
        if journal is not None:
            with journal.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(outcome)) + "\n")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{number + 1}/{len(todo)} {outcome.case:<70.70}")
    return sorted(found, key=lambda o: o.case)


def _judged(todo: Sequence[Case], targets: Sequence[str], jobs: int) -> Iterator[Outcome]:
    """Every case judged, in the order in which they get ready."""
    if jobs == 1:
        for case in todo:
            yield judge(case, targets)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(judge, case, targets) for case in todo]):
            yield future.result()


def _read(journal: Path | None) -> list[Outcome]:
    if journal is None or not journal.is_file():
        return []
    return [Outcome(**json.loads(line)) for line in journal.read_text("utf-8").splitlines()]


def report(found: Sequence[Outcome], targets: Sequence[str], *, quiet: bool) -> int:
    """Print what could not be run, what failed, and the counts; the exit code."""
    skipped = [o for o in found if o.not_run]
    if not quiet:
        for outcome in skipped:
            print(f"not run: {outcome.case}: {outcome.not_run}")
    for outcome in found:
        for target, wrong in outcome.wrong.items():
            if wrong and target in targets:
                print(f"FAILED {outcome.case} [{target}]: {wrong}")
    groups = Counter(o.case.partition("/")[0] for o in found)
    print(f"{len(found)} models: " + ", ".join(f"{n} {g}" for g, n in sorted(groups.items())))
    print(f"{len(skipped)} that ONNX Runtime cannot run, or that are random by definition")
    failures = 0
    for target in targets:
        wrong = sum(1 for o in found if o.wrong.get(target))
        failures += wrong
        print(f"{target}: {len(found) - len(skipped) - wrong} right, {wrong} wrong")
    return 1 if failures else 0


def main() -> int:
    """Command line of the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", default="trt,npu,drpai")
    parser.add_argument("--every", type=int, default=1, help="take only every Nth case")
    parser.add_argument("--match", default="", help="take only cases whose name matches")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--journal", type=Path, help="keep results here and go on from it")
    parser.add_argument("--quiet", action="store_true", help="do not list what is not run")
    arguments = parser.parse_args()
    targets: list[str] = arguments.targets.split(",")
    started = time.monotonic()
    chosen = list(cases(match=arguments.match))[:: arguments.every]
    found = outcomes(chosen, targets, arguments.jobs, arguments.journal)
    code = report(found, targets, quiet=arguments.quiet)
    print(f"{time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
