"""Placement: what runs where, whether the split computes the same, and how time grows with nodes.

    python benchmarks/placement.py [MODEL.onnx …]

Without models only the scaling is measured. Multiply-adds count 100 regions per image.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from adcompile.cli.prepared import prepared
from adcompile.interfaces import Facts, Verdict
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import static_shape
from adcompile.job import BuildOptions, Job
from adcompile.place.plan import apply_plan, make_plan
from adcompile.place.targets import resolve_target

SPLITS = [("trt", "fp16"), ("npu", "xint8"), ("npu", "a8w8"), ("drpai", "int8")]
SIZES = (1_000, 10_000)


def split(job: Job, precision: str) -> str:
    """One line: coverage, parts, and the largest difference to the unsplit model."""
    start = time.perf_counter()
    plan = make_plan(job.ir, job.target, job.backend.supports, precision=precision)
    seconds = time.perf_counter() - start
    feeds = {
        v.name or "": np.random.default_rng(0).random(static_shape(v) or ()).astype(np.float32)
        for v in job.ir.graph.inputs
    }
    expected = evaluate(job.ir, feeds)
    values = dict(feeds)
    for part in apply_plan(job.ir, plan):
        given = {spec.name: values[spec.name] for spec in part.inputs}
        values |= evaluate(part.model, given)
    same = all(
        a.shape == values[n].shape and np.allclose(a, values[n], rtol=1e-4, atol=1e-5)
        for n, a in expected.items()
    )
    shapes = ", ".join(f"{n} {'×'.join(map(str, a.shape))}" for n, a in expected.items())
    parts = ", ".join(p.name for p in plan.parts if p.placement == "device")
    return (
        f"{job.target.name:<12} {precision:<6} {plan.coverage_nodes:6.1%} of nodes "
        f"{plan.coverage_macs:8.2%} of multiply-adds  {seconds:5.2f} s  "
        f"{'same results' if same else 'DIFFERENT RESULTS'} ({shapes}): {parts}"
    )


def chain(size: int) -> ir.Model:
    """A graph of *size* nodes where every seventh is refused by the device."""
    shape = ir.Shape((1, 8, 4, 4))
    kind = ir.TensorType(ir.DataType.FLOAT)
    first = last = ir.Value(name="x", type=kind, shape=shape)
    nodes: list[ir.Node] = []
    for i in range(size):
        out = ir.Value(name=f"v{i}", type=kind, shape=shape)
        op = "Sin" if i % 7 == 6 else "Relu"
        nodes.append(ir.Node("", op, [last], outputs=[out], name=f"n{i}"))
        last = out
    graph = ir.Graph([first], [last], nodes=nodes, opset_imports={"": 17}, name="chain")
    return ir.Model(graph, ir_version=9)


def supports(node: ir.Node, facts: Facts) -> Verdict:
    """Everything but Sin."""
    return Verdict.yes() if node.op_type != "Sin" else Verdict.no("Sin")


def main() -> None:
    """Print the table."""
    for name in sys.argv[1:]:
        print(Path(name).name)
        with prepared(Path(name), [t for t, _ in SPLITS], BuildOptions()) as jobs:
            for job, (_, precision) in zip(jobs, SPLITS, strict=True):
                print("  " + split(job, precision), flush=True)
    for size in SIZES:
        model = chain(size)
        start = time.perf_counter()
        plan = make_plan(model, resolve_target("cpu"), supports)
        apply_plan(model, plan)
        micro = (time.perf_counter() - start) / size * 1e6
        print(f"{size:>7} nodes: {micro:.0f} µs per node to place and cut", flush=True)


if __name__ == "__main__":
    main()
