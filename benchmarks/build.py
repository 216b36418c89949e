"""Time and memory of whole builds: a real model, growing graphs, and a model with 4 GB of weights.

    python benchmarks/build.py maskrcnn.onnx        # build --precision fp32 --verify none
    python benchmarks/build.py --nodes 1000,10000,100000
    python benchmarks/build.py --weights-gib 4      # needs twice that on disk

Every row runs in a process of its own. "peak" is its largest resident size, with the pages of the
weight file that happen to be mapped; the system takes those back when it needs them. "held" is the
largest size of what the process allocated itself, sampled every 20 ms. "extra memory" is held
memory above what a build of a tiny model holds, as a share of the weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from adcompile.compiler import BuildOptions, compile

OPTIONS = BuildOptions(
    precision="fp32", verify="none", golden_count=0, host_code=False, cache=False, force=True
)


def chain(nodes: int) -> onnx.ModelProto:
    """A residual network of small convolutions with about *nodes* nodes, three per block."""
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(8, 8, 3, 3)) * 0.1).astype(np.float32)
    made: list[onnx.NodeProto] = []
    value = "image"
    for block in range(nodes // 3):
        made += [
            helper.make_node(
                "Conv", [value, f"w{block % 50}"], [f"c{block}"], f"conv{block}", pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", [f"c{block}"], [f"r{block}"], f"relu{block}"),
            helper.make_node("Add", [f"r{block}", value], [f"s{block}"], f"add{block}"),
        ]
        value = f"s{block}"
    weights = [numpy_helper.from_array(weight * (1 + i / 100), f"w{i}") for i in range(50)]
    return _model(made, weights, value, 8, 8)


def heavy(gib: float) -> onnx.ModelProto:
    """Matrix products with *gib* of weights in all, 64 MiB each."""
    rng = np.random.default_rng(0)
    side = 4096
    count = max(1, round(gib * 16))
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "image"
    block = rng.normal(size=(side, side)).astype(np.float32) / 64
    for index in range(count):
        block[0, 0] = index  # every tensor is its own: nothing can be shared
        weights.append(numpy_helper.from_array(block, f"w{index}"))
        made.append(helper.make_node("MatMul", [value, f"w{index}"], [f"m{index}"], f"mul{index}"))
        value = f"m{index}"
    graph = helper.make_graph(
        made,
        "heavy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, side])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, side])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    output: str,
    channels: int,
    side: int,
) -> onnx.ModelProto:
    shape = [1, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    """Write the model, weights in one file beside it when *external*."""
    if external:
        convert_model_to_external_data(model, location=f"{path.name}.data")
    onnx.save(model, str(path))


def once(path: Path, target: str) -> dict[str, float]:
    """Build in this process; seconds and peak memory in MiB."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        start = time.perf_counter()
        result = compile(path, target, Path(folder) / "bundle", OPTIONS)
        seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "peak": usage.ru_maxrss / 1024,
        "nodes": sum(part.nodes for part in result.manifest.parts),
    }


def apart(path: Path, target: str) -> dict[str, float]:
    """Run :func:`once` in a process of its own, and watch what memory it holds meanwhile."""
    command = [sys.executable, __file__, "--once", str(path), "--target", target]
    held = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        while running.poll() is None:
            held = max(held, held_now(running.pid))
            time.sleep(0.02)
        assert running.stdout is not None
        lines = running.stdout.read().splitlines()
    if running.returncode:
        raise SystemExit(running.returncode)
    found: dict[str, float] = json.loads(lines[-1])
    return {**found, "held": held}


def held_now(pid: int) -> float:
    """MiB that a process holds by itself: pages of mapped files (the weights) do not count."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0  # it has just ended, or this is not Linux
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return float(fields.get("RssAnon", "0 kB").split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--target", default="npu")
    parser.add_argument("--nodes", default="")
    parser.add_argument("--weights-gib", type=float, default=0.0)
    parser.add_argument("--once", type=Path)
    arguments = parser.parse_args()
    if arguments.once is not None:
        print(json.dumps(once(arguments.once, arguments.target)))
        return
    print(f"{'model':<28}{'seconds':>9}{'ms/node':>9}{'peak MiB':>10}{'held MiB':>10}")

    def row(name: str, path: Path) -> float:
        found = apart(path, arguments.target)
        each = 1000 * found["seconds"] / max(found["nodes"], 1)
        print(
            f"{name:<28}{found['seconds']:>9.2f}{each:>9.3f}{found['peak']:>10.0f}"
            f"{found['held']:>10.0f}",
            flush=True,
        )
        return found["held"]

    for model in arguments.models:
        row(model.name, model)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for text in filter(None, arguments.nodes.split(",")):
            path = Path(folder) / f"{text}.onnx"
            save(chain(int(text)), path, external=False)
            row(f"{text} nodes", path)
        if arguments.weights_gib:
            save(chain(3), Path(folder) / "tiny.onnx", external=False)
            base = row("3 nodes", Path(folder) / "tiny.onnx")
            path = Path(folder) / "heavy.onnx"
            save(heavy(arguments.weights_gib), path, external=True)
            heavy_row = row(f"{arguments.weights_gib:g} GiB of weights", path)
            share = 100 * (heavy_row - base) / (arguments.weights_gib * 1024)
            print(f"extra memory: {share:.1f} % of the weights")


if __name__ == "__main__":
    main()
