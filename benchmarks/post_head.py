"""The PatchCore head without its search, against the search: pooling to normalisation, in C++.

    python benchmarks/post_head.py [--rows 361] [--threads 1] [--cpu native] [--repeat 30]

Two feature maps of a ResNet18 at 224 x 224 (128 x 28 x 28 and 256 x 14 x 14, 784 queries of 384
numbers) go through what runs before and after the search, for every scoring preset; the search goes
through banks of two kinds of features, those of ``bank_search.py``: `cnn` (few of its rows have to
be looked at) and `rough`. The paper's weighting searches the bank a second time, for one patch of an
image; that belongs to neither side. All times are the smallest of all repetitions.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from host_parts import smallest
from texture_features import features

from adcompile.anomaly import patchcore
from adcompile.anomaly.backbone import load_backbone
from adcompile.anomaly.bank import prepare_bank
from adcompile.anomaly.presets import PRESETS, preset
from adcompile.anomaly.search import Searcher
from adcompile.backends.host.build import Toolchain, compile_library, find_compiler
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import CTensor, HostLibrary, HostPart, to_c
from adcompile.ir.extract import extract
from adcompile.ir.shapes import infer_shapes

F32 = npt.NDArray[np.float32]
SEARCHES = ("KnnSearch", "PatchScorePaper")

BACKBONE = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 3, 224, 224] image, float[128, 3, 8, 8] w1, float[256, 3, 16, 16] w2)
  => (float[1, 128, 28, 28] shallow, float[1, 256, 14, 14] deep) {
  shallow = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, w1)
  deep = Conv <kernel_shape = [16, 16], strides = [16, 16]> (image, w2)
}"""


def network() -> ir.Model:
    """Something with the two outputs; what it computes does not matter here."""
    model = ir.from_onnx_text(BACKBONE)
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        shape = [d for d in value.shape or () if isinstance(d, int)]
        value.const_value = ir.tensor(np.zeros(shape, np.float32), name=value.name)
        model.graph.register_initializer(value)
    return model


def around_the_search(model: ir.Model, name: str) -> list[tuple[str, ir.Model]]:
    """The head cut at its search: what makes the queries, and what reads what the search found."""
    nodes = list(model.graph)
    searches = [n for n in nodes if n.op_type in SEARCHES]
    query = searches[0].inputs[0]
    assert query is not None
    maps = [o for n in nodes if n.op_type == "Conv" for o in n.outputs]
    at = nodes.index(searches[0])
    before = [n for n in nodes[:at] if n.op_type not in {"Conv", "Constant"}]
    after = [n for n in nodes[at + 1 :] if n not in searches]
    found = [v for n in searches for v in n.outputs if any(u.node in after for u in v.uses())]
    results = list(model.graph.outputs)
    results += [v for n in after for v in n.outputs if any(u.node in searches for u in v.uses())]
    parts = {
        f"{name} before": extract(model, before, maps, [query], "before"),
        f"{name} after": extract(model, after, found, results, "after"),
    }
    for part in parts.values():
        infer_shapes(part)
    return list(parts.items())


def head(name: str, rows: int) -> list[tuple[str, ir.Model]]:
    """The two parts of the head of a preset."""
    chosen = preset("patchcore", name)
    limits = {"threshold": 1.0, "minimum": 0.0, "maximum": 2.0, "normalisation": "min_max"}
    score = chosen.score.model_copy(update=limits)
    bank = np.zeros((rows, 384), np.float32)
    model = patchcore.build_model(
        load_backbone(network()), bank, score, chosen.preprocess, chosen.deep_upsampling
    )
    infer_shapes(model)
    return around_the_search(model, name)


def milliseconds(part: HostPart, cut: ir.Model, repeat: int) -> float:
    """Time of one part on random numbers, with nine distances per patch."""
    random = np.random.default_rng(0)
    arrays: list[F32] = []
    for value in cut.graph.inputs:
        shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
        if "knnsearch" in (value.name or ""):
            shape = [784, 9]
        arrays.append(random.random(shape, dtype=np.float32))
    inputs = (CTensor * len(arrays))(*map(to_c, arrays))
    return smallest(lambda: part.call(inputs), repeat)


def search_times(rows: int, repeat: int, threads: int) -> dict[str, float]:
    """Milliseconds of the search by kind of features and k."""
    times: dict[str, float] = {}
    for kind in ("cnn", "rough"):
        vectors, source = features(2, 384, None, rough=kind == "rough")
        drawn = np.random.default_rng(0).permutation(len(vectors) - 784)[:rows]
        with Searcher(prepare_bank(vectors[drawn]), threads=threads) as searcher:
            for k in (1, 9):
                search = partial(searcher.knn, vectors[-784:].copy(), k)
                times[f"{kind}, k {k}"] = smallest(search, repeat)
        print(f"{kind}: {source}")
    return times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=361)
    parser.add_argument("--cpu", default="native", help="for -march")
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    searches = search_times(options.rows, options.repeat, options.threads)
    presets = {name: head(name, options.rows) for name in PRESETS["patchcore"]}
    print(f"{options.rows} rows of 384, threads: {options.threads}, best of {options.repeat}")
    print(f"{'milliseconds':12} {'before':>8} {'after':>8} {'rest':>8}   rest / search with")
    print(" " * 39 + " ".join(f"{name:>11}" for name in searches))
    print(f"{'the search':39}" + " ".join(f"{time:8.3f} ms" for time in searches.values()))
    with tempfile.TemporaryDirectory() as folder:
        toolchain = Toolchain(find_compiler(), ("-O3", f"-march={options.cpu}"))
        parts = [part for both in presets.values() for part in both]
        path = compile_library(generate(parts), Path(folder), toolchain, batch=len(parts))
        library = HostLibrary(path, Path(folder) / "weights.bin")
        library.threads(options.threads)
        for name, both in presets.items():
            times = [milliseconds(library.part(n), cut, options.repeat) for n, cut in both]
            line = "".join(f" {t:8.3f}" for t in (*times, sum(times)))
            shares = " ".join(f"{sum(times) / time:11.2f}" for time in searches.values())
            print(f"{name:12}{line}{shares}")


if __name__ == "__main__":
    main()
