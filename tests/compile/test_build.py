"""Whole builds of small models for every target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml

import adcompile
from adcompile.cache import StepCache
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import AdcompileError, InputError, Unsupported, UsageError
from adcompile.manifest import ActionRecord, check_files, read_manifest
from tests.compile.models import cnn, detector, dynamic
from tests.place import nets

TARGETS = [("trt", "fp32"), ("npu", "fp32"), ("drpai", "fp32")]
QUICK = BuildOptions(golden_count=1, host_code=False, cache=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def image(seed: int = 0, side: int = 32) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((1, 3, side, side), dtype=np.float32)


@pytest.mark.parametrize(("target", "precision"), TARGETS)
def test_a_detector_is_split_and_gives_the_same_results(
    target: str, precision: str, tmp_path: Path
) -> None:
    """The CNN goes to the device, NMS stays on the host, and the numbers are ONNX Runtime's."""
    model = detector()
    result = compile(model, target, tmp_path / "b", replace(QUICK, precision=precision))
    assert result.ok
    placements = {p.name: p.placement for p in result.manifest.parts}
    assert "device" in placements.values()
    assert "host" in placements.values()
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"image": image()})
    with adcompile.load(tmp_path / "b") as bundle:
        got = bundle.run({"image": image()}).outputs
    for name, want in zip(("boxes", "labels", "scores"), expected, strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "precision"), [("npu", "xint8"), ("drpai", "int8"), ("trt:rtx-ada", "fp16")]
)
def test_default_precisions_build_and_verify(target: str, precision: str, tmp_path: Path) -> None:
    """Each family's own number format is produced, is accepted by its dialect, and verifies."""
    result = compile(cnn(), target, tmp_path / "b", replace(QUICK, precision=precision))
    assert result.ok
    (part,) = [p for p in result.manifest.parts if p.placement == "device"]
    assert part.precision == precision
    assert part.files["simulation"] != part.files["model"]
    assert part.name in result.manifest.verified_on


def test_a_bundle_is_complete_and_sealed(tmp_path: Path) -> None:
    """Every file is listed with size and hash; the page and the plan are there; no path leaks."""
    result = compile(cnn(), "npu", tmp_path / "b", replace(QUICK, precision="fp32"))
    manifest = read_manifest(result.path)
    check_files(result.path, manifest)
    on_disk = {
        p.relative_to(result.path).as_posix() for p in result.path.rglob("*") if p.is_file()
    }
    assert on_disk == {*manifest.files, "manifest.json"}
    assert {"plan.yaml", "report.html"} <= on_disk
    assert str(tmp_path) not in (result.path / "manifest.json").read_text()
    assert manifest.rewrites == result.manifest.rewrites


def test_same_build_same_bytes(tmp_path: Path) -> None:
    """Two builds of the same thing are equal file by file."""
    for name in ("a", "b"):
        compile(detector(), "npu", tmp_path / name, replace(QUICK, precision="xint8"))
    one, two = (read_manifest(tmp_path / n) for n in ("a", "b"))
    assert one.files == two.files
    assert one.dump() == two.dump()


def test_an_edited_plan_is_followed(tmp_path: Path) -> None:
    """A plan written by one build, edited by hand, decides the next build."""
    compile(detector(), "npu", tmp_path / "a", replace(QUICK, precision="fp32"))
    plan = yaml.safe_load((tmp_path / "a" / "plan.yaml").read_text())
    part = next(p for p in plan["parts"] if p["placement"] == "device")
    part["name"] = part["role"] = "my_part"
    edited = tmp_path / "plan.yaml"
    edited.write_text(yaml.safe_dump(plan))
    result = compile(
        detector(), "npu", tmp_path / "b", replace(QUICK, precision="fp32", plan=edited)
    )
    assert result.ok
    assert "my_part" in [p.name for p in result.manifest.parts]


def test_plan_and_build_give_the_same_files(tmp_path: Path) -> None:
    """Building in one go and building from the plan that was printed give equal part files."""
    options = replace(QUICK, precision="fp32")
    first = compile(detector(), "npu", tmp_path / "a", options)
    second = compile(
        detector(), "npu", tmp_path / "b", replace(options, plan=tmp_path / "a" / "plan.yaml")
    )
    parts = [
        {k: v for k, v in r.manifest.files.items() if k.startswith(("parts/", "golden/", "plan"))}
        for r in (first, second)
    ]
    assert parts[0] == parts[1]


def test_pins_are_obeyed(tmp_path: Path) -> None:
    """A node pinned to the host is in a host part."""
    options = replace(QUICK, precision="fp32", pins={"op:Conv": "host"})
    result = compile(cnn(), "npu", tmp_path / "b", options)
    assert all(p.placement == "host" for p in result.manifest.parts)


