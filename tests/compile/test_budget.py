"""Builds with an accuracy budget: what is promoted, what is kept, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from adcompile.cli import main
from adcompile.compiler import BuildOptions, BuildResult, compile
from adcompile.errors import BudgetMissed, UsageError
from adcompile.manifest import read_manifest
from adcompile.place.schema import read_plan
from adcompile.steps.search_record import SEARCH, SearchRecord
from tests.compile.models import cnn

XINT8 = BuildOptions(precision="xint8", golden_count=2, host_code=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of the tests never meet a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(folder: Path, budget: str, **options: object) -> BuildResult:
    return compile(cnn(), "npu:stx", folder, replace(XINT8, budget=budget, **options))  # type: ignore[arg-type]


def test_a_budget_that_holds_changes_nothing(tmp_path: Path) -> None:
    """One measurement, no node is looked at, the parts keep their precision."""
    result = build(tmp_path / "b", "snr>=5")
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.chosen.promoted == 0
    assert record.nodes == []
    assert [p.precision for p in result.manifest.parts] == ["xint8"]
    assert result.manifest.results["budget held"] == "yes"


def test_a_budget_promotes_until_it_holds(tmp_path: Path) -> None:
    """The search, the plan, the part and the measured bundle tell the same story."""
    plain = SearchRecord.model_validate(build(tmp_path / "a", "snr>=1").search).steps[0]
    bound = plain.metrics["snr"] + 3.0
    result = build(tmp_path / "b", f"snr>={bound:.3f}")
    assert result.ok
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.chosen.promoted > 0
    assert {n.node for n in record.nodes} == {"stem", "block_a", "block_b", "sum"}
    assert record.chosen in record.pareto
    assert float(result.manifest.results["budget snr"]) >= bound
    (part,) = read_plan(tmp_path / "b" / "plan.yaml").parts
    (built,) = result.manifest.parts
    assert part.precision == built.precision == record.chosen.precisions.get("backbone", "xint8")
    floats = "\n".join(sorted(record.chosen.floats))
    assert part.options.get("float_nodes", "") == floats
    kept = json.loads((tmp_path / "b" / SEARCH).read_text())
    assert kept == result.search


def test_a_whole_part_in_a_float_precision_is_measured(tmp_path: Path) -> None:
    """Where no integer part is left, the bundle's figure is still that of its parts, not "no error"."""
    model = cnn()
    model.graph.node[-1].op_type = "Abs"  # xint8 and bf16 have it, a8w8 and a16w8 do not
    result = compile(model, "npu:stx", tmp_path / "b", replace(XINT8, budget="snr>=41"))
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.chosen.precisions == {"backbone": "bf16"}
    found = float(result.manifest.results["budget snr"])
    assert found == pytest.approx(record.chosen.metrics["snr"], abs=1e-4)
    assert 41.0 <= found < 100.0


@pytest.mark.parametrize("target", ["trt:agx-orin", "drpai:v2h"])
def test_a_budget_on_other_int8_targets(target: str, tmp_path: Path) -> None:
    """The search is not the NPU's alone: nodes are promoted, and the bundle measures the same."""
    options = BuildOptions(precision="int8", golden_count=2, host_code=False, budget="snr>=1")
    plain = compile(cnn(), target, tmp_path / "a", options)
    bound = float(plain.manifest.results["budget snr"]) + 0.5
    result = compile(cnn(), target, tmp_path / "b", replace(options, budget=f"snr>={bound:.3f}"))
    record = SearchRecord.model_validate(result.search)
    assert record.chosen is not None
    assert record.chosen.promoted > 0
    found = float(result.manifest.results["budget snr"])
    assert found == pytest.approx(record.chosen.metrics["snr"], abs=1e-4)
    assert found >= bound


def test_the_plan_of_a_search_needs_no_search(tmp_path: Path) -> None:
    """What was chosen is in plan.yaml: given back, it builds the same part files."""
    first = build(tmp_path / "a", "snr>=36")
    plan = tmp_path / "a" / "plan.yaml"
    again = compile(cnn(), "npu:stx", tmp_path / "b", replace(XINT8, plan=plan))
    files = [
        {n: f for n, f in r.manifest.files.items() if n.startswith("parts/")}
        for r in (first, again)
    ]
    assert files[0] == files[1]


