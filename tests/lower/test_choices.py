"""What an accuracy search may leave in float, in which order, and how cheaply that is found out."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.drpai.dialect import violations as drpai_violations
from adcompile.backends.drpai.schemes import INT8 as DRPAI
from adcompile.backends.npu.approximate import approximate_kernels
from adcompile.backends.npu.dialect import violations as npu_violations
from adcompile.backends.npu.schemes import A8W8, XINT8
from adcompile.backends.trt.dialect import violations as trt_violations
from adcompile.backends.trt.schemes import INT8 as TRT
from adcompile.interfaces import Array, Report
from adcompile.ir.evaluate import evaluate, open_model
from adcompile.ir.model_io import to_bytes
from adcompile.lower import observe, resume
from adcompile.lower.draft import Draft
from adcompile.lower.insert import name_nodes
from adcompile.lower.observe import tapped
from adcompile.lower.order import Pick, best_order
from adcompile.lower.quantize import quantize
from adcompile.lower.resume import Resume
from adcompile.lower.scheme import Scheme
from adcompile.lower.search import Noise, decibels, most_tries
from adcompile.lower.violations import Violation, kept_in_float
from tests.lower import networks
from tests.lower.networks import samples

DIALECTS: dict[str, tuple[Scheme, Callable[[ir.Model], list[Violation]]]] = {
    "xint8": (XINT8, lambda model: npu_violations(model, "xint8")),
    "a8w8": (A8W8, lambda model: npu_violations(model, "a8w8")),
    "drpai": (DRPAI, drpai_violations),
    "trt": (TRT, trt_violations),
}
FREE = frozenset({"static-shape", "batch-one", "opset", "ir-version"})  # of the whole file
RESIDUAL, KERNELS = networks.residual, networks.kernels


def named(make: Callable[[], ir.Model]) -> ir.Model:
    """A network of the tests with a name for every node."""
    model = make()
    name_nodes(model)
    return model


def draft(make: Callable[[], ir.Model], scheme: Scheme) -> Draft:
    """Everything of a network quantized."""
    model = named(make)
    if scheme.shifts:
        approximate_kernels(model, scheme.ops, frozenset(), Report())
    return Draft(model, samples(model), scheme)


def test_an_addition_is_no_choice_alone_where_its_neighbours_are_integers() -> None:
    """Between DQ and Q it would be the quantized addition; with a neighbour it can be in float. TensorRT
    puts Q/DQ in front of single readers, and takes it away from the addition alone."""
    assert ("n_sum",) not in draft(RESIDUAL, DRPAI).sets
    assert ("n_sum", "n_r3") in draft(RESIDUAL, DRPAI).sets
    assert ("n_sum",) in draft(RESIDUAL, TRT).sets
    assert ("n_c1",) in draft(RESIDUAL, DRPAI).sets


def test_what_is_fused_follows_its_kernel() -> None:
    """On the NPU convolution and activation are one choice, called by the convolution."""
    found = draft(RESIDUAL, XINT8)
    assert "n_r1" not in found.nodes
    assert not any("n_r1" in names for names in found.sets)
    assert "n_r1" in draft(RESIDUAL, DRPAI).nodes


def test_a_swish_can_leave_the_integers() -> None:
    """Activation and product read the same value: only together do they take its Q/DQ away."""
    found = draft(KERNELS, DRPAI)
    assert ("n_sig",) not in found.sets
    assert ("n_sig", "n_swish") in found.sets
    kept = found(frozenset({"n_sig", "n_swish"}))
    (product,) = [n for n in kept.graph if n.name == "n_swish"]
    made = product.inputs[1].producer() if product.inputs[1] is not None else None
    assert made is not None
    assert made.op_type == "Sigmoid", "nothing is rounded between them"


@pytest.mark.parametrize("name", list(DIALECTS))
@pytest.mark.parametrize("make", [RESIDUAL, KERNELS, networks.head], ids=lambda f: f.__name__)
def test_every_choice_and_their_unions_obey_the_dialect(
    name: str, make: Callable[[], ir.Model]
) -> None:
    """No set adds Q/DQ, and no integer node breaks a rule because of one."""
    scheme, violations = DIALECTS[name]
    found = draft(make, scheme)
    whole = len(found(frozenset()).graph)
    deal = random.Random(0)
    unions = [deal.sample(found.sets, min(3, len(found.sets))) for _ in range(8)]
    for names in [*found.sets, *(tuple(n for s in union for n in s) for union in unions)]:
        floats = frozenset(names)
        variant = found(floats)
        assert len(variant.graph) <= whole, names
        mixed = kept_in_float(variant, floats) | (floats if name == "drpai" else frozenset())
        assert [v for v in violations(variant) if v.rule not in FREE and v.node not in mixed] == []


def test_a_wide_concat_is_its_readers_business() -> None:
    """A set of very many nodes is not tried; its members are, in smaller ones."""
    net = networks.Net()
    a = net.conv("x", "c0", 3, 4)
    many = [net.conv(a, f"c{i}", 4, 4) for i in range(1, 12)]
    net.node("Concat", many, "y", axis=1)
    model = net.model({"x": [1, 3, 8, 8]}, {"y": [1, 44, 8, 8]})
    name_nodes(model)
    found = Draft(model, samples(model), DRPAI)
    assert all(len(names) <= 8 for names in found.sets)
    assert {name for names in found.sets for name in names} == set(found.nodes)


def test_promoting_everything_is_exact_and_convolutions_alone_are_not() -> None:
    """Why every quantized node must be a choice: what the values between the convolutions lose stays
    when only those are in float."""
    model = named(RESIDUAL)
    data = samples(model)
    found = Draft(model, data, DRPAI)
    noise = Noise(model, data)
    weighted = frozenset({"n_c1", "n_c2", "n_c3", "n_y"})
    assert decibels(noise(found(weighted))) < 60
    assert decibels(noise(found(frozenset(found.nodes) | {"n_p1", "n_flat"}))) > 100


def run_whole(model: ir.Model, feeds: dict[str, Array], names: list[str]) -> list[Array]:
    """All of a variant, nothing optimised."""
    found = evaluate(model, feeds, names)
    return [found[name] for name in names]


@pytest.mark.parametrize("scheme", [XINT8, DRPAI, TRT], ids=lambda s: f"{s.name} {s.placement}")
def test_a_resumed_variant_gives_what_the_whole_one_gives(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, for every choice; and less is run the later the variant differs."""
    model = named(RESIDUAL)
    data = samples(model, 2)
    found = Draft(model, data, scheme)
    reference = found(frozenset())
    sizes: list[int] = []

    def counting(model: ir.Model, outputs: list[str] | None = None) -> object:
        sizes.append(len(model.graph))
        return open_model(model, outputs)

    monkeypatch.setattr(resume, "open_model", counting)
    resumed = Resume(reference, data)
    for names in found.sets:
        variant = found(frozenset(names))
        results = list(resumed(variant))
        for feeds, made in zip(data, results, strict=True):
            wanted = run_whole(variant, feeds, resumed.names)
            assert all(np.array_equal(a, b) for a, b in zip(made, wanted, strict=True)), names
    sizes.clear()
    list(resumed(found(frozenset({"n_c1"}))))
    list(resumed(found(frozenset({"n_y"}))))
    list(resumed(reference))
    early, late, same = sizes
    assert len(reference.graph) >= early > 3 * late >= 3 * same


