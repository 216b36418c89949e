"""Host parts of a model: generated C++ against ONNX Runtime executing the same parts.

    python benchmarks/host_parts.py BUNDLE [--cpu x86-64-v3] [--repeat 20] [--threads 1]

BUNDLE is the folder of `adcompile build` with golden data. Both sides get the recorded inputs of
every sample; the smallest time of all repetitions counts. Prints one line per part and the total.
"""

from __future__ import annotations

import argparse
import ctypes
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from adcompile.backends.host.build import Toolchain, compile_library, find_compiler
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import CTensor, HostLibrary, to_c
from adcompile.ir.model_io import load_model
from adcompile.ir.shapes import infer_shapes
from adcompile.manifest import Manifest, PartRecord, read_manifest

Array = npt.NDArray[np.generic]


def smallest(call: Callable[[], object], repeat: int) -> float:
    """Milliseconds of the fastest of *repeat* calls, after one to warm up."""
    call()
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def build(bundle: Path, parts: list[PartRecord], folder: Path, cpu: str) -> HostLibrary:
    """Generate and compile the host parts with optimisation."""
    models = []
    for part in parts:
        model = load_model(bundle / part.files["model"])
        infer_shapes(model)
        models.append((part.name, model))
    toolchain = Toolchain(find_compiler(), ("-O3", f"-march={cpu}"))
    library = compile_library(generate(models), folder, toolchain)
    return HostLibrary(library, folder / "weights.bin")


def samples(bundle: Path, manifest: Manifest) -> list[dict[str, Array]]:
    """All recorded tensors of the golden samples that keep those between the parts."""
    found = []
    for sample in manifest.golden:
        if not sample.boundaries:
            continue
        paths = {**sample.inputs, **sample.boundaries, **sample.outputs}
        found.append({name: np.load(bundle / path) for name, path in paths.items()})
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cpu", default="x86-64-v3")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    manifest = read_manifest(options.bundle)
    parts = [p for p in manifest.parts if p.placement == "host"]
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    print(f"{'part':24} {'sample':>6} {'C++ ms':>10} {'ORT ms':>10} {'C++/ORT':>8}")
    totals = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as place:
        library = build(options.bundle, parts, Path(place), options.cpu)
        library.threads(options.threads)
        for number, tensors in enumerate(samples(options.bundle, manifest)):
            for record in parts:
                part = library.part(record.name)
                feeds = {name: np.asarray(tensors[name], order="C") for name in part.inputs}
                kind: type[ctypes.Array[CTensor]] = CTensor * max(len(feeds), 1)
                inputs = kind(*(to_c(a) for a in feeds.values()))
                path = str(options.bundle / record.files["model"])
                session = ort.InferenceSession(path, settings, ["CPUExecutionProvider"])
                ours = smallest(lambda p=part, i=inputs: p.call(i), options.repeat)
                theirs = smallest(lambda s=session, f=feeds: s.run(None, f), options.repeat)
                totals = [totals[0] + ours, totals[1] + theirs]
                ratio = ours / theirs
                print(f"{record.name:24} {number:6} {ours:10.2f} {theirs:10.2f} {ratio:8.2f}")
                part.close()
    print(f"{'total':24} {'':6} {totals[0]:10.2f} {totals[1]:10.2f} {totals[0] / totals[1]:8.2f}")


if __name__ == "__main__":
    main()
