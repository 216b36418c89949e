"""PaDiM's head in generated C++ against ONNX Runtime, anomalib's own code, and whole inverses.

    python benchmarks/padim_head.py [--threads 1] [--features 100] [--cpu native] [--rounds 15]

Three feature maps as large as those of a ResNet18 at 256 x 256 (64 x 64 x 64, 128 x 32 x 32,
256 x 16 x 16): convolutions with random weights over generated textures. `distance` is one image's
4,096 patches against their Gaussians; `head` is everything from the maps to the score and the
enlarged, blurred map. All take turns in one process; printed are the best times, the medians, and the
median over the turns of each one's ratio to ours. Peers: ONNX Runtime on the very part that we compile,
anomalib's modules on torch (where anomalib is installed), and our kernel for whole inverse
covariances, which were what a part held before it held their triangular factors.

The second table says how far the squared distances are from double precision, for images of the
training set and for new ones. With `--scale 100` the features are 100 times as large, and in float32
the covariances almost singular.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
from texture_features import texture

from adcompile.anomaly import heads, ops, padim
from adcompile.anomaly.backbone import Backbone, load_backbone
from adcompile.anomaly.maps import embed
from adcompile.anomaly.presets import preset
from adcompile.backends.host.build import Toolchain, compile_library, find_compiler
from adcompile.backends.host.codegen.text import generate
from adcompile.backends.host.library import CTensor, HostLibrary, to_c
from adcompile.ir.evaluate import evaluate
from adcompile.ir.extract import extract
from adcompile.ir.shapes import infer_shapes

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
SIDE = 256
GRID = 64
FORMS = ("factors", "inverses")
WIDTHS = {4: 64, 8: 128, 16: 256}  # stride of a map: its channels

Contender = Callable[[], object]


def network() -> ir.Model:
    """Three convolutions of the image, as wide and as coarse as the layers of a ResNet18."""
    rng = np.random.default_rng(0)
    lines = [
        f"m{s} = Conv <kernel_shape = [{s}, {s}], strides = [{s}, {s}]> (x, w{s})" for s in WIDTHS
    ]
    outputs = ", ".join(f"float[1, {c}, {SIDE // s}, {SIDE // s}] m{s}" for s, c in WIDTHS.items())
    weights = ", ".join(f"float[{c}, 3, {s}, {s}] w{s}" for s, c in WIDTHS.items())
    text = f"net (float[1, 3, {SIDE}, {SIDE}] x, {weights}) => ({outputs}) {{ {' '.join(lines)} }}"
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for value in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(value)
        shape = [d for d in value.shape or () if isinstance(d, int)]
        filters = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        value.const_value = ir.tensor(filters.astype(np.float32), name=value.name)
        model.graph.register_initializer(value)
    return model


def pictures(count: int, seed: int) -> list[F32]:
    """Standardised textures [1, 3, 256, 256]."""
    random = np.random.default_rng(seed)
    found: list[F32] = []
    for _ in range(count):
        picture = np.pad(texture(random), ((0, SIDE - 224), (0, SIDE - 224), (0, 0)), "reflect")
        found.append(
            np.asarray((picture / 255 - 0.45) / 0.23, np.float32).transpose(2, 0, 1)[None]
        )
    return found


class Fit:
    """A Gaussian per patch from the embeddings of training images, and its covariance."""

    def __init__(self, embeddings: Sequence[F32], index: npt.NDArray[np.int64]) -> None:
        rows = [e.reshape(e.shape[1], -1) for e in embeddings]
        self.exact_mean = np.asarray(np.mean(rows, axis=0, dtype=np.float64), np.float64)
        channels, patches = self.exact_mean.shape
        scatter = np.zeros((patches, channels, channels))
        for row in rows:
            gap = (row - self.exact_mean).T[:, :, None]
            scatter += gap @ gap.transpose(0, 2, 1)
        self.covariance = scatter / (len(rows) - 1)
        self.covariance[:, np.arange(channels), np.arange(channels)] += 0.01
        inverse, packed = padim.invert(self.covariance)
        mean = np.asarray(self.exact_mean, np.float32)
        self.gaussian = padim.Gaussian(mean, inverse, index, packed)

    def exact(self, embedding: F32) -> F64:
        """Squared distances [h, w] in double precision."""
        gap = (embedding.reshape(len(self.exact_mean), -1) - self.exact_mean).T[:, :, None]
        solved = np.linalg.solve(self.covariance, gap)
        return np.asarray((gap * solved).sum(axis=(1, 2)).reshape(embedding.shape[2:]), np.float64)


def with_inverses(model: ir.Model, gaussian: padim.Gaussian) -> ir.Model:
    """The model with MahalanobisMap in place of WhitenedMap."""
    copy = model.clone()
    node = next(n for n in copy.graph if n.op_type == "WhitenedMap")
    inverse = heads.GraphWriter(copy).constant("inverse", gaussian.inverse)
    new = ir.node("MahalanobisMap", [*node.inputs[:2], inverse], domain=ops.DOMAIN, name=node.name)
    new.outputs[0].type, new.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    copy.graph.insert_before(node, new)
    node.outputs[0].replace_all_uses_with(new.outputs[0])
    copy.graph.remove(node, safe=True)
    ops.add_functions(copy)
    return copy


def parts(backbone: Backbone, gaussian: padim.Gaussian) -> dict[str, ir.Model]:
    """Distance and whole head, each with factors and with whole inverses."""
    chosen = preset("padim", "anomalib")
    limits = {"threshold": 1.0, "minimum": 0.0, "maximum": 20.0, "normalisation": "min_max"}
    score = chosen.score.model_copy(update=limits)
    whole = padim.build_model(backbone, gaussian, score, chosen.preprocess)
    infer_shapes(whole)
    found: dict[str, ir.Model] = {}
    for name, model in zip(FORMS, (whole, with_inverses(whole, gaussian)), strict=True):
        nodes = [n for n in model.graph if n.op_type not in {"Conv", "Constant"}]
        maps = [o for n in model.graph if n.op_type == "Conv" for o in n.outputs]
        results = list(model.graph.outputs)
        form = next(n for n in nodes if n.op_type in {"WhitenedMap", "MahalanobisMap"})
        query = form.inputs[0]
        assert query is not None
        found[f"distance {name}"] = extract(model, [form], [query], list(form.outputs), "distance")
        found[f"head {name}"] = extract(model, nodes, maps, results, "head")
    for model in found.values():
        infer_shapes(model)
    return found


def compiled(library: HostLibrary, name: str, feeds: Sequence[F32]) -> Contender:
    """A call of a generated part."""
    part = library.part(name)
    inputs = (CTensor * len(feeds))(*map(to_c, feeds))
    return lambda: part.call(inputs)


def in_onnxruntime(model: ir.Model, feeds: Sequence[F32], threads: int) -> Contender:
    """The same part in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = {i.name: feed for i, feed in zip(session.get_inputs(), feeds, strict=True)}
    return lambda: session.run(None, given)


