"""The provider's report of where operators ran: the generated program reads it as Python does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adcompile.backends.npu.report import compare, read_report
from adcompile.backends.npu.session import PROVIDER, plan_session
from tests.host.engines import Driver, run

PLANNED = {"Conv": 3, "Add": 1, "Resize": 1, "Relu": 2}
CONV, ADD, RESIZE = "::Conv", "ai.onnx::Add", "com.x::Resize"


def device(name: str, nodes: int, *types: str) -> dict[str, object]:
    return {"name": name, "nodeNum": nodes, "supportedOpType": list(types), "more": [None]}


ALL = device("all", 9, CONV, ADD, RESIZE)
REPORTS = {
    "kept": [ALL, device("CPU", 1, "::QuantizeLinear"), device("NPU", 8, CONV, ADD, RESIZE)],
    "moved": [ALL, device("NPU", 6, CONV, ADD), device("CPU", 3, ADD, RESIZE)],
    "old release": [device("CPU", 2, RESIZE), device("DPU", 7, CONV)],
    "both labels": [device("NPU", 4, CONV), device("DPU", 7), device("CPU", 0)],
    "no NPU": [device("CPU", 9, CONV)],
    "types left out": [{"name": "NPU", "nodeNum": 2}],
    "empty": [],
}


@pytest.fixture
def part(bundle: Path) -> Path:
    """The bundle of a part that has a plan."""
    plan = replace(plan_session("stx", "1.8", "xint8", "net-key"), planned=PLANNED)
    (bundle / "parts" / "net" / "session.json").write_text(plan.as_json())
    return bundle


def opened(
    driver: Driver, bundle: Path, report: str, insist: bool, **variables: str
) -> tuple[int, str]:
    """Exit code, and what the program says of the placement (its error, if it has one)."""
    options = {"as_planned": "true"} if insist else {}
    given = {"FAKE_REPORT": report, **variables} if report else variables
    code, lines = run(driver.path, "onnxruntime", bundle, 2, options, **given)
    marks = ("placement: ", "error: ")
    (line,) = [x for x in lines if x.startswith(marks)]
    assert lines[-1] == "alive: 0"
    return code, line.partition(": ")[2]


@pytest.mark.parametrize("name", REPORTS)
def test_numbers_and_types_are_those_of_python(
    name: str, driver: Driver, part: Path, tmp_path: Path
) -> None:
    """Counts, and every planned type of which something ran on the CPU; who insists is refused when
    there is one."""
    text = json.dumps({"deviceStat": REPORTS[name], "nodeStat": [{"device": "CPU"}]})
    (tmp_path / "report.json").write_text(text)
    found = read_report(tmp_path / "report.json")
    moved = ", ".join(line.op for line in compare(PLANNED, found) if line.surprise)
    wanted = f"NPU through {PROVIDER}: {found.npu} of {found.total} operators"
    departed = f"planned NPU, ran on CPU: {moved}"
    code, said = opened(driver, part, text, insist=False)
    assert (code, said) == (0, f"{wanted}; {departed}" if moved else wanted)
    code, said = opened(driver, part, text, insist=True)
    assert (code, said) == ((1, departed) if moved else (0, wanted))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("", "left no report"),
        ("{", "not valid JSON"),
        ("{}", "deviceStat"),
        ('{"deviceStat": [{"name": "NPU"}]}', "nodeNum"),
        ('{"deviceStat": [{"name": "NPU", "nodeNum": -1}]}', "nodeNum"),
        (
            '{"deviceStat": [{"name": "NPU", "nodeNum": 1, "supportedOpType": [1]}]}',
            "supportedOpType",
        ),
    ],
)
def test_a_missing_or_damaged_report(report: str, words: str, driver: Driver, part: Path) -> None:
    """Is said, and an error only for who insists on the plan."""
    for insist in (False, True):
        code, said = opened(driver, part, report, insist)
        assert code == int(insist)
        assert words in said


def test_an_old_report_elsewhere_is_not_this_model_s(driver: Driver, part: Path) -> None:
    """Above the model's own cache folder only a report counts that was written since; in the folder
    itself any does, since a cached model writes none."""
    cache = part / "parts" / "net" / "cache"
    cache.mkdir()
    text = json.dumps({"deviceStat": REPORTS["kept"]})
    above = cache / "vitisai_ep_report.json"
    above.write_text(text)
    assert "left no report" in opened(driver, part, "", insist=False)[1]
    assert "8 of 9" in opened(driver, part, text, insist=False, FAKE_REPORT_ABOVE="1")[1]
    above.unlink()
    assert "8 of 9" in opened(driver, part, text, insist=False)[1]
    assert "8 of 9" in opened(driver, part, "", insist=False)[1]


def test_the_cpu_is_not_the_plan(driver: Driver, part: Path) -> None:
    """The simulation has no placement, and does not satisfy who insists on it."""
    code, lines = run(driver.path, "onnxruntime", part, options={"provider": "cpu"})
    assert code == 0
    assert "placement: " in lines
    asked = {"provider": "cpu", "as_planned": "true"}
    code, lines = run(driver.path, "onnxruntime", part, options=asked)
    assert code == 1
    assert any("nothing of it runs on an NPU" in x for x in lines)
