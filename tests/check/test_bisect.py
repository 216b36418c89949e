"""A failure is narrowed down: to a pass, to a node, to a graph as small as it gets."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from adcompile import registry
from adcompile.check.bisect import bisect_passes, shrink
from adcompile.check.compare import Comparison, compare
from adcompile.check.diagnose import diagnose, examine_passes, pipeline_texts
from adcompile.check.localize import Oracle, localize
from adcompile.check.minimize import minimize
from adcompile.check.reproducer import replay
from adcompile.check.tolerance import Tolerance, Tolerances
from adcompile.check.verify import verify_bundle
from adcompile.cli import main
from adcompile.errors import FormatError
from adcompile.interfaces import Feeds, Pass, Report
from adcompile.ir import model_io
from adcompile.manifest import read_manifest
from adcompile.rewrite.pipeline import Pipeline
from tests.check import handmade


def chain(count: int, special: int) -> ir.Model:
    """x -> Relu -> Neg -> Relu …, with one Sigmoid at *special*."""
    lines = [
        f"v{i + 1} = {'Sigmoid' if i == special else ('Neg', 'Abs')[i % 2]} (v{i})"
        for i in range(count)
    ]
    text = (
        '<ir_version: 8, opset_import: ["": 17]>\n'
        f"g (float[2,3] v0) => (float[2,3] v{count}) {{\n" + "\n".join(lines) + "\n}"
    )
    proto = parser.parse_model(text)
    for node in proto.graph.node:
        node.name = "n_" + node.output[0]
    return model_io.from_bytes(proto.SerializeToString())


FEEDS = {"v0": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}


@given(count=st.integers(1, 14), data=st.data())
def test_minimize_finds_the_one_node(count: int, data: st.DataObject) -> None:
    """Whatever the graph, the smallest failing one is the node that fails, fed with real values."""
    special = data.draw(st.integers(0, count - 1))

    def failing(model: ir.Model, feeds: Feeds) -> bool:
        assert {v.name for v in model.graph.inputs} == set(feeds)
        return any(node.op_type == "Sigmoid" for node in model.graph)

    model = chain(count, special)
    before = len(model.graph)
    found = minimize(model, FEEDS, failing)
    assert found.nodes == 1
    assert [node.op_type for node in found.model.graph] == ["Sigmoid"]
    assert list(found.feeds) == [f"v{special}"]
    assert len(model.graph) == before


def test_minimize_keeps_pairs() -> None:
    """A failure that needs two nodes far apart keeps both and nothing else."""

    def failing(model: ir.Model, feeds: Feeds) -> bool:
        names = {node.name for node in model.graph}
        return {"n_v2", "n_v9"} <= names

    found = minimize(chain(12, 99), FEEDS, failing)
    assert {node.name for node in found.model.graph} == {"n_v2", "n_v9"}


def test_minimize_stops_at_its_limit() -> None:
    """The number of tries is bounded; what was found until then is returned."""
    found = minimize(chain(12, 5), FEEDS, lambda m, _f: len(m.graph) > 3, max_tests=2)
    assert found.tests == 2
    assert found.nodes > 3


def test_minimize_needs_a_failure() -> None:
    """A model that does not fail is not searched."""
    with pytest.raises(ValueError, match="does not fail"):
        minimize(chain(3, 0), FEEDS, lambda _m, _f: False)


@dataclass(frozen=True)
class Harmless(Pass):
    """Renames a node."""

    name: ClassVar[str] = "harmless"
    label: str = "x"

    def run(self, model: ir.Model, report: Report) -> bool:
        node = next(iter(model.graph))
        if node.name == self.label:
            return False
        node.name = self.label
        return True


@dataclass(frozen=True)
class Harmful(Pass):
    """Takes every Sigmoid for a HardSigmoid."""

    name: ClassVar[str] = "harmful"

    def run(self, model: ir.Model, report: Report) -> bool:
        found = [node for node in model.graph if node.op_type == "Sigmoid"]
        for node in found:
            node.op_type = "HardSigmoid"
        return bool(found)


def judge(reference: Feeds, found: Feeds) -> list[Comparison]:
    return compare(reference, found, {}, Tolerances.of({}))


@given(ahead=st.integers(0, 6), behind=st.integers(0, 6))
def test_bisection_names_the_pass(ahead: int, behind: int) -> None:
    """Among any number of harmless changes the harmful one is found."""
    passes = [Harmless(f"a{i}") for i in range(ahead)]
    tail = [Harmless(f"b{i}") for i in range(behind)]
    pipelines = [Pipeline(tuple(passes)), Pipeline((Harmful(), *tail))]
    culprit = bisect_passes(chain(6, 3), pipelines, FEEDS, judge)
    assert culprit is not None
    assert culprit.text == "harmful"
    assert culprit.change == ahead
    assert any(node.op_type == "Sigmoid" for node in culprit.before.graph)


def test_bisection_of_a_good_pipeline() -> None:
    """Nothing is blamed when nothing is wrong."""
    assert bisect_passes(chain(6, 3), [Pipeline((Harmless("a"),))], FEEDS, judge) is None


@pytest.fixture
def registered(tmp_path: Path) -> str:
    """The harmful pass in a user's file, so that its text can be parsed again."""
    source = (
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from adcompile.interfaces import Pass\n"
        "@dataclass(frozen=True)\n"
        "class Harmful(Pass):\n"
        "    '''Doc.'''\n"
        "    name: ClassVar[str] = 'harmful'\n"
        "    def run(self, model, report):\n"
        "        found = [n for n in model.graph if n.op_type == 'Sigmoid']\n"
        "        for n in found:\n"
        "            n.op_type = 'HardSigmoid'\n"
        "        return bool(found)\n"
    )
    (tmp_path / "mine.py").write_text(source)
    return f"{tmp_path / 'mine.py'}:Harmful"


