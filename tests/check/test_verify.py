"""verify: golden data, per-part errors, and that every kind of sabotage is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from adcompile.check.compare import SNR_CAP, Comparison
from adcompile.check.golden import make_inputs, open_sample
from adcompile.check.verify import Verification, verify_bundle
from adcompile.cli import main
from adcompile.cli.verify import show
from adcompile.contract import Contract
from adcompile.errors import AdcompileError, FormatError, InputError
from adcompile.manifest import Manifest, read_manifest
from tests.check import handmade


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for path in pristine.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(pristine)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path


def reseal(folder: Path, **update: object) -> None:
    """Write the manifest again with fitting hashes and seal: what a clever saboteur would do."""
    handmade.save(folder, read_manifest(folder).model_copy(update=update))


def edit_model(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, path)


def flip_weight(proto: onnx.ModelProto) -> None:
    weight = next(t for t in proto.graph.initializer if t.dims)
    array = numpy_helper.to_array(weight).copy()
    array.reshape(-1)[3] *= -1
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def change_scale(proto: onnx.ModelProto) -> None:
    scalar = next(t for t in proto.graph.initializer if t.name == "two")
    scalar.CopyFrom(numpy_helper.from_array(np.float32(2.01), "two"))


def test_a_good_bundle_verifies(pristine: Path) -> None:
    """Every output and part is compared on every sample, the empty one included."""
    outcome = verify_bundle(pristine)
    assert outcome.ok
    assert outcome.samples == 3
    assert len(outcome.outputs) == 12
    assert all(part.isolated and part.cumulative for part in outcome.parts)
    assert outcome.results()["ok"] == "yes"
    assert json.dumps(outcome.record(), allow_nan=False)


def test_verification_is_deterministic(pristine: Path) -> None:
    """The record in the manifest holds no times: twice the same."""
    assert verify_bundle(pristine).results() == verify_bundle(pristine).results()


@pytest.mark.parametrize("part", ["backbone", "box_head"])
def test_a_flipped_weight_names_the_part(bundle: Path, part: str) -> None:
    """With fitting hashes, the wrong numbers themselves are found, in the right part."""
    edit_model(bundle / f"parts/{part}/model.onnx", flip_weight)
    reseal(bundle)
    outcome = verify_bundle(bundle)
    assert not outcome.ok
    assert outcome.first_bad == part


def test_moved_regions_are_told(
    pristine: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind a part that changes which regions there are, errors by row are said to mean little."""
    assert verify_bundle(pristine).notes == ()
    edit_model(bundle / "parts/backbone/model.onnx", flip_weight)
    reseal(bundle)
    (note,) = verify_bundle(bundle).notes
    assert "box_head" in note
    assert "backbone" not in note
    assert main(["verify", str(bundle), "--no-trace"]) == 1
    assert "compared region by region" in " ".join(capsys.readouterr().out.split())


def test_a_changed_scale_names_the_part(bundle: Path) -> None:
    """Half a percent on one constant of a host part is found."""
    edit_model(bundle / "parts/host_0/model.onnx", change_scale)
    reseal(bundle)
    outcome = verify_bundle(bundle)
    assert not outcome.ok
    assert outcome.first_bad == "host_0"


def test_swapped_outputs_fail(bundle: Path) -> None:
    """Two outputs of equal shape in each other's place are found."""

    def swap(proto: onnx.ModelProto) -> None:
        for node in proto.graph.node:
            for i, name in enumerate(node.output):
                node.output[i] = {"logits": "pixels", "pixels": "logits"}.get(name, name)
        first, second = (
            next(o for o in proto.graph.output if o.name == n) for n in ["logits", "pixels"]
        )
        dims = first.type.tensor_type.shape.dim[1].dim_value
        first.type.tensor_type.shape.dim[1].dim_value = second.type.tensor_type.shape.dim[
            1
        ].dim_value
        second.type.tensor_type.shape.dim[1].dim_value = dims

    edit_model(bundle / "parts/box_head/model.onnx", swap)
    reseal(bundle)
    outcome = verify_bundle(bundle)
    assert not outcome.ok
    assert outcome.first_bad == "box_head"