def in_anomalib(
    gaussian: padim.Gaussian, embedding: F32, maps: Sequence[F32], threads: int
) -> tuple[Contender, Contender] | None:
    """Distance and head by anomalib's own modules; None where it is not installed."""
    try:
        import torch

        sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
        import torchvision_cpu

        torchvision_cpu.install()  # anomalib imports torchvision
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
            from anomalib.models.image.padim.torch_model import PadimModel
    except ImportError:
        return None
    torch.set_num_threads(threads)
    theirs = PadimModel(pre_trained=False, layers=["layer1", "layer2", "layer3"])
    theirs.idx = torch.from_numpy(gaussian.index)
    generator = AnomalyMapGenerator(sigma=4)
    stats = [torch.from_numpy(gaussian.mean), torch.from_numpy(gaussian.inverse)]
    rows = torch.from_numpy(embedding)
    features = {f"layer{i}": torch.from_numpy(m) for i, m in enumerate(maps, 1)}

    @torch.inference_mode()
    def distance() -> object:
        return generator.compute_distance(rows, stats)

    @torch.inference_mode()
    def head() -> object:
        joined = theirs.generate_embedding(features)
        found = generator(
            embedding=joined, mean=stats[0], inv_covariance=stats[1], image_size=(SIDE, SIDE)
        )
        return torch.amax(found, dim=(-2, -1))

    return distance, head