def test_the_memory_of_a_reference_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be kept, a variant is run from its inputs, with the same results."""
    model = named(RESIDUAL)
    data = samples(model, 2)
    found = Draft(model, data, DRPAI)
    monkeypatch.setattr(resume, "KEPT_BYTES", 0)
    variant = found(frozenset({"n_y"}))
    bare = Resume(found(frozenset()), data)
    for feeds, made in zip(data, bare(variant), strict=True):
        wanted = run_whole(variant, feeds, bare.names)
        assert all(np.array_equal(a, b) for a, b in zip(made, wanted, strict=True))


def test_one_look_at_the_calibration_data_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantizations of one model with other nodes in float observe it once, and give the same bytes as
    each by itself; another model is looked at again."""
    model = named(RESIDUAL)
    data = samples(model)
    choices = [frozenset[str](), frozenset({"n_c1"}), frozenset({"n_c2", "n_c3"})]
    alone = [to_bytes(quantize(model, data, DRPAI, floats)) for floats in choices]
    looks: list[int] = []
    monkeypatch.setattr(observe, "tapped", lambda *given: looks.append(1) or tapped(*given))
    remembering = observe.Remembering(data)
    together = [to_bytes(quantize(model, remembering, DRPAI, floats)) for floats in choices]
    assert together == alone
    assert len(looks) == 1
    quantize(named(KERNELS), observe.Remembering(samples(named(KERNELS))), DRPAI)
    assert len(looks) == 2


def test_the_order_takes_pairs_that_only_gain_together() -> None:
    """Two nodes that gain nothing alone and much together come before one that gains a little."""

    def noise(floats: frozenset[str]) -> float:
        return 10.0 - ("c" in floats) - 6.0 * ({"a", "b"} <= floats)

    sets = [("a",), ("b",), ("c",), ("a", "b"), ("b", "c")]
    picks = best_order(sets, noise, 100)
    assert picks[0] == Pick(("a", "b"), 6.0)
    assert picks[1] == Pick(("c",), 1.0)
    assert sorted(n for pick in picks for n in pick.nodes) == ["a", "b", "c"]


def test_the_order_asks_no_more_than_it_may() -> None:
    """With few questions it still names every node, by what it knows."""
    asked: list[frozenset[str]] = []
    costs = {f"n{i}": float(i) for i in range(20)}

    def noise(floats: frozenset[str]) -> float:
        asked.append(floats)
        return sum(costs.values()) - sum(costs[n] for n in floats)

    sets = [(name,) for name in costs]
    picks = best_order(sets, noise, 25)
    assert len(asked) <= 25
    assert [pick.nodes[0] for pick in picks] == sorted(costs, key=lambda n: -costs[n])
    asked.clear()
    seen: list[tuple[int, int]] = []
    found = best_order(sets, noise, 5, watch=lambda done, most: seen.append((done, most)))
    assert {pick.nodes[0] for pick in found} == set(costs)
    assert len(asked) == 5
    assert seen == [(done, 5) for done in range(5)]  # asked so far


def test_how_many_tries_a_search_needs_at_most() -> None:
    """Few even for many nodes: nothing, doublings up to all, and as many halvings."""
    numbers = [most_tries(count) for count in (0, 1, 2, 16, 200)]
    assert numbers == [1, 2, 3, 9, 17]
    assert all(a <= b for a, b in pairwise(numbers))
    assert most_tries(200, tries=5) == 5
