"""Optimise every model of the onnx package's backend tests and run it: same answers as expected?

    python benchmarks/conformance.py [--group node] [--match REGEX] [--modes plain,constants]

``plain`` optimises the model as it is. ``constants`` first turns its inputs into constants, all at
once and one by one, so that folding and the analysis of shapes see every operator with data.
Prints counts, every failure, and by name and reason what ONNX Runtime itself cannot run.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import onnx_ir as ir
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from adcompile.errors import AdcompileError, ModelError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import count_nodes
from adcompile.rewrite.canonical import canonical
from adcompile.rewrite.instruments import Verify

GROUPS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
ROOT = Path(onnx.backend.test.__file__).parent / "data"
RTOL, ATOL = 1e-3, 1e-5


@dataclass
class Case:
    """A model file, its recorded samples, and what became of it."""

    name: str
    model: Path
    samples: list[Path]


@dataclass
class Outcome:
    """``state``: same, different, error, or runtime (ONNX Runtime cannot run the original)."""

    case: str
    mode: str
    state: str
    why: str = ""
    nodes: tuple[int, int] = (0, 0)


@dataclass
class Tally:
    """Outcomes by state."""

    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, mode: str, state: str) -> int:
        return sum(1 for o in self.outcomes if o.mode == mode and o.state == state)


@cache
def node_folder() -> Path:
    """The folder of the node cases. Packages from onnx 1.23 on make them when asked, and ship no
    files: they are written once for each version, to this checkout's cache."""
    packed = ROOT / "node"
    if packed.is_dir():
        return packed
    made = Path(__file__).parent.parent / ".cache" / f"onnx-{onnx.__version__}-node-cases"
    if not made.is_dir():
        made.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as scratch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some divide by zero on purpose
            whole = Path(scratch) / "node"
            whole.mkdir()
            for case in load_model_tests(kind="node"):
                write_case(case.model, case.data_sets or [], whole / case.name)
            with contextlib.suppress(OSError):  # another process was faster
                whole.rename(made)
    if not made.is_dir():
        raise SystemExit(f"{made} cannot be made")
    return made


def write_case(
    model: onnx.ModelProto, data: Sequence[tuple[Sequence[object], Sequence[object]]], folder: Path
) -> None:
    """A case as the older packages store it: the model, and a file for each value of each sample."""
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    for number, sample in enumerate(data):
        place = folder / f"test_data_set_{number}"
        place.mkdir()
        sides = zip(
            ("input", "output"), sample, (model.graph.input, model.graph.output), strict=True
        )
        for kind, values, declared in sides:
            for i, (value, info) in enumerate(zip(values, declared, strict=False)):
                (place / f"{kind}_{i}.pb").write_bytes(stored(value, info).SerializeToString())


def stored(
    value: Any, info: onnx.ValueInfoProto
) -> onnx.TensorProto | onnx.SequenceProto | onnx.OptionalProto:
    """A tensor, sequence or optional as a message."""
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if isinstance(value, onnx.TensorProto):
        return value
    return numpy_helper.from_array(np.asarray(value), info.name)


def cases(groups: Sequence[str] = GROUPS, match: str = "") -> Iterator[Case]:
    """Every test case of the onnx package, in name order."""
    for group in groups:
        if group == "light":
            for model in sorted((ROOT / group).glob("*.onnx")):
                case = Case(f"light/{model.stem}", model, [])
                if re.search(match, case.name):
                    yield case
            continue
        folder = node_folder() if group == "node" else ROOT / group
        for model in sorted(folder.glob("*/model.onnx")):
            case = Case(
                f"{group}/{model.parent.name}", model, sorted(model.parent.glob("test_data_set_*"))
            )
            if re.search(match, case.name):
                yield case


def read_value(path: Path, kind: onnx.TypeProto | None) -> object:
    """A recorded tensor, sequence or optional."""
    data = path.read_bytes()
    which = kind.WhichOneof("value") if kind is not None else "tensor_type"
    if which == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if which == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def samples(case: Case) -> Iterator[tuple[dict[str, object], list[object]]]:
    """Inputs by name and expected outputs in order, for every recorded sample."""
    proto = onnx.load(str(case.model), load_external_data=False)
    stored = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in stored]
    if case.name.startswith("light/"):
        rng = np.random.default_rng(0)
        feeds = {
            v.name: rng.random([d.dim_value or 1 for d in v.type.tensor_type.shape.dim]).astype(
                np.float32
            )
            for v in inputs
        }
        yield feeds, []
        return
    for folder in case.samples:
        count = len(list(folder.glob("input_*.pb")))
        feeds = {
            v.name: read_value(folder / f"input_{i}.pb", v.type)
            for i, v in enumerate(proto.graph.input[:count])
        }
        wanted = [
            read_value(folder / f"output_{i}.pb", v.type) for i, v in enumerate(proto.graph.output)
        ]
        yield feeds, wanted