def test_a_changed_contract_fails(tmp_path: Path) -> None:
    """Pre-processing the kept image again must give the recorded input."""
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    whole = handmade.model()
    specs = [handmade.tensor_spec(v) for v in whole.graph.inputs]
    golden = make_inputs(specs, handmade.CONTRACT, [tmp_path / "p.png"])
    folder = handmade.write_bundle(tmp_path / "b", whole=whole, golden=golden)
    assert verify_bundle(folder).ok
    rule = handmade.CONTRACT.inputs["image"].model_copy(update={"scale": 1 / 254})
    reseal(folder, contract=handmade.CONTRACT.model_copy(update={"inputs": {"image": rule}}))
    outcome = verify_bundle(folder)
    assert not outcome.ok
    assert "contract was changed" in outcome.problems[0]


def change_byte(path: Path, at: int = 200) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def as_link(path: Path) -> None:
    real = path.parent.parent.parent.parent / "elsewhere.onnx"
    path.rename(real)
    path.symlink_to(real)


MODEL = "parts/backbone/model.onnx"
GOLDEN = "golden/0/001_boxes.npy"


@pytest.mark.parametrize("file", [MODEL, GOLDEN])
@pytest.mark.parametrize(
    "damage", [change_byte, truncate, Path.unlink, lambda p: p.write_bytes(b"")]
)
def test_damaged_files_are_refused(
    bundle: Path, file: str, damage: Callable[[Path], object]
) -> None:
    """Flipped, cut, missing and empty files never reach ONNX Runtime."""
    damage(bundle / file)
    with pytest.raises(FormatError) as caught:
        verify_bundle(bundle)
    assert file in str(caught.value)


def test_links_are_refused(bundle: Path) -> None:
    """A link to a file with the right content is still no part of the bundle."""
    as_link(bundle / MODEL)
    with pytest.raises(FormatError, match="missing"):
        verify_bundle(bundle)


def edited(bundle: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=2, sort_keys=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema_version=99),
        lambda d: d.update(target="trt:orin-nx"),
        lambda d: d["tolerances"].update(boxes=[9.0, 9.0]),
        lambda d: d["contract"]["inputs"]["image"].update(scale=0.5),
        lambda d: d.update(golden=[]),
        lambda d: d["parts"][0]["files"].update(model="../../etc/passwd"),
        lambda d: d["parts"][0]["files"].update(model="parts/box_head/model.onnx"),
        lambda d: d["files"].pop(MODEL),
        lambda d: d["roles"].clear(),
        lambda d: d.pop("seal"),
        lambda d: d.update(seal="0" * 64),
    ],
)
def test_an_edited_manifest_is_refused(
    bundle: Path, change: Callable[[dict[str, object]], None]
) -> None:
    """Whatever is edited by hand, the loader notices."""
    edited(bundle, change)
    with pytest.raises(FormatError):
        verify_bundle(bundle)


def test_formatting_the_manifest_is_no_edit(bundle: Path) -> None:
    """The seal covers the content, not the white space."""
    edited(bundle, lambda _d: None)
    assert verify_bundle(bundle).ok


def escape(manifest: Manifest) -> Manifest:
    part = manifest.parts[0].model_copy(update={"files": {"model": "../outside.onnx"}})
    return manifest.model_copy(update={"parts": (part, *manifest.parts[1:])})


def test_resealed_escapes_are_refused(bundle: Path) -> None:
    """A part file outside the folder is refused though everything is sealed and hashed."""
    (bundle.parent / "outside.onnx").write_bytes((bundle / MODEL).read_bytes())
    handmade.save(bundle, escape(read_manifest(bundle)))
    with pytest.raises(FormatError, match="does not list"):
        verify_bundle(bundle)


def test_external_data_outside_is_refused(bundle: Path) -> None:
    """A model whose weights point out of the bundle is not opened."""
    (bundle.parent / "secret.bin").write_bytes(bytes(4096))

    def point_out(proto: onnx.ModelProto) -> None:
        weight = next(t for t in proto.graph.initializer if t.name == "conv_w")
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", "../../../secret.bin"

    proto = onnx.load(bundle / MODEL)
    point_out(proto)
    (bundle / MODEL).write_bytes(proto.SerializeToString())
    reseal(bundle)
    with pytest.raises(AdcompileError):
        verify_bundle(bundle)


