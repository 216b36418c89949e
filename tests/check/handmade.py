"""A detector small enough to read: two device parts (one per region), two host parts, one bundle.

    image -> backbone (device) -> features -> host_0 -> rows, boxes
    rows -> box_head (device, one row per region) -> logits, pixels -> host_1 -> labels, scores, masks

The number of detections depends on the image: a black one has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from adcompile.backends.cpu.backend import CpuBackend
from adcompile.check.golden import GoldenInput, make_inputs, record_boundaries
from adcompile.check.tolerance import default_tolerances
from adcompile.contract import Contract, Preprocess
from adcompile.fileset import FileSet
from adcompile.interfaces import LowerContext, Part, Report
from adcompile.ir import model_io
from adcompile.ir.extract import extract
from adcompile.ir.graph import tensor_spec
from adcompile.manifest import FileRecord, Manifest, ModelRecord, PartRecord, file_sha256
from adcompile.place.targets import resolve_target

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
detector (float[1,3,32,32] image)
  => (float[n,4] boxes, int64[n] labels, float[n] scores, float[n,1,4,4] masks)
{
  conv = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (image, conv_w)
  features = Relu (conv)
  strength = ReduceMean <axes=[1], keepdims=0> (features)
  strong = Greater (strength, limit)
  places = NonZero (strong)
  turned = Transpose <perm=[1,0]> (places)
  last = Transpose <perm=[0,2,3,1]> (features)
  rows = GatherND (last, turned)
  centres = Slice (turned, one, three, one)
  wide = Cast <to=1> (centres)
  twice = Mul (wide, two)
  low = Sub (twice, size)
  high = Add (twice, size)
  boxes = Concat <axis=1> (low, high)
  hidden = Gemm (rows, w1, b1)
  active = Relu (hidden)
  logits = Gemm (active, w2, b2)
  pixels = Gemm (active, w3)
  chances = Softmax <axis=1> (logits)
  scores = ReduceMax <axes=[1], keepdims=0> (chances)
  labels = ArgMax <axis=1, keepdims=0> (chances)
  shaped = Reshape (pixels, mask_shape)
  masks = Sigmoid (shaped)
}
"""

PARTS = (
    ("backbone", "device", "backbone", "", ("features",)),
    ("host_0", "host", "host", "", ("rows", "boxes")),
    ("box_head", "device", "box_head", "roi", ("logits", "pixels")),
    ("host_1", "host", "host", "", ("labels", "scores", "masks")),
)

CONTRACT = Contract(
    inputs={"image": Preprocess(size=(32, 32))},
    roles={"boxes": "boxes", "labels": "labels", "scores": "scores", "masks": "masks"},
)


def model(seed: int = 0, text: str = TEXT) -> ir.Model:
    """The whole detector with seeded weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "conv_w": rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32),
        "limit": np.float32(0.55),
        "one": np.array([1], dtype=np.int64),
        "three": np.array([3], dtype=np.int64),
        "two": np.float32(2.0),
        "size": np.float32(3.0),
        "w1": rng.normal(0, 0.6, (8, 16)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 16).astype(np.float32),
        "w2": rng.normal(0, 0.6, (16, 5)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 5).astype(np.float32),
        "w3": rng.normal(0, 0.6, (16, 16)).astype(np.float32),
        "mask_shape": np.array([-1, 1, 4, 4], dtype=np.int64),
    }
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()
    )
    for node in proto.graph.node:
        node.name = node.output[0]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    return model_io.from_bytes(inferred.SerializeToString())


def parts(whole: ir.Model) -> list[Part]:
    """The four parts, cut by hand."""
    values = {v.name: v for node in whole.graph for v in node.outputs}
    order = list(whole.graph)
    made: list[Part] = []
    taken: set[ir.Node] = set()
    for name, placement, role, rows, results in PARTS:
        nodes = _needed([values[r] for r in results], taken)
        taken |= nodes
        outputs = [values[r] for r in results]
        inputs: dict[ir.Value, None] = {}
        for node in order:
            for value in node.inputs if node in nodes else ():
                if (
                    value is not None
                    and not value.is_initializer()
                    and value.producer() not in nodes
                ):
                    inputs[value] = None
        made.append(
            Part(
                name=name,
                placement=placement,
                role=role,
                model=extract(whole, nodes, list(inputs), outputs, name),
                inputs=tuple(tensor_spec(v) for v in inputs),
                outputs=tuple(tensor_spec(v) for v in outputs),
                rows=rows,
            )
        )
    return made


def _needed(values: Sequence[ir.Value], taken: set[ir.Node]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    pending = [v.producer() for v in values]
    while pending:
        node = pending.pop()
        if node is None or node in found or node in taken:
            continue
        found.add(node)
        pending += [v.producer() for v in node.inputs if v is not None]
    return found


def inputs(whole: ir.Model, count: int = 2) -> list[GoldenInput]:
    """Painted images, and a black one without detections as the last."""
    specs = [tensor_spec(v) for v in whole.graph.inputs]
    black = GoldenInput({"image": np.zeros((1, 3, 32, 32), np.float32)}, "black")
    return [*make_inputs(specs, CONTRACT, count=count), black]


def record_of(part: Part, files: FileSet) -> PartRecord:
    """What the reference backend emits for a part."""
    context = LowerContext(resolve_target("cpu"), "fp32", None, (), Path(), {}, Report())
    return CpuBackend().emit(part, part, context, files)


def write_bundle(
    folder: Path,
    *,
    whole: ir.Model | None = None,
    golden: Sequence[GoldenInput] | None = None,
    options: dict[str, dict[str, str]] | None = None,
    executor: str = "cpu",
) -> Path:
    """Write a bundle with golden data; *options* go to parts by name."""
    whole = whole if whole is not None else model()
    cut = parts(whole)
    folder.mkdir(parents=True, exist_ok=True)
    files = FileSet()
    records: list[PartRecord] = []
    for part in cut:
        record = record_of(part, files)
        family = executor if part.placement == "device" else "cpu"
        update = {"options": (options or {}).get(part.name, {}), "executor": family}
        records.append(record.model_copy(update=update))
    samples = record_boundaries(
        whole, cut, golden if golden is not None else inputs(whole), folder / "golden"
    )
    listed = files.write_into(folder)
    manifest = Manifest(
        adcompile="0",
        model=ModelRecord(
            name="detector",
            sha256="0",
            opset=17,
            inputs=tuple(tensor_spec(v) for v in whole.graph.inputs),
            outputs=tuple(tensor_spec(v) for v in whole.graph.outputs),
        ),
        contract=CONTRACT,
        target="cpu:host",
        roles=dict(CONTRACT.roles),
        tolerances=default_tolerances(["fp32"]),
        parts=tuple(records),
        golden=tuple(samples),
        files=listed,
    )
    return save(folder, manifest)


def save(folder: Path, manifest: Manifest) -> Path:
    """Write the manifest with sizes and hashes of what lies in the folder now."""
    files = {
        p.relative_to(folder).as_posix(): FileRecord(size=p.stat().st_size, sha256=file_sha256(p))
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "manifest.json"
    }
    manifest = manifest.model_copy(update={"files": files})
    (folder / "manifest.json").write_text(manifest.dump(), encoding="utf-8")
    return folder


def without_rows(part: Part) -> Part:
    """The same part, not marked as working on regions."""
    return replace(part, rows="")