def race(contenders: dict[str, Contender], rounds: int) -> None:
    """Best times, and the median over the rounds of their ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):  # the first one warms up
        for name, run in contenders.items():
            run()  # the caches hold what its own last frame left there
            start = time.perf_counter()
            run()
            if turn:
                times[name].append((time.perf_counter() - start) * 1e3)
    first = np.array(next(iter(times.values())))
    for name, found in times.items():
        ratio = float(np.median(np.array(found) / first))
        print(f"  {name:34} {min(found):8.2f} {float(np.median(found)):8.2f} {ratio:8.2f}")


def build(models: dict[str, ir.Model], folder: Path, cpu: str) -> dict[str, HostLibrary]:
    """Libraries with the parts of each form of the statistics."""
    toolchain = Toolchain(find_compiler(), ("-O3", f"-march={cpu}"))
    libraries: dict[str, HostLibrary] = {}
    for form in FORMS:
        place = folder / form
        place.mkdir()
        chosen = [(n.split()[0], m) for n, m in models.items() if n.endswith(form)]
        path = compile_library(generate(chosen), place, toolchain, batch=2)
        libraries[form] = HostLibrary(path, place / "weights.bin")
    return libraries


def errors(fit: Fit, libraries: dict[str, HostLibrary], sets: dict[str, list[F32]]) -> None:
    """Relative errors of the generated code's squared distances against double precision."""
    found = {form: libraries[form].part("distance") for form in FORMS}
    for name, embeddings in sets.items():
        line = f"  {name:34}"
        for part in found.values():
            gaps: list[F64] = []
            for x in embeddings:
                truth = fit.exact(x)
                (squared,) = part.run({part.inputs[0]: x}).values()
                gaps.append(np.abs(np.asarray(squared, np.float64)[0, 0] - truth) / truth)
            both = np.stack(gaps)
            line += f" {f'{np.sqrt((both**2).mean()):.1e} | {both.max():.1e}':>20}"
        print(line)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--features", type=int, default=100)
    parser.add_argument("--images", type=int, default=40, help="of the training set")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all features")
    parser.add_argument("--cpu", default="native", help="for -march")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    model = network()
    backbone = load_backbone(model, [], SIDE)
    index = padim.channel_index(sum(WIDTHS.values()), options.features, 0)

    def maps_of(picture: F32) -> list[F32]:
        found = evaluate(model, {"x": picture}).values()
        return [np.asarray(v, np.float32) * np.float32(options.scale) for v in found]

    def embedded(images: Sequence[F32]) -> list[F32]:
        return [embed(maps_of(p), "nearest", pool=False)[:, index] for p in images]

    train, test = pictures(options.images, 1), pictures(2, 2)
    known, new = embedded(train), embedded(test)
    fit = Fit(known, index)
    feeds = maps_of(test[0])
    models = parts(backbone, fit.gaussian)
    size = {k: getattr(fit.gaussian, k).nbytes / 1e6 for k in ("factor", "inverse")}
    print(
        f"{GRID * GRID} patches of {options.features} features, threads: {options.threads}, best and "
        f"median of {options.rounds}, ms, and times ours\n"
        f"factors: {size['factor']:.1f} MB, whole inverses: {size['inverse']:.1f} MB"
    )
    theirs = in_anomalib(fit.gaussian, new[0], feeds, options.threads)
    sets = {"training images": known[:2], "new images": new}
    with tempfile.TemporaryDirectory() as folder:
        libraries = build(models, Path(folder), options.cpu)
        for library in libraries.values():
            library.threads(options.threads)
        for number, (what, given) in enumerate((("distance", [new[0]]), ("head", feeds))):
            print(what)
            contenders = {
                "generated C++": compiled(libraries["factors"], what, given),
                "generated C++ with whole inverses": compiled(libraries["inverses"], what, given),
                "ONNX Runtime": in_onnxruntime(models[f"{what} factors"], given, options.threads),
            }
            if theirs is not None:
                contenders["anomalib on torch"] = theirs[number]
            race(contenders, options.rounds)
        print(f"{'errors: root mean square | largest':36} {'factors':>20} {'whole inverses':>20}")
        errors(fit, libraries, sets)


if __name__ == "__main__":
    main()