def test_a_second_search_is_reused(tmp_path: Path) -> None:
    """Another output folder, the same question: the search comes from the cache, and that is said."""
    build(tmp_path / "a", "snr>=36")
    again = build(tmp_path / "b", "snr>=36")
    states = {name: state for name, state, _ in again.steps}
    assert states["search"] == "reused"
    same = build(tmp_path / "a", "snr>=36")
    assert [s for _, s, _ in same.steps] == ["reused"]
    assert same.search == again.search


def test_an_impossible_budget_is_a_no_with_the_best_found(tmp_path: Path) -> None:
    """Nothing is written, and the message says how far the search came and what that costs."""
    with pytest.raises(
        BudgetMissed, match=r"best found in [0-9]+ tries: snr 300 with 5 of 5 nodes"
    ) as no:
        build(tmp_path / "b", "snr>=400", backend_options={"quantizer": "own"})
    assert not (tmp_path / "b").exists()
    assert "100.0 % of the multiply-adds" in no.value.why
    record = SearchRecord.model_validate(no.value.search)
    assert record.chosen is None
    assert [s.promoted for s in record.pareto] == sorted(s.promoted for s in record.pareto)


def test_the_command_says_no_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the tables of what was tried, and with --json the same as data; no bundle."""
    onnx.save(cnn(), tmp_path / "m.onnx")
    command = ["build", str(tmp_path / "m.onnx"), "-t", "npu:stx", "--precision", "xint8"]
    command += ["--budget", "snr>=400", "--budget-tries", "2", "-o", str(tmp_path / "b")]
    assert main([*command, "--no-host-code"]) == 1
    shown = capsys.readouterr()
    assert "cannot be met" in shown.err
    assert "Pareto list of" in shown.out
    assert main([*command, "--no-host-code", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 1
    steps = [step for step in found["search"]["steps"] if not step["precisions"]]
    assert [step["promoted"] for step in steps] == [0, 5], "nothing, and as a last try everything"
    assert not (tmp_path / "b").exists()
    assert main([*command[:-2], "--budget-tries", "1", "-o", str(tmp_path / "b")]) == 2


def test_what_is_tried_is_said(tmp_path: Path) -> None:
    """Every try with its number, how many there may be, what it keeps in float, and the best so far."""
    said: list[str] = []
    options = replace(XINT8, budget="snr>=60")
    result = compile(cnn(), "npu:stx", tmp_path / "b", options, watch=said.append)
    tries = [text for text in said if text.startswith("search: try")]
    record = SearchRecord.model_validate(result.search)
    assert len(tries) == len(record.steps) - 1
    assert all(" of at most " in text and "best snr" in text for text in tries)
    assert tries[0].startswith("search: try 2 of at most")
    assert any("search: nodes of backbone" in text for text in said)


def test_budgets_that_cannot_be_measured(tmp_path: Path) -> None:
    """Average precision needs annotations; a budget must be one."""
    with pytest.raises(UsageError, match="annotated images"):
        build(tmp_path / "b", "segm_map>=0.4")
    with pytest.raises(UsageError, match="not a budget"):
        replace(XINT8, budget="good")


def test_float_parts_need_no_search(tmp_path: Path) -> None:
    """A budget on a build that quantizes nothing is noted and kept quiet."""
    result = build(tmp_path / "b", "snr>=250", precision="fp32")
    assert result.search == {}
    assert any("needs no search" in note for note in result.notes)


def test_class_names_reach_the_contract(tmp_path: Path) -> None:
    """``--classes``: the bundle knows what its labels mean; a gap is called by its number."""
    onnx.save(cnn(), tmp_path / "m.onnx")
    (tmp_path / "names.json").write_text('{"0": "background", "2": "cat"}')
    command = ["build", str(tmp_path / "m.onnx"), "-t", "npu:stx", "--precision", "fp32"]
    command += ["--classes", str(tmp_path / "names.json"), "-o", str(tmp_path / "b"), "--json"]
    assert main([*command, "--no-host-code", "--no-cache"]) == 0
    assert read_manifest(tmp_path / "b").contract.classes == ("background", "1", "cat")


def test_a_metric_that_nobody_knows_is_refused_at_once() -> None:
    """Before anything is read, with the names there are."""
    with pytest.raises(UsageError, match="no metric 'accuracy'") as caught:
        BuildOptions(budget="flips<=0.1,accuracy>=0.9")
    assert {"snr", "segm_map50,", "auroc_loss,"} <= set(caught.value.fix.split())
