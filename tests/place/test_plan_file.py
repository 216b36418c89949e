"""Plans as files: editing, reading back, and everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adcompile.backends.npu.support import supports
from adcompile.errors import FormatError, UsageError
from adcompile.ir.model_io import save_model
from adcompile.place.plan import (
    PartPlan,
    Plan,
    apply_plan,
    make_plan,
    parse_plan,
    read_plan,
    review,
)
from adcompile.place.targets import resolve_target
from tests.place import dags
from tests.place.nets import small_net, two_stage_detector

NPU = resolve_target("npu")


def detector_plan() -> Plan:
    return make_plan(two_stage_detector(), NPU, supports, precision="a8w8")


def edited(plan: Plan, **parts: dict[str, object]) -> Plan:
    """The plan with fields of some parts replaced, as an editor would."""
    raw = yaml.safe_load(plan.dump())
    for part in raw["parts"]:
        part.update(parts.get(part["name"], {}))
    return parse_plan(yaml.safe_dump(raw))


def moved(plan: Plan, node: str, to: str) -> Plan:
    """The plan with one node listed in another part."""
    parts = [
        p.model_copy(
            update={
                "nodes": tuple(n for n in p.nodes if n != node) + ((node,) if p.name == to else ())
            }
        )
        for p in plan.parts
    ]
    return plan.model_copy(update={"parts": tuple(parts)})


def test_a_plan_reads_well() -> None:
    """Tensor specs are on one line, node names one per line, no anchors."""
    text = detector_plan().dump()
    assert "- {name: image, dtype: float32, shape: [1, 3, 64, 64]}" in text
    assert "\n  - mask_conv\n" in text
    assert "&id" not in text
    assert "*id" not in text


def test_moving_a_node_to_its_neighbour_works() -> None:
    """The box head's soft maximum goes to the device; the parts still give the same numbers."""
    plan = moved(detector_plan(), "prob", "box_head")
    model = two_stage_detector()
    parts = {p.name: p for p in apply_plan(model, plan)}
    assert "prob" in {s.name for s in parts["box_head"].outputs}
    given = {"image": dags.np.random.default_rng(0).random((1, 3, 64, 64)).astype("float32")}
    whole = dags.evaluate(model, given)
    split = dags.run(list(parts.values()), given)
    for name, array in whole.items():
        dags.np.testing.assert_allclose(split[name], array, rtol=1e-5, atol=1e-5)


def test_names_placements_precisions_and_options_can_be_edited() -> None:
    """What an editor writes is what the parts say."""
    plan = edited(
        detector_plan(),
        box_head={"name": "classifier", "precision": "a16w8", "options": {"roi_policy": "whole"}},
        mask_head={"placement": "host"},
    )
    parts = {p.name: p for p in apply_plan(two_stage_detector(), plan)}
    assert parts["classifier"].precision == "a16w8"
    assert parts["classifier"].options == {"roi_policy": "whole"}
    assert parts["mask_head"].placement == "host"


def test_an_unknown_node_is_refused_with_close_names() -> None:
    """Typing errors are found before anything is cut."""
    plan = detector_plan()
    head = plan.part("mask_head")
    wrong = edited(plan, mask_head={"nodes": [*head.nodes, "mask_cnov2"]})
    with pytest.raises(FormatError, match="mask_cnov2") as caught:
        apply_plan(two_stage_detector(), wrong)
    assert caught.value.where == "part 'mask_head'"
    assert "mask_conv2" in caught.value.why


def test_a_missing_node_is_refused_by_name() -> None:
    """Every node must run somewhere."""
    plan = detector_plan()
    short = edited(plan, mask_head={"nodes": list(plan.part("mask_head").nodes[:-1])})
    with pytest.raises(FormatError, match="leaves out 1 nodes") as caught:
        apply_plan(two_stage_detector(), short)
    assert plan.part("mask_head").nodes[-1] in caught.value.where