def test_a_dynamic_input_can_be_fixed(tmp_path: Path) -> None:
    """With a size for the free dimensions the convolution reaches the device."""
    options = replace(QUICK, precision="fp32", input_shapes={"image": (1, 3, 16, 16)})
    result = compile(dynamic(), "npu", tmp_path / "b", options)
    assert result.ok
    assert [p.placement for p in result.manifest.parts] == ["device"]


def test_free_dimensions_that_do_not_run_are_named(tmp_path: Path) -> None:
    """What is made up for a free size is 1; a model that cannot run on that asks for a size."""
    model = dynamic()
    model.graph.node[0].attribute[0].ints[:] = [0, 0, 0, 0]  # no padding: an image needs 3 pixels
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_param = "S" if value is model.graph.input[0] else "T"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    with pytest.raises(InputError, match=r"free dimensions \(Nx3xSxS\)") as caught:
        compile(model, "npu", tmp_path / "b", replace(QUICK, precision="fp32"))
    assert "--input-shape image=1x3x224x224" in caught.value.fix


def test_unknown_input_name_is_named(tmp_path: Path) -> None:
    """A shape for an input that does not exist lists those that do."""
    with pytest.raises(UsageError, match="no input called 'img'") as caught:
        compile(dynamic(), "npu", tmp_path / "b", replace(QUICK, input_shapes={"img": (1,)}))
    assert "image" in caught.value.fix


def test_a_number_as_input(tmp_path: Path) -> None:
    """An input without dimensions is given as such, in Python and on the command line."""
    header = '<ir_version: 9, opset_import: ["" : 17]>'
    body = "scaled (float[n] x, float s) => (float[n] y) { y = Mul(x, s) }"
    model = onnx.parser.parse_model(f"{header} {body}")
    shapes: dict[str, tuple[int, ...]] = {"x": (3,), "s": ()}
    options = replace(QUICK, precision="fp32", input_shapes=shapes)
    assert compile(model, "trt", tmp_path / "a", options).ok
    onnx.save(model, tmp_path / "m.onnx")
    words = ["build", str(tmp_path / "m.onnx"), "-t", "trt", "-o", str(tmp_path / "b")]
    given = ["--input-shape", "x=3", "--input-shape", "s=scalar", "--precision", "fp32"]
    assert main([*words, *given]) == 0


def test_strict_refuses_host_parts(tmp_path: Path) -> None:
    """--strict turns the first thing the target cannot run into an error with its reason."""
    with pytest.raises(Unsupported) as caught:
        compile(detector(), "drpai", tmp_path / "b", replace(QUICK, precision="fp32", strict=True))
    assert caught.value.why
    assert not (tmp_path / "b").exists()


def test_repeated_build_is_reused(tmp_path: Path) -> None:
    """The same command again answers from the bundle; a changed option does not."""
    options = BuildOptions(golden_count=1, host_code=False, precision="fp32")
    compile(cnn(), "npu", tmp_path / "b", options)
    again = compile(cnn(), "npu", tmp_path / "b", options)
    assert again.steps == [
        ("build", "reused", "same model, options, data and tool versions; files intact")
    ]
    steps: list[str] = []
    with pytest.raises(UsageError, match="already exists") as caught:
        compile(cnn(), "npu", tmp_path / "b", replace(options, seed=1), watch=steps.append)
    assert (caught.value.why, steps) == ("it was built with seed 0", ["load"])  # before any work
    forced = compile(cnn(), "npu", tmp_path / "b", replace(options, seed=1, force=True))
    assert forced.ok


