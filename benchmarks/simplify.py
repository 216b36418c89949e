"""Compare model simplifiers: time, peak memory, nodes left, and whether the results are still right.

    python benchmarks/simplify.py [MODEL.onnx …] [--light] [--runs 3] [--json]

Every tool that is installed runs in a process of its own: load, simplify, save. Time is that of
these three steps (wall and CPU, best of --runs), without starting Python and importing; memory is the
peak of the whole process. Nodes are those of the main graph, and of all graphs. A result is right
when ONNX Runtime gives the same outputs for it as for the original, on two random inputs.
--light adds architectures that ship with the onnx package.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test

from adcompile.errors import AdcompileError
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate

# tool -> (module it needs, imports, statements; SOURCE and TARGET are paths)
TOOLS = {
    "adcompile": (
        "adcompile",
        "from adcompile.interfaces import Report\n"
        "from adcompile.ir.model_io import load_model, save_model\n"
        "from adcompile.rewrite.canonical import canonical\n"
        "import onnxruntime\npipeline = canonical()",
        "m = load_model(SOURCE)\npipeline.run(m, Report())\nsave_model(m, TARGET)",
    ),
    "onnxsim": (
        "onnxsim",
        "import onnx, onnxsim",
        "m, ok = onnxsim.simplify(onnx.load(SOURCE))\nonnx.save(m, TARGET)",
    ),
    "onnxslim": (
        "onnxslim",
        "import onnx, onnxslim",
        "m = onnxslim.slim(onnx.load(SOURCE))\nonnx.save(m, TARGET)",
    ),
    "onnxscript": (
        "onnxscript",
        "import onnx, onnxscript.optimizer",
        "m = onnxscript.optimizer.optimize(onnx.load(SOURCE))\nonnx.save(m, TARGET)",
    ),
    "onnxoptimizer": (
        "onnxoptimizer",
        "import onnx, onnxoptimizer",
        "m = onnxoptimizer.optimize(onnx.load(SOURCE))\nonnx.save(m, TARGET)",
    ),
}

CHILD = """
import json, re, resource, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
SOURCE, TARGET = sys.argv[1:3]
{imports}
def peak():
    # the kernel's maximum for this process; getrusage would include the parent's before exec
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text()).group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start, cpu = time.perf_counter(), time.process_time()
{statements}
print("RESULT" + json.dumps({{
    "wall": time.perf_counter() - start,
    "cpu": time.process_time() - cpu,
    "peak": peak(),
}}))
"""


def run_tool(tool: str, source: Path, target: Path, timeout: float) -> dict[str, float] | str:
    """One run in a child process; a sentence when it fails."""
    _, imports, statements = TOOLS[tool]
    code = CHILD.format(imports=imports, statements=statements)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(source), str(target)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"over {timeout:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if done.returncode or not lines:
        return "fails: " + (done.stderr.strip().splitlines() or ["?"])[-1][:100]
    return json.loads(lines[-1].removeprefix("RESULT"))


def node_counts(path: Path) -> tuple[int, int]:
    """Nodes of the main graph and of all graphs, as stored (Constant nodes count)."""
    model = onnx.load(str(path), load_external_data=False)

    def count(graph: onnx.GraphProto) -> int:
        total = len(graph.node)
        for node in graph.node:
            for attribute in node.attribute:
                graphs = [attribute.g] if attribute.HasField("g") else []
                total += sum(count(g) for g in (*graphs, *attribute.graphs))
        return total

    return len(model.graph.node), count(model.graph)


def random_feeds(path: Path, seed: int) -> dict[str, np.ndarray]:
    """Uniform inputs of the declared shape, 1 for open dimensions."""
    model, rng = model_io.load_model(path), np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        if value.is_initializer() or value.shape is None or value.dtype is None:
            continue
        dims = [d if isinstance(d, int) else 1 for d in value.shape.dims]
        feeds[str(value.name)] = rng.random(dims).astype(value.dtype.numpy())
    return feeds


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
    """What ONNX Runtime computes; a sentence when it cannot."""
    try:
        return evaluate(model_io.load_model(path), feeds, optimize=True)
    except AdcompileError as error:
        return f"invalid: {(error.why or error.what)[:80]}"


def judge(
    expected: list[dict[str, np.ndarray]], path: Path, feeds: list[dict[str, np.ndarray]]
) -> str:
    """ "right", or what is wrong first."""
    for wanted, given in zip(expected, feeds, strict=True):
        found = outputs(path, given)
        if isinstance(found, str):
            return found
        for name, array in wanted.items():
            other = found.get(name)
            if other is None:
                return f"wrong: no output {name}"
            if array.shape != other.shape:
                return f"wrong: {name} is {list(other.shape)}, not {list(array.shape)}"
            a, b = array.astype(np.float64), other.astype(np.float64)
            if not np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True):
                return f"wrong: {name} differs by {np.abs(a - b).max():.2g}"
    return "right"


def bench(source: Path, runs: int, timeout: float) -> list[dict[str, object]]:
    """All tools on one model."""
    feeds = [random_feeds(source, seed) for seed in (0, 1)]
    expected: list[dict[str, np.ndarray]] = []
    for given in feeds:
        found = outputs(source, given)
        if isinstance(found, str):
            raise SystemExit(f"{source.name}: {found}")
        expected.append(found)
    top, everything = node_counts(source)
    rows: list[dict[str, object]] = [
        {"model": source.stem, "tool": "(original)", "top": top, "all": everything}
    ]
    with tempfile.TemporaryDirectory() as folder:
        for tool, (module, _, _) in TOOLS.items():
            row: dict[str, object] = {"model": source.stem, "tool": tool}
            rows.append(row)
            if importlib.util.find_spec(module) is None:
                row["result"] = "not installed"
                continue
            target = Path(folder) / f"{tool}.onnx"
            measured = [run_tool(tool, source, target, timeout) for _ in range(runs)]
            good = [m for m in measured if not isinstance(m, str)]
            if not good:
                row["result"] = measured[0]
                continue
            for key in ("wall", "cpu", "peak"):
                row[key] = min(m[key] for m in good)
            row["top"], row["all"] = node_counts(target)
            row["result"] = judge(expected, target, feeds)
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """The table."""
    print("model                  tool            wall s   cpu s  peak MB  nodes    all  result")
    for row in rows:
        cells = [f"{row['model']:22.22}", f"{row['tool']:14}"]
        for key, width, form in (("wall", 7, ".2f"), ("cpu", 7, ".2f")):
            cells.append(f"{row[key]:{width}{form}}" if key in row else " " * width)
        cells.append(f"{row['peak'] / 1e6:8.0f}" if "peak" in row else " " * 8)  # type: ignore[operator]
        cells += [f"{row.get(key, ''):>6}" for key in ("top", "all")]
        print(" ".join(cells) + f"  {row.get('result', '')}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    models = list(options.models)
    if options.light or not models:
        folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
        names = ("densenet121", "inception_v2", "resnet50", "shufflenet", "squeezenet")
        models += [folder / f"light_{name}.onnx" for name in names]
    everything: list[dict[str, object]] = []
    for model in models:
        rows = bench(model, options.runs, options.timeout)
        everything += rows
        if not options.json:
            show(rows)
    if options.json:
        print(json.dumps(everything, indent=2))


if __name__ == "__main__":
    main()
