"""Split execution against ONNX Runtime on the unsplit original.

    python benchmarks/split_overhead.py MODEL.onnx [--target trt] [--image photo.jpg] [--runs 20]

Both sides use the same input and the same number of threads; their runs alternate, so that a busy
machine slows both. "split" is the float model of every planned part through the runtime's own part
runner; "original" is the user's file in one session. The bar on Mask R-CNN: at most 3 % slower.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from adcompile.check.compare import compare
from adcompile.check.golden import make_inputs
from adcompile.check.reference import FloatParts
from adcompile.check.tolerance import Tolerances
from adcompile.cli.record import plan_parts
from adcompile.ir.graph import tensor_spec
from adcompile.job import BuildOptions
from adcompile.runtime.executor import Array
from adcompile.runtime.session import default_threads, open_session


def timed(run: Callable[[], Mapping[str, Array]]) -> tuple[float, Mapping[str, Array]]:
    start = time.perf_counter()
    outputs = run()
    return (time.perf_counter() - start) * 1e3, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="trt")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=default_threads())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        job = plan_parts(args.model, args.target, BuildOptions(), Path(work))
        inputs = [tensor_spec(v) for v in job.ir.graph.inputs]
        outputs = [tensor_spec(v) for v in job.ir.graph.outputs]
        images = [args.image] if args.image else []
        feeds = make_inputs(inputs, job.contract, images, count=1)[0].feeds
        original = open_session(args.model, threads=args.threads)
        with FloatParts(job.parts, inputs, outputs, threads=args.threads) as parts:
            whole: list[float] = []
            split: list[float] = []
            first: Mapping[str, Array] = {}
            second: Mapping[str, Array] = {}
            for number in range(args.runs + 3):
                order = [0, 1] if number % 2 else [1, 0]
                for which in order:
                    if which == 0:
                        ms, first = timed(lambda: original.run(feeds))
                    else:
                        ms, second = timed(lambda: parts.run(feeds).outputs)
                    if number >= 3:
                        (whole if which == 0 else split).append(ms)
            per_part = parts.run(feeds).parts
    results = compare(first, second, job.contract.roles, Tolerances.of({}))
    rows = {"original": whole, "split": split}
    print(
        f"{args.model.name}, {args.target}, {args.threads} threads, {args.runs} alternating runs"
    )
    print(f"{'':10}{'min ms':>10}{'median ms':>12}{'p90 ms':>10}")
    for name, values in rows.items():
        p90 = float(np.percentile(values, 90))
        print(f"{name:10}{min(values):10.2f}{statistics.median(values):12.2f}{p90:10.2f}")
    ratio = [b / a - 1 for a, b in zip(whole, split, strict=True)]
    print(
        f"split against original: median of pairs {statistics.median(ratio):+.1%}, "
        f"of minima {min(split) / min(whole) - 1:+.1%}"
    )
    print(
        f"parts ({len(per_part)}): "
        + ", ".join(f"{p.name} {p.seconds * 1e3:.2f}" for p in per_part)
    )
    print(
        "outputs: "
        + ", ".join(
            f"{c.name} {'equal enough' if c.ok else 'DIFFERENT'} ({c.metrics.get('max_abs', 0):.2g})"
            for c in results
        )
    )


if __name__ == "__main__":
    main()
