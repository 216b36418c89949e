"""A two-stage detector splits by itself, on every family, and the split computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from adcompile import registry
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.ir.evaluate import evaluate
from adcompile.ir.shapes import infer_shapes
from adcompile.place.plan import PartPlan, Plan, Settings, apply_plan, make_plan, place_nodes
from adcompile.place.planner import Supports
from adcompile.place.targets import resolve_target
from adcompile.rewrite.canonical import canonical
from tests.place import dags
from tests.place.nets import Builder, small_net, two_stage_detector

SPLITS = [
    ("trt", "fp16"),
    ("trt:orin-nx@8.5", "int8"),
    ("npu:phx", "a8w8"),
    ("npu", "a16w8"),
    ("npu", "bf16"),
    ("npu", "fp32"),
    ("drpai:v2h", "int8"),
    ("drpai:v2l", "fp16"),
]


def supports(family: str) -> Supports:
    """The support function of a built-in family."""
    return registry.load(f"adcompile.backends.{family}.support:supports")  # type: ignore[return-value]


def plan(model: ir.Model, target: str, precision: str, **settings: object) -> Plan:
    resolved = resolve_target(target)
    return make_plan(
        model,
        resolved,
        supports(resolved.family),
        precision=precision,
        options=Settings.model_validate(settings),
    )


def device(made: Plan) -> dict[str, PartPlan]:
    return {p.name: p for p in made.parts if p.placement == "device"}


@pytest.mark.parametrize(("target", "precision"), SPLITS)
def test_the_detector_splits_without_hints(target: str, precision: str) -> None:
    """Backbone with the proposal head, box head and mask head; all multiply-adds on the device."""
    made = plan(two_stage_detector(), target, precision)
    parts = device(made)
    assert list(parts) == ["backbone", "box_head", "mask_head"]
    assert made.coverage_macs == 1.0
    assert {"logits_l2", "delta_l3", "p3"} <= set(parts["backbone"].nodes)
    assert {"box_conv", "cls", "reg"} <= set(parts["box_head"].nodes)
    assert {"mask_conv", "up", "mask_logits"} <= set(parts["mask_head"].nodes)
    assert [p.rows for p in parts.values()] == ["", "roi", "roi"]
    host = {n for p in made.parts if p.placement == "host" for n in p.nodes}
    assert {"chosen", "box_feat", "mask_feat", "top_score", "grown", "box"} <= host


@pytest.mark.parametrize(("target", "precision"), SPLITS)
def test_the_split_computes_the_same(target: str, precision: str) -> None:
    """Parts in order give ONNX Runtime's results, for several images."""
    model = two_stage_detector()
    parts = apply_plan(model, plan(model, target, precision))
    for seed in range(2):
        image = np.random.default_rng(seed).random((1, 3, 64, 64), dtype=np.float32)
        got = dags.run(parts, {"image": image})
        for name, array in evaluate(model, {"image": image}).items():
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5)


def test_xint8_keeps_the_transposed_convolution_on_the_host_and_says_why() -> None:
    """The refusal names the precision that helps."""
    made = plan(two_stage_detector(), "npu", "xint8")
    whys = [w for p in made.parts for w in p.why if "ConvTranspose" in w.ops]
    assert [w.refused for w in whys] == [True]
    assert "a8w8" in whys[0].fix
    assert whys[0].fix_exactness == "quantized"
    assert 0.3 < made.coverage_macs < 1.0


def test_a_part_can_have_a_precision_of_its_own() -> None:
    """xint8 with the mask head in a8w8: nothing is lost, and the parts say their precision."""
    pinned = {"role:mask_head": "a8w8"}
    made = plan(two_stage_detector(), "npu", "xint8", precisions=pinned)
    assert {n: p.precision for n, p in device(made).items()} == {
        "backbone": "xint8",
        "box_head": "xint8",
        "mask_head": "a8w8",
    }
    assert made.coverage_macs == 1.0


