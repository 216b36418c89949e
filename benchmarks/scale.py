"""How time and memory grow: graphs of 1,000 to 100,000 nodes, and a model of several gigabytes.

    python benchmarks/scale.py [--nodes 1000,10000,100000] [--gigabytes 4]

The graphs are chains of blocks with something to fold, clean up and merge in each, so the pipeline
works everywhere. Time per node must not grow. For the large model the weights lie in a data file;
load, canonicalize and save must need less than a tenth of them in memory (private memory, measured
in a child process; pages of mapped files do not count, the system can drop them at any time).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.graph import count_nodes
from adcompile.rewrite.canonical import canonical

BLOCK = 10  # nodes per block below


def chain(nodes: int) -> bytes:
    """About *nodes* nodes: shape arithmetic, double transposes, neutral constants, equal branches."""
    made: list[onnx.NodeProto] = []
    weights = [
        numpy_helper.from_array(np.ones(1, np.float32), "one"),
        numpy_helper.from_array(np.asarray([0], np.int64), "zero"),
        numpy_helper.from_array(np.asarray([4], np.int64), "four"),
    ]
    x = "x"
    for i in range(nodes // BLOCK):

        def add(op: str, ins: list[str], out: str, i: int = i, **attributes: object) -> str:
            made.append(
                helper.make_node(op, ins, [f"{out}{i}"], name=f"{op}_{out}{i}", **attributes)
            )
            return f"{out}{i}"

        shape = add("Shape", [x], "s")
        first = add("Gather", [shape, "zero"], "g")
        target = add("Concat", [first, "four"], "t", axis=0)
        a = add("Reshape", [x, target], "a")
        b = add("Transpose", [a], "b", perm=[1, 0])
        c = add("Transpose", [b], "c", perm=[1, 0])
        d = add("Mul", [c, "one"], "d")
        e = add("Tanh", [d], "e")
        f = add("Tanh", [c], "f")
        x = add("Add", [e, f], "y")
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def time_graph(nodes: int) -> dict[str, float]:
    """Seconds of load, pipeline and save, and per node."""
    data = chain(nodes)
    start, cpu = time.perf_counter(), time.process_time()
    model = model_io.from_bytes(data)
    loaded = time.process_time()
    before = count_nodes(model)[1]
    canonical().run(model, Report())
    done = time.process_time()
    model_io.to_bytes(model)
    end = time.process_time()
    return {
        "nodes": before,
        "left": count_nodes(model)[1],
        "load": loaded - cpu,
        "pipeline": done - loaded,
        "save": end - done,
        "wall": time.perf_counter() - start,
        "microseconds per node": 1e6 * (end - cpu) / before,
    }


def write_large(folder: Path, gigabytes: float) -> Path:
    """A chain of matrix products with weights in a data file, written block by block."""
    side = 4096
    count = max(1, round(gigabytes * (1 << 30) / (side * side * 4)))
    nodes, weights, x = [], [], "x"
    row = np.random.default_rng(0).normal(size=side).astype(np.float32)
    with (folder / "large.data").open("wb") as stream:
        for i in range(count):
            for j in range(side):
                stream.write(np.roll(row, i * 31 + j).tobytes())
            weight = TensorProto(name=f"w{i}", dims=[side, side], data_type=1, data_location=1)
            entries = {
                "location": "large.data",
                "offset": i * side * side * 4,
                "length": side * side * 4,
            }
            for key, value in entries.items():
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Identity", [f"m{i}"], [f"i{i}"]))
            nodes.append(helper.make_node("Relu", [f"i{i}"], [f"r{i}"]))
            x = f"r{i}"
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, side])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "large.onnx"
    path.write_bytes(model.SerializeToString())
    return path


CHILD = """
import json, sys, threading, time
from adcompile.interfaces import Report
from adcompile.ir.model_io import load_model, save_model, weight_bytes
from adcompile.rewrite.canonical import canonical
import onnxruntime

def private():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024

base = private()
peak = [base]
stop = threading.Event()
def watch():
    while not stop.wait(0.01):
        peak[0] = max(peak[0], private())
threading.Thread(target=watch, daemon=True).start()
times = []
clock = time.perf_counter
start = clock(); m = load_model(sys.argv[1]); times.append(clock() - start)
start = clock(); canonical().run(m, Report()); times.append(clock() - start)
start = clock(); save_model(m, sys.argv[2]); times.append(clock() - start)
stop.set()
print(json.dumps({"weights": weight_bytes(m), "extra": peak[0] - base, "seconds": times}))
"""


def large(gigabytes: float) -> dict[str, object]:
    """Memory and time of load, canonicalize, save; in a child, so that nothing else counts."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        source = write_large(folder, gigabytes)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(source), str(folder / "out.onnx")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="1000,10000,100000")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    options = parser.parse_args()
    rows = [time_graph(int(n)) for n in options.nodes.split(",") if n]
    print(
        f"{'nodes':>8} {'left':>8} {'load s':>8} {'pipeline s':>11} {'save s':>8} {'µs/node':>8}  (CPU)"
    )
    for row in rows:
        print(
            f"{row['nodes']:8.0f} {row['left']:8.0f} {row['load']:8.2f} {row['pipeline']:11.2f} "
            f"{row['save']:8.2f} {row['microseconds per node']:8.0f}"
        )
    if options.gigabytes > 0:
        found = large(options.gigabytes)
        share = 100 * found["extra"] / found["weights"]  # type: ignore[operator]
        load, run, save = found["seconds"]  # type: ignore[misc]
        print(
            f"{found['weights'] / 1e9:.1f} GB of weights: {found['extra'] / 1e6:.0f} MB more memory "  # type: ignore[operator]
            f"({share:.1f} %); load {load:.2f} s, canonicalize {run:.2f} s, save {save:.2f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