def test_a_node_listed_twice_is_refused() -> None:
    """A node runs once."""
    plan = detector_plan()
    double = edited(plan, box_head={"nodes": [*plan.part("box_head").nodes, "mask_conv"]})
    with pytest.raises(FormatError, match="'mask_conv' twice") as caught:
        apply_plan(two_stage_detector(), double)
    assert "box_head" in caught.value.where
    assert "mask_head" in caught.value.where


def test_a_circle_between_parts_is_refused_with_the_nodes_at_fault() -> None:
    """Proposals cannot move into the backbone's part while RoiAlign's host part feeds the rest."""
    with pytest.raises(FormatError, match="circle") as caught:
        apply_plan(two_stage_detector(), moved(detector_plan(), "mask_conv", "backbone"))
    assert "backbone" in caught.value.where
    assert "'mask_conv' reads" in caught.value.why
    assert "move one of these nodes" in caught.value.fix


def test_two_parts_of_one_name_are_refused() -> None:
    """Parts are found by name."""
    with pytest.raises(FormatError, match="one name"):
        apply_plan(two_stage_detector(), edited(detector_plan(), mask_head={"name": "box_head"}))


def test_a_plan_of_another_model_is_refused() -> None:
    """The message suspects the model."""
    with pytest.raises(FormatError, match="does not have") as caught:
        apply_plan(small_net(), detector_plan())
    assert "another model" in caught.value.why or "close names" in caught.value.why


def test_the_target_objects_to_an_edit_it_cannot_run() -> None:
    """NonMaxSuppression moved to the device is reported with the table's reason."""
    model = two_stage_detector()
    plan = detector_plan()
    assert review(model, plan, NPU, supports) == []
    (objection,) = review(model, moved(plan, "chosen", "backbone"), NPU, supports)
    assert (objection.part, objection.node) == ("backbone", "chosen")
    assert "no column" in objection.verdict.reason


def test_review_refuses_another_target_and_a_precision_it_lacks() -> None:
    """A plan is made for one target."""
    model = two_stage_detector()
    with pytest.raises(FormatError, match="npu:stx"):
        review(model, detector_plan(), resolve_target("drpai"), supports)
    with pytest.raises(UsageError, match="int8"):
        review(model, edited(detector_plan(), box_head={"precision": "int8"}), NPU, supports)


def test_a_part_without_nodes_may_stay_in_the_file() -> None:
    """Emptying a part is a legal edit; it comes out as nothing to run."""
    plan = detector_plan()
    empty = PartPlan(name="spare", placement="host", role="host", precision="fp32")
    more = plan.model_copy(update={"parts": (*plan.parts, empty)})
    parts = apply_plan(two_stage_detector(), more)
    assert [p.name for p in parts] == [p.name for p in plan.parts]


BAD = [
    ("{", "not YAML"),
    ("- 1\n- 2\n", "not a mapping"),
    ("a: &x [1]\nb: *x\n", "aliases"),
    ("schema_version: 99\n", "newer"),
    ("model: m\n", "does not fit"),
    ("model: m\nstructure: s\ntarget: t\nprecision: p\nsurprise: 1\n", "does not fit"),
    (
        "model: m\nstructure: s\ntarget: t\nprecision: p\nparts:\n- {name: ../up, "
        "placement: host, role: host, precision: fp32}\n",
        "does not fit",
    ),
    (
        "model: m\nstructure: s\ntarget: t\nprecision: p\nparts:\n- {name: a, "
        "placement: moon, role: host, precision: fp32}\n",
        "does not fit",
    ),
    ("!!python/object/apply:os.system ['true']\n", "not YAML"),
    ("a: " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_plans_are_refused(text: str, message: str) -> None:
    """Never a traceback, never code execution, never a path out of the bundle."""
    with pytest.raises(FormatError, match=message):
        parse_plan(text)


def test_missing_and_binary_plan_files_are_refused(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(FormatError, match="no such plan"):
        read_plan(tmp_path / "none.yaml")
    binary = tmp_path / "model.yaml"
    save_model(small_net(), binary)
    with pytest.raises(FormatError):
        read_plan(binary)