def test_a_strided_1x1_pool_is_refused_on_the_npu_with_an_exact_fix() -> None:
    """Without the pass that replaces it, the level behind it becomes a head of its own."""
    made = plan(two_stage_detector(pool=1), "npu", "a8w8")
    why = next(w for p in made.parts for w in p.why if w.ops == ("MaxPool",))
    assert "depthwise" in why.fix
    assert why.fix_exactness == "exact"


@pytest.mark.parametrize(
    ("policy", "calls", "options"),
    [
        ("loop", 50, {"roi_policy": "loop"}),
        ("bucket", 2, {"roi_policy": "bucket", "roi_buckets": "1,8,32"}),
        ("profile", 1, {"roi_policy": "profile"}),
    ],
)
def test_roi_policies_are_recorded(policy: str, calls: int, options: dict[str, str]) -> None:
    """The policy decides the calls per image and is written into the part."""
    made = plan(two_stage_detector(), "npu", "a8w8", roi_policy=policy, roi_rows=50)
    head = made.part("mask_head")
    assert head.options == options
    assert head.cost.calls == calls
    assert apply_plan(two_stage_detector(), made)[-2].options == options


def test_roi_policy_host_leaves_the_heads_on_the_host() -> None:
    """Only the backbone remains, and the reason is the user's choice, not a refusal."""
    made = plan(two_stage_detector(), "npu", "a8w8", roi_policy="host")
    assert list(device(made)) == ["backbone"]
    why = [w for p in made.parts for w in p.why if "roi_policy" in w.reason]
    assert why
    assert not any(w.refused for w in why)


def test_defaults_of_the_roi_policy_come_from_the_family() -> None:
    """TensorRT takes any row count, the others one row at a time."""
    model = two_stage_detector()
    assert plan(model, "trt", "fp16").part("box_head").options == {"roi_policy": "profile"}
    assert plan(model, "drpai", "int8").part("box_head").options == {"roi_policy": "loop"}


def test_counts_scale_with_the_nominal_rows() -> None:
    """Multiply-adds of a part per region are per row times the stated rows; others do not change."""
    model = two_stage_detector()
    one, ten = (plan(model, "npu", "a8w8", roi_rows=n) for n in (1, 10))
    assert ten.part("box_head").cost.macs == 10 * one.part("box_head").cost.macs
    assert ten.part("backbone").cost.macs == one.part("backbone").cost.macs
    flat = 64 * 64 * 9 * 49 + 3136 * 32 + 32 * 5 + 32 * 4
    assert one.part("box_head").cost.macs == flat
    assert "10 regions" in ten.notes[0]


def test_box_arithmetic_stays_in_float() -> None:
    """What TensorRT could run between the last layer and NMS is kept on the host, by choice."""
    resolved = resolve_target("trt")
    placed = place_nodes(two_stage_detector(), resolved, supports("trt"), precision="fp16")[1]
    by_name = {p.node.name: p for p in placed}
    for name in ("top_score", "box", "score", "top_box", "delta_cat"):
        assert by_name[name].verdict
        assert by_name[name].placement == "host"
        assert "full precision" in by_name[name].why.reason


@pytest.mark.parametrize(("target", "first"), [("trt", "backbone"), ("npu", "host_0")])
def test_normalisation_stays_where_float_is_cheap(target: str, first: str) -> None:
    """A chip that quantizes all it runs gets the normalised image; TensorRT normalises itself."""
    made = plan(two_stage_detector(), target, "fp16" if target == "trt" else "a8w8")
    assert next(p.name for p in made.parts if "normalised" in p.nodes) == first