def test_an_occupied_output_is_refused_at_once(tmp_path: Path) -> None:
    """Not after the work; and --force replaces a bundle, never a file or a folder of other things."""
    options = replace(QUICK, force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    for output, why in ((tmp_path / "mine", "no bundle"), (tmp_path / "mine/photo.jpg", "a file")):
        with pytest.raises(UsageError, match="already exists") as caught:
            compile(cnn(), "npu", output, options)
        assert why in caught.value.why
    with pytest.raises(InputError, match="cannot write") as blocked:
        compile(cnn(), "npu", tmp_path / "mine/photo.jpg/b", options)
    assert "is not a folder" in blocked.value.why
    (tmp_path / "empty").mkdir()
    assert compile(cnn(), "npu", tmp_path / "empty", replace(QUICK, precision="fp32")).ok


def test_a_damaged_bundle_is_not_reused(tmp_path: Path) -> None:
    """A changed file makes the bundle one that has to be built again."""
    options = BuildOptions(golden_count=1, host_code=False, precision="fp32", force=True)
    compile(cnn(), "npu", tmp_path / "b", options)
    (tmp_path / "b" / "plan.yaml").write_text("x")
    again = compile(cnn(), "npu", tmp_path / "b", options)
    assert again.steps != [("build", "reused", "")]
    check_files(again.path, read_manifest(again.path))


def test_lowering_is_taken_from_the_cache(tmp_path: Path) -> None:
    """Another output folder reuses the quantized part and gives the same bytes."""
    options = BuildOptions(golden_count=1, host_code=False, precision="xint8")
    one = compile(cnn(), "npu", tmp_path / "a", options)
    two = compile(cnn(), "npu", tmp_path / "b", options)
    assert [state for _, state, _ in one.steps] == ["ran"]
    assert [state for _, state, _ in two.steps] == ["reused"]
    assert one.manifest.files == two.manifest.files


@pytest.mark.parametrize("moment", ["record_golden", "lower", "emit", "write", "verify", "finish"])
def test_an_interrupt_leaves_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at any step leaves no half bundle, no scratch folder, and an older bundle intact."""
    out = tmp_path / "out"
    out.mkdir()
    options = replace(QUICK, precision="fp32", force=True)
    compile(cnn(), "npu", out / "b", options)
    before = (out / "b" / "manifest.json").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"adcompile.compiler.{moment}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compile(cnn(1), "npu", out / "b", options)
    assert [p.name for p in out.iterdir()] == ["b"]
    assert (out / "b" / "manifest.json").read_bytes() == before


def test_disk_full_is_said_and_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError while writing is a sentence, not a traceback, and leaves nothing behind."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adcompile.fileset.Path.write_bytes", full)
    with pytest.raises(AdcompileError, match="cannot write"):
        compile(cnn(), "npu", tmp_path / "b", replace(QUICK, precision="fp32"))
    assert not list(tmp_path.glob("b*"))
    assert not list(tmp_path.glob(".b*"))


def test_the_input_model_is_not_changed(tmp_path: Path) -> None:
    """Compiling a file leaves the file as it was."""
    path = tmp_path / "m.onnx"
    onnx.save(detector(), path)
    before = path.read_bytes()
    compile(path, "npu", tmp_path / "b", replace(QUICK, precision="xint8"))
    assert path.read_bytes() == before


def test_manifest_is_json_with_sorted_keys(tmp_path: Path) -> None:
    """The manifest is canonical text."""
    result = compile(cnn(), "npu", tmp_path / "b", replace(QUICK, precision="fp32"))
    text = (result.path / "manifest.json").read_text()
    assert (
        text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    )


def test_cache_off_keeps_nothing(tmp_path: Path) -> None:
    """Without a cache no folder is written outside the output."""
    assert StepCache(None).step("x", {}, lambda _p: None) is None
    compile(cnn(), "npu", tmp_path / "b", replace(QUICK, precision="xint8"))
    assert not (tmp_path / "cache").exists()


def test_a_failed_vendor_command_leaves_a_bundle_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the builder fails, the action says so and the part no longer names the missing plan."""

    def fail(_bundle: Path, actions: tuple[ActionRecord, ...]) -> list[ActionRecord]:
        return [a.model_copy(update={"state": "failed", "detail": "no"}) for a in actions]

    monkeypatch.setattr("adcompile.steps.emitting.run_actions", fail)
    result = compile(cnn(), "trt:rtx-ada", tmp_path / "b", replace(QUICK, precision="fp16"))
    assert [a.state for a in result.manifest.actions] == ["failed"]
    assert result.ok
    with adcompile.load(tmp_path / "b") as bundle:
        assert set(bundle.run({"image": image()}).outputs) == {"features"}


def test_a_model_of_constants_builds(tmp_path: Path) -> None:
    """An output that no node computes gets a part of its own, which no plan lists."""
    value = onnx.numpy_helper.from_array(np.arange(3, dtype=np.float32), "c")
    node = onnx.helper.make_node("Identity", ["c"], ["y"], "only")
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])
    graph = onnx.helper.make_graph([node], "constants", [], [output], [value])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert compile(model, "npu", tmp_path / "b", replace(QUICK, precision="fp32")).ok
    with adcompile.load(tmp_path / "b") as bundle:
        assert bundle.run({}).outputs["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("target", ["trt", "npu", "drpai"])
def test_region_heads_verify_at_fp32(target: str, tmp_path: Path) -> None:
    """Parts that run per region, with any number of regions, compute what the original computes."""
    result = compile(
        nets.two_stage_detector(), target, tmp_path / "b", replace(QUICK, precision="fp32")
    )
    assert result.ok
    assert {"box_head", "mask_head"} <= {part.name for part in result.manifest.parts}
