"""The PatchCore head without its search, against the search: pooling to normalisation, in C++.

    python benchmarks/post_head.py [--preset r0] [--rows 361] [--cpu native] [--repeat 30]

Two feature maps of a ResNet18 at 224 x 224 (128 x 28 x 28 and 256 x 14 x 14, 784 queries of 384
numbers) go through what runs before and after the search. All times are the smallest of all
repetitions, on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
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


def around_the_search(model: ir.Model) -> list[tuple[str, ir.Model]]:
    """The head cut at its search: what makes the queries, and what reads the distances."""
    nodes = list(model.graph)
    search = next(n for n in nodes if n.op_type == "KnnSearch")
    query = search.inputs[0]
    assert query is not None
    features = [o for n in nodes if n.op_type == "Conv" for o in n.outputs]
    at = nodes.index(search)
    before = [n for n in nodes[:at] if n.op_type not in {"Conv", "Constant"}]
    given = [*(v for v in search.outputs if v.uses()), query]
    parts = {
        "before": extract(model, before, features, [query], "before"),
        "after": extract(model, nodes[at + 1 :], given, list(model.graph.outputs), "after"),
    }
    for part in parts.values():
        infer_shapes(part)
    return list(parts.items())


def milliseconds(part: HostPart, feeds: dict[str, npt.NDArray[np.generic]], repeat: int) -> float:
    """Time of one part on these inputs."""
    arrays = [np.ascontiguousarray(feeds[name]) for name in part.inputs]
    inputs = (CTensor * len(arrays))(*map(to_c, arrays))
    return smallest(lambda: part.call(inputs), repeat)


def array_type(value: ir.Value) -> npt.DTypeLike:
    """The numpy type of a value."""
    return np.float32 if value.dtype is None else value.dtype.numpy()


def main() -> None:
    """Print the three times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    # the paper's weighting searches the bank again for one patch of an image: part of the search
    names = [n for n, p in PRESETS["patchcore"].items() if p.score.weighting != "paper"]
    parser.add_argument("--preset", default="r0", choices=names)
    parser.add_argument("--rows", type=int, default=361)
    parser.add_argument("--cpu", default="native", help="for -march")
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args()
    rows, source = features(2, 384, None, rough=True)
    queries, bank = rows[-784:].copy(), rows[: options.rows].copy()
    chosen = preset("patchcore", options.preset)
    limits = {"threshold": 1.0, "minimum": 0.0, "maximum": 2.0, "normalisation": "min_max"}
    score = chosen.score.model_copy(update=limits)
    model = patchcore.build_model(
        load_backbone(network()), bank, score, chosen.preprocess, chosen.deep_upsampling
    )
    infer_shapes(model)
    parts = around_the_search(model)

    random = np.random.default_rng(0)
    k = score.k if score.weighting == "own_neighbours" else 1
    with Searcher(prepare_bank(bank)) as searcher:
        distances, indices = searcher.knn(queries, k)
        search = smallest(lambda: searcher.knn(queries, k), options.repeat)
    with tempfile.TemporaryDirectory() as folder:
        toolchain = Toolchain(find_compiler(), ("-O3", f"-march={options.cpu}"))
        path = compile_library(generate(parts), Path(folder), toolchain)
        library = HostLibrary(path, Path(folder) / "weights.bin")
        times: dict[str, float] = {}
        for name, cut in parts:
            feeds: dict[str, npt.NDArray[np.generic]] = {}
            for value in cut.graph.inputs:
                shape = [d if isinstance(d, int) else 1 for d in value.shape or ()]
                array: npt.NDArray[np.generic] = random.random(shape, dtype=np.float32)
                if (
                    name == "after"
                ):  # distances, indices, and for the paper's weighting the queries
                    whole = value.dtype is ir.DataType.INT64
                    array = indices if whole else queries if shape[-1] == 384 else distances
                feeds[value.name or ""] = array.astype(array_type(value))
            times[name] = milliseconds(library.part(name), feeds, options.repeat)
    rest = sum(times.values())
    print(f"preset {options.preset}, {options.rows} rows of 384, k {k}; {source}")
    for name, value in times.items():
        print(f"{name + ' the search':24} {value:8.3f} ms")
    print(f"{'the search':24} {search:8.3f} ms")
    print(f"rest / search            {rest / search:8.2f}")


if __name__ == "__main__":
    main()