def test_golden_of_other_outputs_is_refused(bundle: Path) -> None:
    """Golden data that lacks an output cannot pass as complete."""
    manifest = read_manifest(bundle)
    first = manifest.golden[0]
    less = {n: f for n, f in first.outputs.items() if n != "masks"}
    sample = first.model_copy(update={"outputs": less})
    reseal(bundle, golden=(sample,))
    with pytest.raises(FormatError, match="not the model's"):
        verify_bundle(bundle)


def test_golden_in_pickle_is_refused(bundle: Path) -> None:
    """An object array is never unpickled."""
    np.save(bundle / GOLDEN, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    reseal(bundle)
    with pytest.raises(FormatError, match="cannot be read"):
        verify_bundle(bundle)


def test_no_golden_data_is_no_success(bundle: Path) -> None:
    """Nothing compared is not "ok"."""
    reseal(bundle, golden=())
    with pytest.raises(InputError, match="no golden data"):
        verify_bundle(bundle)


def test_fewer_samples_and_no_isolation(pristine: Path) -> None:
    """Both limits are kept."""
    outcome = verify_bundle(pristine, samples=1, isolate=False)
    assert outcome.samples == 1
    assert all(part.isolated is None for part in outcome.parts)


def test_boundaries_are_bounded(tmp_path: Path) -> None:
    """Once the boundary tensors take their share of disk, later samples have none."""
    from adcompile.check.golden import record_boundaries

    whole = handmade.model()
    samples = record_boundaries(
        whole, handmade.parts(whole), handmade.inputs(whole), tmp_path / "golden", max_bytes=1
    )
    assert samples[0].boundaries
    assert not samples[1].boundaries
    assert len(samples) == 3


def test_made_up_inputs_repeat(pristine: Path) -> None:
    """The same seed gives the same inputs, another seed others; images go through the contract."""
    specs = [handmade.tensor_spec(v) for v in handmade.model().graph.inputs]
    one, two, three = (make_inputs(specs, handmade.CONTRACT, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one[1].feeds["image"], two[1].feeds["image"])
    assert not np.array_equal(one[0].feeds["image"], three[0].feeds["image"])
    assert 0.0 <= one[0].feeds["image"].min() < one[0].feeds["image"].max() <= 1.0


def test_made_up_inputs_of_every_type() -> None:
    """Models without an image contract get numbers of the right type."""
    from adcompile.manifest import TensorSpec

    specs = [
        TensorSpec(name=dtype, dtype=dtype, shape=(2, "n"))
        for dtype in ("float32", "float16", "float64", "int64", "int8", "uint8", "bool")
    ]
    (sample,) = make_inputs(specs, Contract(), count=1)
    assert {n: str(a.dtype) for n, a in sample.feeds.items()} == {s.name: s.dtype for s in specs}
    assert all(a.shape == (2, 1) for a in sample.feeds.values())


def test_samples_open_memory_mapped(pristine: Path) -> None:
    """Golden tensors are mapped, not read."""
    manifest = read_manifest(pristine)
    sample = open_sample(pristine, manifest.golden[0], manifest.files)
    assert isinstance(sample.boundaries["features"], np.memmap)


def test_verify_on_the_command_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and a table when fine; exit 1 and the part's name when not; JSON either way."""
    assert main(["verify", str(bundle)]) == 0
    assert "ok: 3 samples" in capsys.readouterr().out
    edit_model(bundle / MODEL, flip_weight)
    reseal(bundle)
    assert main(["verify", str(bundle)]) == 1
    assert "first bad part: backbone" in capsys.readouterr().out
    assert main(["verify", str(bundle), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_bad"] == "backbone"


def test_fewer_samples_and_no_parts_alone(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--samples and --no-parts are for a quick look."""
    assert main(["verify", str(bundle), "--samples", "1", "--no-parts", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == 1
    assert all(part["isolated"] is None for part in told["parts"])


def test_a_large_difference_is_not_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """Only decibels have a largest value, which stands for equal arrays."""
    big = Comparison("y", "boxes", False, "", {"max_abs": 512.0, "snr_db": 3.0})
    same = Comparison("z", "boxes", True, "", {"max_abs": 0.0, "snr_db": SNR_CAP})
    show(Verification(((0, big), (0, same)), (), 1, "here"))
    told = capsys.readouterr().out
    rows = {name: next(line for line in told.splitlines() if f" {name} " in line) for name in "yz"}
    assert "512" in rows["y"]
    assert "equal" not in rows["y"]
    assert "equal" in rows["z"]