def test_pins_move_nodes_and_refuse_the_impossible() -> None:
    """Selectors by name, op, regular expression and role; a refused node cannot be pinned."""
    model = two_stage_detector()
    made = plan(model, "trt", "fp16", host=["role:mask_head", "name:box_conv"])
    assert "mask_head" not in device(made)
    assert "box_conv" not in {n for p in device(made).values() for n in p.nodes}
    kept = plan(model, "trt", "fp16", device=["re:^(score|box)$"])
    assert {"score", "box"} <= {n for p in device(kept).values() for n in p.nodes}
    with pytest.raises(UsageError, match="cannot pin 'chosen'") as caught:
        plan(model, "trt", "fp16", device=["op:NonMaxSuppression"])
    assert "depends on the data" in caught.value.why
    with pytest.raises(UsageError, match="device and to the host"):
        plan(model, "trt", "fp16", device=["c1"], host=["op:Conv"])


@pytest.mark.parametrize(
    ("selector", "hint"),
    [
        ("op:Cnov", "Conv"),
        ("name:box_con", "box_conv"),
        ("re:[", "unterminated"),
        ("zzz", "op:TYPE"),
    ],
)
def test_selectors_that_name_nothing_are_errors(selector: str, hint: str) -> None:
    """A typo never does nothing in silence."""
    with pytest.raises(UsageError) as caught:
        plan(two_stage_detector(), "trt", "fp16", host=[selector])
    assert hint in str(caught.value)


def test_min_macs_sends_small_parts_to_the_host() -> None:
    """The box head has fewer multiply-adds than the limit, the mask head more."""
    model = two_stage_detector()
    limit = plan(model, "trt", "fp16").part("box_head").cost.macs + 1
    made = plan(model, "trt", "fp16", min_macs=limit)
    assert "box_head" not in device(made)
    assert any("too small" in w.reason for p in made.parts for w in p.why)


def test_a_part_that_does_not_pay_goes_back_unless_kept() -> None:
    """Two Relu between host ops save less than the boundary costs."""
    b = Builder()
    x = b.node("Relu", [b.conv("image", "c1", 3, 32)], "r1")
    x = b.node("Asinh", [x], "s1")
    x = b.node("Relu", [x], "r2")
    b.node("Asinh", [x], "out")
    model = b.model({"image": (1, 3, 32, 32)}, {"out": (1, 32, 32, 32)})
    made = plan(model, "npu", "a8w8")
    assert "r2" not in {n for p in device(made).values() for n in p.nodes}
    assert any(w.reason == "the part is not worth its boundary" for p in made.parts for w in p.why)
    kept = plan(model, "npu", "a8w8", keep_small=True)
    assert "r2" in {n for p in device(kept).values() for n in p.nodes}


def test_a_whole_model_without_a_boundary_stays_on_the_device() -> None:
    """Nothing crosses, so even little work is worth it."""
    b = Builder()
    b.node("Relu", ["image"], "out")
    model = b.model({"image": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8)})
    made = plan(model, "trt", "fp16")
    assert [p.name for p in made.parts] == ["backbone"]


def test_a_constant_output_needs_no_device() -> None:
    """A part of nothing but constants would compute nothing."""
    b = Builder()
    b.conv("image", "out", 3, 8)
    b.node("Shape", ["image"], "fixed")
    model = b.model({"image": (1, 3, 8, 8)}, {"out": (1, 8, 8, 8), "fixed": 4})
    canonical().run(model, Report())
    (fixed,) = (node.name for node in model.graph if node.op_type == "Constant")
    made = plan(model, "trt", "fp16")
    assert [(p.placement, p.nodes) for p in made.parts] == [
        ("device", ("out",)),
        ("host", (fixed,)),
    ]


def test_a_free_input_shape_keeps_everything_on_the_host_and_names_the_option() -> None:
    """The reason is the input, and the fix says which."""
    b = Builder()
    b.node("Relu", [b.conv("image", "c1", 3, 8)], "out")
    model = b.model({"image": ("n", 3, 8, 8)}, {"out": ("n", 8, 8, 8)})
    made = plan(model, "trt", "fp16")
    assert device(made) == {}
    assert made.part("host_0").why[0].fix == "--input-shape image=…"


def test_making_a_plan_changes_nothing() -> None:
    """The model's nodes, names and shapes are the same afterwards."""
    from adcompile.ir.dump import dump

    model = two_stage_detector()
    before = dump(model)
    apply_plan(model, plan(model, "npu", "a8w8"))
    assert dump(model) == before