def test_a_pass_gets_a_reproducer(
    registered: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder holds one node, its input, and a command that fails until the pass is repaired."""
    known = {**registry.PASSES.built_in, "harmful": registered}
    monkeypatch.setattr(registry, "PASSES", replace(registry.PASSES, built_in=known))
    pipelines = [Pipeline.parse("harmful")]
    found = examine_passes(chain(9, 4), pipelines, FEEDS, {}, tmp_path / "r")
    assert found is not None
    assert found.stage == "pass"
    assert "harmful" in found.text
    assert [n.op_type for n in model_io.load_model(tmp_path / "r/model.onnx").graph] == ["Sigmoid"]
    record, results = replay(tmp_path / "r")
    assert record.culprit == "harmful"
    assert not all(c.ok for c in results)
    assert main(["verify", str(tmp_path / "r")]) == 1
    assert "the failure is there" in capsys.readouterr().out


def test_shrink_of_a_culprit(registered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A culprit shrinks to the node it harms."""
    known = {**registry.PASSES.built_in, "harmful": registered}
    monkeypatch.setattr(registry, "PASSES", replace(registry.PASSES, built_in=known))
    culprit = bisect_passes(chain(9, 4), [Pipeline.parse("harmful")], FEEDS, judge)
    assert culprit is not None
    assert shrink(culprit, FEEDS).nodes == 1


def test_localize_names_the_node_not_the_followers() -> None:
    """Everything behind a wrong node is wrong too; the node itself is named."""
    good, bad = chain(9, 4), chain(9, 4)
    node = next(n for n in bad.graph if n.op_type == "Sigmoid")
    node.op_type = "HardSigmoid"
    found = localize(Oracle(good, FEEDS), bad, FEEDS, Tolerance(1e-4, 1e-4))
    assert found is not None
    assert found.value == "v5"
    assert list(found.feeds) == ["v4"]
    assert localize(Oracle(good, FEEDS), good, FEEDS, Tolerance(1e-4, 1e-4)) is None


def test_localize_passes_over_unpaired_values() -> None:
    """Nodes between two paired values are cut out together."""
    good, bad = chain(3, 1), chain(3, 1)
    for value in [v for n in list(bad.graph)[:2] for v in n.outputs]:
        value.name = f"renamed_{value.name}"
    next(iter(bad.graph)).op_type = "Abs"
    found = localize(Oracle(good, FEEDS), bad, FEEDS, Tolerance(1e-4, 1e-4))
    assert found is not None
    assert found.value == "v3"
    assert len(found.model.graph) == 3


def damaged(folder: Path, part: str, tensor: str) -> Path:
    """A bundle with one weight of one part changed and everything sealed again."""
    handmade.write_bundle(folder)
    path = folder / f"parts/{part}/model.onnx"
    proto = onnx.load(path)
    weight = next(t for t in proto.graph.initializer if t.name == tensor)
    array = numpy_helper.to_array(weight).copy() * np.float32(1.01)
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(proto, path)
    return handmade.save(folder, read_manifest(folder))


def test_a_part_is_traced_to_its_node(tmp_path: Path) -> None:
    """With the source model the wrong node inside the part is named and cut out."""
    folder = damaged(tmp_path / "b", "box_head", "w2")
    outcome = verify_bundle(folder)
    found = diagnose(folder, outcome, tmp_path / "r", model=handmade.model())
    assert found.culprit == "box_head"
    assert "'logits' is the first wrong value" in found.text
    assert "Gemm 'logits'" in found.text
    assert len(model_io.load_model(tmp_path / "r/model.onnx").graph) == 1
    _, results = replay(tmp_path / "r")
    assert not all(c.ok for c in results)


def test_a_part_without_the_source_is_kept_whole(tmp_path: Path) -> None:
    """Without anything to compare inner values with, the whole part is the reproducer."""
    folder = damaged(tmp_path / "b", "box_head", "w2")
    found = diagnose(folder, verify_bundle(folder), tmp_path / "r")
    assert "wrong as a whole" in found.text
    assert found.reproducer == tmp_path / "r"


def test_a_rewrite_before_the_split_is_blamed(tmp_path: Path) -> None:
    """Parts that are right by themselves but give other results than the source model."""
    other = handmade.model(seed=7)
    whole = handmade.model()
    folder = handmade.write_bundle(tmp_path / "b", whole=whole)
    manifest = read_manifest(folder)
    elsewhere = handmade.write_bundle(tmp_path / "o", whole=other)
    for file in manifest.golden[0].outputs.values():
        (folder / file).write_bytes((elsewhere / file).read_bytes())
    handmade.save(folder, manifest.model_copy(update={"golden": manifest.golden[:1]}))
    outcome = verify_bundle(folder, isolate=False)
    assert not outcome.ok
    blind = diagnose(folder, outcome, tmp_path / "r")
    assert "give the source model" in blind.text
    seen = diagnose(folder, outcome, tmp_path / "r", model=other)
    assert "no rewrite" in seen.text


def test_pipeline_texts() -> None:
    """The manifest's record is taken apart again."""
    assert pipeline_texts("a: x,y;b: (c,d)*") == ["x,y", "(c,d)*"]
    assert pipeline_texts("") == []


def test_verify_traces_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command narrows down without being asked, and writes beside the bundle."""
    folder = damaged(tmp_path / "b", "backbone", "conv_w")
    assert main(["verify", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["diagnosis"]
    assert told["culprit"] == "backbone"
    assert main(["verify", told["reproducer"]]) == 1
    assert main(["verify", str(folder), "--no-trace"]) == 1
    assert "cause" not in capsys.readouterr().out.rpartition("first bad part")[2]
    assert main(["verify", str(folder), "--reproducer", str(tmp_path / "mine")]) == 1
    assert (tmp_path / "mine" / "reproducer.json").is_file()
    assert main(["verify", str(folder), "--reproducer", "x", "--no-trace"]) == 2


def test_the_source_of_a_failure_may_be_a_fitted_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--model takes what every verb takes: a file, or a folder that holds one."""
    folder = damaged(tmp_path / "b", "backbone", "conv_w")
    (tmp_path / "fitted").mkdir()
    assert main(["verify", str(folder), "--model", str(tmp_path / "fitted")]) == 2
    assert "folder holds no model" in capsys.readouterr().err
    model_io.save_model(handmade.model(), tmp_path / "fitted" / "model.onnx")
    assert main(["verify", str(folder), "--model", str(tmp_path / "fitted")]) == 1
    assert "cause: part backbone" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["record", "inputs", "model"])
def test_damaged_reproducers(tmp_path: Path, damage: str) -> None:
    """A reproducer is untrusted input like any other."""
    folder = damaged(tmp_path / "b", "backbone", "conv_w")
    diagnose(folder, verify_bundle(folder), tmp_path / "r")
    if damage == "record":
        (tmp_path / "r/reproducer.json").write_text('{"kind": "other"}')
    elif damage == "inputs":
        np.savez(tmp_path / "r/inputs.npz", other=np.ones(1))
    else:
        (tmp_path / "r/model.onnx").write_bytes(b"no model")
    assert main(["verify", str(tmp_path / "r")]) == 2
    if damage == "record":
        with pytest.raises(FormatError):
            replay(tmp_path / "r")