def same(a: object, b: object, rtol: float = RTOL, atol: float = ATOL) -> str:
    """Why two results differ, "" when they are the same; shapes and types must be equal."""
    if isinstance(a, (list, tuple)) or isinstance(b, (list, tuple)):
        if not isinstance(a, (list, tuple)) or not isinstance(b, (list, tuple)):
            return "one is a list"
        if len(a) != len(b):
            return f"{len(a)} items against {len(b)}"
        return next((w for x, y in zip(a, b, strict=True) if (w := same(x, y, rtol, atol))), "")
    if a is None or b is None:
        return "" if a is b else "one is absent"
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return f"shape {x.shape} against {y.shape}"
    if x.dtype != y.dtype and not (x.dtype.kind in "OUS" and y.dtype.kind in "OUS"):
        return f"type {x.dtype} against {y.dtype}"
    if x.dtype.kind in "OUSb":
        return "" if np.array_equal(x, y) else "values differ"
    if x.dtype.itemsize <= 2:  # half precision: ONNX Runtime computes in float and rounds at cuts
        rtol, atol = max(rtol, 4e-3), max(atol, 2e-3)
    x, y = (z.astype(np.complex128 if z.dtype.kind == "c" else np.float64) for z in (x, y))
    if np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    return f"values differ by {np.nanmax(np.abs(x - y)):.3g}"


def bind(model: ir.Model, feeds: dict[str, object], names: Sequence[str]) -> bool:
    """Turn the named inputs into constants; False when one is not a plain tensor."""
    for name in names:
        value = next((v for v in model.graph.inputs if v.name == name), None)
        array = feeds[name]
        if value is None or not isinstance(array, np.ndarray) or value.dtype is None:
            return False
        if not isinstance(value.type, ir.TensorType) or value.dtype == ir.DataType.STRING:
            return False
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, dtype=value.dtype, name=name)
        value.shape = ir.Shape(array.shape)
        model.graph.initializers.add(value)
    return True


def check(case: Case, mode: str, *, verify: bool = False) -> list[Outcome]:
    """Run one case in one mode; one outcome per sample and choice of constants."""
    results: list[Outcome] = []
    for feeds, wanted in samples(case):
        try:
            before = evaluate(model_io.load_model(case.model), feeds)  # type: ignore[arg-type]
        except AdcompileError as error:
            return [Outcome(case.name, mode, "runtime", error.why or error.what)]
        expected = wanted or list(before.values())
        off = [w for a, b in zip(before.values(), expected, strict=True) if (w := same(a, b))]
        if off:
            results.append(Outcome(case.name, mode, "runtime", f"gives other values: {off[0]}"))
            continue
        choices: list[tuple[str, ...]] = [()]
        if mode == "constants":
            names = list(feeds)
            choices = list(dict.fromkeys([tuple(names), *((n,) for n in names)]))
        reference = list(before.values())
        results += [_check_one(case, mode, feeds, reference, c, verify) for c in choices]
    return results


def _check_one(
    case: Case,
    mode: str,
    feeds: dict[str, object],
    expected: list[object],
    chosen: Sequence[str],
    verify: bool,
) -> Outcome:
    label = f"{case.name}{list(chosen) if chosen else ''}"
    try:
        model = model_io.load_model(case.model)
        if not bind(model, feeds, chosen):
            return Outcome(label, mode, "same")
        size = count_nodes(model)[1]
        canonical().run(
            model, Report(allowed=frozenset({"nan-weights"})), [Verify()] if verify else []
        )
        left = {k: v for k, v in feeds.items() if k not in chosen}
        after = list(evaluate(model, left).values())  # type: ignore[arg-type]
    except (AdcompileError, AssertionError, ArithmeticError) as error:
        why = error.why or error.what if isinstance(error, ModelError) else str(error)
        return Outcome(label, mode, "error", f"{type(error).__name__}: {why}")
    nodes = (size, count_nodes(model)[1])
    if len(after) != len(expected):
        return Outcome(label, mode, "different", "another number of outputs", nodes)
    pairs = zip(after, expected, strict=True)
    off = [w for a, b in pairs if (w := same(a, b, 1e-4, 1e-5))]
    return Outcome(label, mode, "different" if off else "same", off[0] if off else "", nodes)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", action="append", choices=GROUPS)
    parser.add_argument("--match", default="")
    parser.add_argument("--modes", default="plain,constants")
    parser.add_argument("--every", type=int, default=1, help="take every Nth case")
    parser.add_argument("--verify", action="store_true", help="check the model after each pass")
    parser.add_argument("--quiet", action="store_true", help="do not list what ORT cannot run")
    options = parser.parse_args()
    tally, start = Tally(), time.perf_counter()
    chosen = itertools.islice(
        cases(options.group or GROUPS, options.match), 0, None, options.every
    )
    for case in chosen:
        for mode in options.modes.split(","):
            found = check(case, mode, verify=options.verify)
            tally.outcomes += found
            for outcome in found:
                if outcome.state in ("different", "error"):
                    print(f"{outcome.state:9} {mode:9} {outcome.case}: {outcome.why}")
    for mode in options.modes.split(","):
        mine = [o for o in tally.outcomes if o.mode == mode]
        counts = collections.Counter(o.state for o in mine)
        before, after = (sum(o.nodes[i] for o in mine if o.state == "same") for i in (0, 1))
        print(f"{mode}: {dict(sorted(counts.items()))}; nodes {before} -> {after}")
    first = options.modes.split(",")[0]
    listed = [o for o in tally.outcomes if o.mode == first and o.state == "runtime"]
    print(f"not comparable, because of ONNX Runtime itself: {len(listed)}")
    if not options.quiet:
        for outcome in listed:
            print(f"  {outcome.case}: {outcome.why[:120]}")
    print(f"{time.perf_counter() - start:.0f} s")
    return int(any(o.state in ("different", "error") for o in tally.outcomes))


if __name__ == "__main__":
    sys.exit(main())