def test_the_same_model_gives_the_same_plan() -> None:
    """Two runs, byte for byte."""
    texts = {plan(two_stage_detector(), "npu", "a8w8").dump() for _ in range(2)}
    assert len(texts) == 1


def test_roles_of_a_feature_extractor_and_of_two_towers() -> None:
    """The biggest part that sees the image is the backbone, another one a head."""
    assert list(device(plan(small_net(), "npu", "a8w8"))) == ["backbone"]
    b = Builder()
    x = b.node("Relu", [b.conv("image", "c1", 3, 64)], "r1")
    x = b.node("Relu", [b.conv(x, "c2", 64, 64)], "r2")
    x = b.node("Asinh", [x], "s")
    x = b.node("Relu", [b.conv(x, "c3", 64, 32)], "r3")
    b.node("Relu", [b.conv(x, "c4", 32, 8)], "out")
    model = b.model({"image": (1, 3, 48, 48)}, {"out": (1, 8, 48, 48)})
    infer_shapes(model)
    assert list(device(plan(model, "npu", "a8w8"))) == ["backbone", "head"]


def test_a_backbone_cut_by_an_unsupported_op_keeps_its_name() -> None:
    """The first big piece is the backbone even when a later one is bigger; then neck and head."""
    b = Builder()
    x = b.node("Relu", [b.conv("image", "c1", 3, 32)], "r1")
    x = b.node("Asinh", [b.conv(x, "c2", 32, 32)], "s1")
    x = b.node("Relu", [b.conv(x, "c3", 32, 32)], "r3")
    x = b.node("Asinh", [b.conv(x, "c4", 32, 32)], "s2")
    x = b.node("Relu", [b.conv(x, "c5", 32, 64)], "r5")
    b.conv(x, "out", 64, 64)
    model = b.model({"image": (1, 3, 48, 48)}, {"out": (1, 64, 48, 48)})
    assert list(device(plan(model, "npu", "a8w8"))) == ["backbone", "neck", "head"]


def test_features_that_reach_a_memory_bank_are_an_embedding() -> None:
    """A backbone whose output is compared with stored vectors is named for that."""
    b = Builder()
    x = b.node("Relu", [b.conv("image", "c1", 3, 32)], "r1")
    x = b.node("Relu", [b.conv(x, "c2", 32, 32)], "r2")
    flat = b.constant("flat", np.array([-1, 32], np.int64))
    last = b.node("Transpose", [x], "t", perm=[0, 2, 3, 1])
    rows = b.node("Reshape", [last, flat], "rows")
    bank = b.weight("bank", 50, 32)
    b.node("KnnSearch", [rows, bank], "distances indices", domain="adcompile")
    model = b.model(
        {"image": (1, 3, 48, 48)}, {"distances": (2304, 9), "indices": (2304, 9)}, check=False
    )
    made = plan(model, "npu", "a8w8")
    assert list(device(made)) == ["embedding"]
    why = next(w for p in made.parts for w in p.why if w.ops == ("KnnSearch",))
    assert why.reason == "KnnSearch is compiled to host code"


def test_outputs_that_no_node_computes_are_handed_out() -> None:
    """A constant output gets a host part of its own; an input that is an output needs none."""
    b = Builder()
    b.node("Relu", ["image"], "out")
    b.constant("fixed", np.ones((2,), np.float32))
    model = b.model({"image": (1, 3, 8, 8)}, {"out": (1, 3, 8, 8), "fixed": (2,)})
    parts = apply_plan(model, plan(model, "trt", "fp16"))
    assert [(p.name, p.placement) for p in parts] == [("backbone", "device"), ("host_0", "host")]
    got = dags.run(parts, {"image": np.zeros((1, 3, 8, 8), np.float32)})
    np.testing.assert_array_equal(got["fixed"], np.ones((2,), np.float32))
