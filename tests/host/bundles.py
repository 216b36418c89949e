"""A small anomaly bundle for tests: image -> device part -> host part with bank -> score and map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly import ops
from adcompile.backends.host.emit import emit_host
from adcompile.contract import Contract, Preprocess, Score
from adcompile.fileset import FileSet
from adcompile.interfaces import Part
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import tensor_spec
from adcompile.ir.shapes import infer_shapes
from adcompile.manifest import SCHEMA, GoldenSample, PartRecord
from adcompile.runtime.preprocess import preprocess

Array = npt.NDArray[np.generic]
SIZE, GRID, CHANNELS, ROWS = 16, 4, 8, 12

DEVICE = f"""
device (float[1, 3, {SIZE}, {SIZE}] image) => (float[1, {CHANNELS}, {GRID}, {GRID}] features) {{
  mixed = Conv <kernel_shape = [4, 4], strides = [4, 4]> (image, weights)
  features = Tanh (mixed)
}}"""
HEAD = f"""
head (float[1, {CHANNELS}, {GRID}, {GRID}] features)
  => (float[1] score, float[1] raw_score, float[1, 1, {GRID}, {GRID}] anomaly_map) {{
  moved = Transpose <perm = [0, 2, 3, 1]> (features)
  shape = Constant <value_ints = [-1, {CHANNELS}]> ()
  rows = Reshape (moved, shape)
  d, i = adcompile.KnnSearch <k: int = 3> (rows, bank)
  rooted = Sqrt (d)
  raw_score, anomaly_map = adcompile.PatchScoreOwn <grid: ints = [{GRID}, {GRID}]> (rooted)
  score = adcompile.NormalizeScore
    <threshold: float = 0.5, minimum: float = 0.0, maximum: float = 2.0> (raw_score)
}}"""


@dataclass(frozen=True)
class TestBundle:
    """Where it is, its pictures, and the Python reference of each."""

    __test__ = False

    folder: Path
    pictures: Path
    contract: Contract
    device: ir.Model
    head: ir.Model

    def reference(self, image: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """Score, raw score and map of a picture, by Python and ONNX Runtime."""
        tensor = preprocess(image, self.contract.inputs["image"])
        features = evaluate(self.device, {"image": tensor})["features"]
        return evaluate(self.head, {"features": features})


def _model(text: str, constants: dict[str, Array]) -> ir.Model:
    header = '<ir_version: 8, opset_import: ["" : 17, "adcompile" : 1]>\n'
    inputs = "".join(f", float{list(a.shape)} {n}" for n, a in constants.items())
    made = ir.from_onnx_text(
        header + text.replace(") =>", inputs + ") =>", 1).replace(")\n  =>", inputs + ")\n  =>", 1)
        if inputs
        else header + text
    )
    for value in [v for v in made.graph.inputs if v.name in constants]:
        made.graph.inputs.remove(value)
        value.const_value = ir.tensor(constants[value.name or ""], name=value.name)
        made.graph.register_initializer(value)
    ops.add_functions(made)
    infer_shapes(made)
    return made


def make_bundle(
    folder: Path,
    images: dict[str, npt.NDArray[np.uint8]],
    *,
    maximum: float = 2.0,
    options: dict[str, str] | None = None,
) -> TestBundle:
    """Write golden data of *images* (name -> picture) and the host project into *folder*. *options*
    are those of the device part."""
    rng = np.random.default_rng(5)
    weights = rng.normal(0, 0.3, (CHANNELS, 3, 4, 4)).astype(np.float32)
    bank = np.tanh(rng.normal(0, 1, (ROWS, CHANNELS))).astype(np.float32)
    device, head = _model(DEVICE, {"weights": weights}), _model(HEAD, {"bank": bank})
    spec = Preprocess(size=(SIZE, SIZE), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    score = Score(
        method="patchcore",
        k=3,
        weighting="own_neighbours",
        map_upsampling="none",
        normalisation="min_max",
        threshold=0.5,
        minimum=0.0,
        maximum=maximum,
    )
    roles = {"score": "score", "raw_score": "raw_score", "anomaly_map": "map"}
    contract = Contract(inputs={"image": spec}, roles=roles, score=score)
    parts, records = [], []
    for name, made, where in (("net", device, "device"), ("head", head, "host")):
        ins = tuple(tensor_spec(v) for v in made.graph.inputs)
        outs = tuple(tensor_spec(v) for v in made.graph.outputs)
        parts.append(Part(name, where, name, made, ins, outs))
        records.append(
            PartRecord(
                name=name,
                placement=where,
                role=name,
                executor="trt" if where == "device" else "cpu",
                precision="fp32",
                inputs=ins,
                outputs=outs,
                files={"plan": "parts/net/model.plan"} if where == "device" else {},
                options=(options or {}) if where == "device" else {},
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    bundle = TestBundle(folder, folder / "pictures", contract, device, head)
    golden = [_record(bundle, name, image) for name, image in images.items()]
    files = FileSet()
    emit_host(parts, records, contract, golden, files, model="test", target="trt:test")
    files.write_into(folder)
    write_manifest(folder, records)
    return bundle


def write_manifest(folder: Path, records: Sequence[PartRecord]) -> None:
    """As much of a manifest as the generated program reads."""
    parts = [record.model_dump(mode="json") for record in records]
    manifest: dict[str, object] = {"schema_version": SCHEMA, "parts": parts, "files": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _record(bundle: TestBundle, name: str, image: npt.NDArray[np.uint8]) -> GoldenSample:
    tensor = preprocess(image, bundle.contract.inputs["image"])
    features = evaluate(bundle.device, {"image": tensor})["features"]
    outputs = evaluate(bundle.head, {"features": features})
    arrays = {"image": tensor, "features": features, **outputs}
    place = bundle.folder / "golden" / name
    place.mkdir(parents=True)
    for key, array in arrays.items():
        np.save(place / f"{key}.npy", array)
    paths = {key: f"golden/{name}/{key}.npy" for key in arrays}
    return GoldenSample(
        inputs={"image": paths["image"]},
        outputs={key: paths[key] for key in outputs},
        boundaries={"features": paths["features"]},
        source=name,
    )
