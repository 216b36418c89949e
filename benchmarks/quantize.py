"""Quantizers side by side on the same part and calibration data: error, time, memory, broken rules.

    python benchmarks/quantize.py MODEL.onnx [MODEL.onnx …] --images FOLDER [--calib 8] [--test 3]

Every model is split for the NPU and its part ``backbone`` (or the first device part) is quantized by
each quantizer in a process of its own. Images are dealt out in turn: even ones calibrate, odd ones
test. SNR is signal power over error power against the float part, in dB, averaged over its outputs;
"broken" counts violations of the XINT8 dialect (of A8W8 for a8w8). Times include reading the model,
not importing the packages.
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

from adcompile.backends.npu.approximate import approximate_kernels
from adcompile.backends.npu.dialect import violations
from adcompile.backends.npu.schemes import A8W8, XINT8
from adcompile.check.golden import make_inputs
from adcompile.check.reference import FloatParts
from adcompile.cli.record import plan_parts
from adcompile.interfaces import Array, Report
from adcompile.ir.evaluate import open_model
from adcompile.ir.graph import tensor_spec
from adcompile.ir.model_io import load_model, save_model
from adcompile.job import BuildOptions
from adcompile.lower.calibration import ArrayFolder
from adcompile.lower.insert import name_nodes
from adcompile.lower.quantizers import QuantizeRequest, available, quantizer
from adcompile.runtime.images import find_images

SCHEMES = {"xint8": XINT8, "a8w8": A8W8}
RUNS = [
    ("own", "xint8"),
    ("quark", "xint8"),
    ("own", "a8w8"),
    ("quark", "a8w8"),
    ("onnxruntime-minmax", "xint8"),
    ("onnxruntime-entropy", "xint8"),
    ("onnxruntime-percentile", "xint8"),
]


def record(model: Path, images: list[Path], calib: int, test: int, work: Path) -> str:
    """Cut the part out, and store its inputs for every image below *work*."""
    job = plan_parts(model, "npu", BuildOptions(), work)
    devices = [p for p in job.parts if p.placement == "device"]
    part = next((p for p in devices if p.name == "backbone"), devices[0])
    save_model(part.model, work / "part.onnx")
    inputs = [tensor_spec(v) for v in job.ir.graph.inputs]
    outputs = [tensor_spec(v) for v in job.ir.graph.outputs]
    chosen = [("calib", images[0 : 2 * calib : 2]), ("test", images[1 : 2 * test + 1 : 2])]
    with FloatParts(job.parts, inputs, outputs) as parts:
        for folder, files in chosen:
            for index, file in enumerate(files):
                feeds = make_inputs(inputs, job.contract, [file], count=1)[0].feeds
                values: dict[str, Array] = {}
                parts.run(feeds, tap=lambda n, x, to=values: to.update({n: np.array(x)}))
                place = work / folder / f"{index:03d}"
                place.mkdir(parents=True)
                for spec in part.inputs:
                    np.save(place / f"{_file(spec.name)}.npy", values[spec.name])
    return part.name


def _file(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def one(work: Path, name: str, precision: str) -> dict[str, float | str]:
    """Quantize and measure, in this process."""
    model = load_model(work / "part.onnx")
    specs = [tensor_spec(v) for v in model.graph.inputs]
    files = {s.name: _file(s.name) for s in specs}
    data = ArrayFolder(work / "calib", specs, files)
    scheme = SCHEMES[precision]
    run = quantizer(name)
    if name == "quark":
        import quark.onnx  # noqa: F401 - compiling its operators is not part of the time
    start, cpu = time.perf_counter(), time.process_time()
    source = model
    if name == "own" and precision == "xint8":
        source = model.clone()
        name_nodes(source)
        approximate_kernels(source, scheme.ops, frozenset(), Report())
    request = QuantizeRequest(source, data, scheme, frozenset(), work / f"{name}-{precision}")
    quantized = run(request)
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    rows = errors(model, quantized, list(ArrayFolder(work / "test", specs, files)))
    return {
        "seconds": seconds,
        "cpu": busy,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "snr": float(np.mean(rows)),
        "worst": float(np.min(rows)),
        "broken": len(violations(quantized, precision)),
    }


def errors(model: object, quantized: object, samples: list[dict[str, Array]]) -> list[float]:
    """SNR of every output over all samples."""
    sessions = [open_model(m, optimize=True) for m in (model, quantized)]  # type: ignore[arg-type]
    names = [o.name for o in sessions[0].get_outputs()]
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    for feeds in samples:
        wanted, found = (s.run(names, dict(feeds)) for s in sessions)
        for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
            signal[i] += float(np.square(a, dtype=np.float64).sum())
            noise[i] += float(np.square(a.astype(np.float64) - b).sum())
    return [float(10 * np.log10(s / max(n, 1e-30))) for s, n in zip(signal, noise, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--calib", type=int, default=8)
    parser.add_argument("--test", type=int, default=3)
    parser.add_argument("--runs", nargs="*", help="only these: own:xint8 quark:xint8 …")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        work, name, precision = args.one
        sys.stderr.write(json.dumps(one(Path(work), name, precision)) + "\n")
        return
    images = find_images(args.images)
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            part = record(model, images, args.calib, args.test, work)
            print(f"\n{model.name}, part {part}; {args.calib} samples calibrate, {args.test} test")
            print(
                f"{'quantizer':24} {'format':6} {'SNR dB':>7} {'worst':>6} {'broken':>6} "
                f"{'wall s':>7} {'cpu s':>7} {'peak MiB':>8}"
            )
            for name, precision in RUNS:
                if name in available() and (not args.runs or f"{name}:{precision}" in args.runs):
                    print(_row(work, name, precision), flush=True)


def _row(work: Path, name: str, precision: str) -> str:
    command = [sys.executable, __file__, "--one", str(work), name, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    label = "int8" if name.startswith("onnxruntime") else precision
    try:
        r = json.loads(done.stderr.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return f"{name:24} {label:6} failed: {done.stderr.strip()[-200:]}"
    broken = "-" if name.startswith("onnxruntime") else str(r["broken"])
    return (
        f"{name:24} {label:6} {r['snr']:7.2f} {r['worst']:6.1f} {broken:>6} "
        f"{r['seconds']:7.1f} {r['cpu']:7.1f} {r['peak']:8.0f}"
    )


if __name__ == "__main__":
    main()
