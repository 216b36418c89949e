"""An image minus its reconstruction stays in float where the device has 8 bits."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.anomaly.recognise.residual import BEHIND, REASON, better_in_float, residual_nodes
from adcompile.backends.drpai.backend import DrpaiBackend
from adcompile.errors import UsageError
from adcompile.interfaces import Report
from adcompile.passes.name_nodes import NameNodes
from adcompile.place.plan import Plan, Settings, make_plan
from adcompile.place.planner import Better
from adcompile.place.targets import resolve_target
from tests.rewrite import build

SHAPE = "float[1, 3, 16, 16]"
BODY = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu (a) back = Conv <pads = [1, 1, 1, 1]> (b, v)"
)
ENDS = {
    "minus": "y = Sub (x, back)",
    "turned": "y = Sub (back, x)",
    "scaled": "s = Mul (x, half) y = Sub (s, back)",
    "gained": "d = Sub (x, back) g = Mul (d, half) y = Sub (g, half)",
}
OTHERS = {
    "of a constant": "y = Sub (half, back)",
    "of two layers": "b2 = Conv (x, u) y = Sub (b2, back)",
    "of a mean": "m = ReduceMean <axes = [1]> (x) y = Sub (x, m)",
}


def network(end: str, body: str = BODY) -> ir.Model:
    """A small autoencoder with *end* behind its reconstruction."""
    random = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "v": (3, 8, 3, 3), "u": (3, 3, 1, 1), "half": (1,)}
    text = f"g ({SHAPE} x) => ({SHAPE} y) {{ {body} {end} }}"
    weights = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
        if re.search(rf"\b{name}\b", text)
    }
    made = build.model(text, weights, opset=13)
    NameNodes().run(made, Report())
    return made


@pytest.mark.parametrize("name", ENDS)
def test_the_difference_and_all_behind_it(name: str) -> None:
    """Whichever way round it is written, on any scale of the image."""
    found = [n.op_type for n in residual_nodes(network(ENDS[name]))]
    assert found == {"gained": ["Sub", "Mul", "Sub"]}.get(name, ["Sub"])


@pytest.mark.parametrize("name", OTHERS)
def test_other_differences(name: str) -> None:
    """Nothing is compared with its own reconstruction here."""
    body = BODY if "back" in OTHERS[name] else BODY.replace("back", "unused")
    assert residual_nodes(network(OTHERS[name], body)) == []


def test_a_difference_at_the_beginning() -> None:
    """A network that begins with a difference is not its end: the device keeps it."""
    end = "d = Sub (x, back) e = Conv <pads = [1, 1, 1, 1]> (d, w) f = Relu (e) "
    end += "y = Conv <pads = [1, 1, 1, 1]> (f, v)"
    assert residual_nodes(network(end)) == []


def planned(precision: str, *pins: str) -> Plan:
    """A plan for DRP-AI of the autoencoder with a gain."""
    model, target = network(ENDS["gained"]), resolve_target("drpai:v2h")
    options = Settings(device=tuple(pins), keep_small=True)
    supports = DrpaiBackend().supports
    wanted = {name: Better(why) for name, why in better_in_float(model).items()}
    return make_plan(
        model, target, supports, precision=precision, options=options, in_float=wanted
    )


def test_it_stays_on_the_host_in_8_bits() -> None:
    """With its reason; wider numbers and the user's own pin leave it on the device."""
    coarse = planned("int8")
    host = next(p for p in coarse.parts if p.placement == "host")
    assert [why.reason for why in host.why] == [REASON]
    assert not host.why[0].refused, "the target could run it: --strict does not object"
    assert len(host.nodes) == 3
    assert all(p.placement == "device" for p in planned("fp32").parts)
    assert all(p.placement == "device" for p in planned("int8", "Sub", "op:Mul").parts)


def test_scores_and_maps_stay_in_float() -> None:
    """Whatever follows an op of a head, plain operators too."""
    body = "e = adcompile.SquaredErrorMap (x, x) flat = Flatten (e) y = Relu (flat)"
    header = '<ir_version: 8, opset_import: ["" : 13, "adcompile" : 1]>'
    head = ir.from_onnx_text(f"{header} g ({SHAPE} x) => (float[1, 256] y) {{ {body} }}")
    NameNodes().run(head, Report())
    found = better_in_float(head)
    assert [found[n.name or ""].reason for n in list(head.graph)[1:]] == [BEHIND, BEHIND]
    assert head.graph[0].name not in found


def test_unknown_pins_are_still_refused() -> None:
    """The reasons change nothing about selectors."""
    with pytest.raises(UsageError, match="names no node"):
        planned("int8", "Nothing")
