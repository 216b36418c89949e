"""The verbs check, list, plan, inspect and doctor: exit codes, JSON, files, messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from adcompile.cli import main
from adcompile.cli.advice import Coverage
from adcompile.ir.model_io import save_model
from tests.place.nets import Builder, small_net, two_stage_detector


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small two-stage detector as a file."""
    path = tmp_path_factory.mktemp("model") / "detector.onnx"
    save_model(two_stage_detector(), path)
    return str(path)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small network as a file."""
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    save_model(small_net(), path)
    return str(path)


@pytest.fixture(scope="module")
def host_only(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that no target can run: its input shape is free."""
    b = Builder()
    b.node("Relu", ["x"], "out")
    path = tmp_path_factory.mktemp("model") / "free.onnx"
    save_model(b.model({"x": ("n", 3)}, {"out": ("n", 3)}), path)
    return str(path)


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_check_answers_for_several_targets(
    detector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every node has an answer per target, with part, reason and work."""
    assert main(["check", detector, "-t", "trt,npu", "-t", "drpai", "--json"]) == 0
    answers = json.loads(out(capsys))["targets"]
    assert [a["target"] for a in answers] == ["trt:rtx-ada", "npu:stx", "drpai:v2h"]
    for answer in answers:
        assert answer["device_parts"][0] == "backbone"
        assert sum(n["macs"] for n in answer["nodes"]) > 0
        for node in answer["nodes"]:
            assert node["source_nodes"]
            assert node["placement"] == "device" or node["reason"]


def test_check_prints_groups_coverage_and_advice(
    detector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """People see a short table, shares of nodes and work, and the fix for what matters most."""
    assert main(["check", detector, "-t", "npu"]) == 0
    text = " ".join(out(capsys).split())
    assert "of multiply-adds on the device: backbone, box_head, mask_head" in text
    assert "1 ConvTranspose: ConvTranspose is not available in xint8 -> precision a8w8" in text
    for about in ("not listed", "data-dependent"):
        assert f"no: {about}" in text
    for about in ("after the last layer", "before the first layer"):
        assert f"host: {about}" in text
    assert main(["check", detector, "-t", "npu", "--all"]) == 0
    assert "mask_logits" in out(capsys)


def test_check_names_a_precision_that_covers_more(
    detector: str, host_only: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default may be the wrong one; the build that follows is written out."""
    assert main(["check", detector, "-t", "npu"]) == 0
    text = out(capsys)
    assert "  --precision a8w8: 100.00% of multiply-adds on the device" in text
    assert f"next: adcompile build {detector} -t npu:stx --precision" in text
    assert "--calib IMAGES -o out" in text
    assert main(["check", detector, "-t", "npu", "--json"]) == 0
    answer = json.loads(out(capsys))["targets"][0]
    assert answer["other_precisions"]["a8w8"] > answer["coverage_macs"]
    assert main(["check", detector, "-t", "npu", "--precision", "a8w8", "--json"]) == 0
    assert json.loads(out(capsys))["targets"][0]["other_precisions"] == {}
    assert main(["check", host_only, "-t", "trt"]) == 1
    text = out(capsys)
    assert "nothing on the device" in text
    assert "next:" not in text


def test_check_exit_codes(detector: str, net: str, host_only: str) -> None:
    """0 something runs on the device; 1 nothing does, or a stricter question has the answer no."""
    assert main(["check", host_only, "-t", "trt", "--json"]) == 1
    assert main(["check", host_only, "-t", "trt", "--input-shape", "x=2x3", "--json"]) == 0
    assert main(["check", detector, "-t", "trt", "--strict", "--json"]) == 1
    assert main(["check", net, "-t", "trt", "--strict", "--json"]) == 0
    assert main(["check", net, "-t", "npu", "--strict", "--json"]) == 1
    assert main(["check", detector, "-t", "trt", "--min-coverage", "0.99", "--json"]) == 0
    assert main(["check", detector, "-t", "npu", "--min-coverage", "0.99", "--json"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "{model}", "-t", "tpu"],
        ["check", "{model}", "-t", "npu", "--precision", "int3"],
        ["check", "{model}", "-t", ","],
        ["check", "nowhere.onnx", "-t", "npu"],
        ["check", "{model}", "-t", "npu", "--input-shape", "nope=1x3"],
        ["plan", "{model}", "-t", "npu", "--pin", "op:Conv"],
        ["plan", "{model}", "-t", "npu", "--pin", "op:Conv=int3"],
        ["plan", "{model}", "-t", "npu", "--roi-policy", "dance"],
        ["plan", "{model}", "-t", "npu", "--roi-rows", "0"],
        ["plan", "{model}", "-t", "npu", "--plan", "nowhere.yaml"],
        ["plan", "{model}", "-t", "npu", "-o", "/nowhere/plan.yaml"],
        ["inspect", "nowhere.onnx"],
        ["list", "cats"],
        ["list", "ops", "-t", "tpu"],
        ["list", "targets", "-t", "npu:zzz"],
        ["doctor", "-t", "tpu"],
        ["doctor", "--require", "fly"],
    ],
)
def test_wrong_use_is_exit_code_2(
    arguments: list[str], net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message on stderr that starts with "error:", and no traceback."""
    filled = [a.replace("{model}", net) for a in arguments]
    assert main(filled) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err


def test_plan_writes_a_file_that_can_be_edited_and_checked(
    detector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print, save, edit, check again; an edit the target cannot run is answered with 1."""
    path = tmp_path / "plan.yaml"
    assert main(["plan", detector, "-t", "npu", "--precision", "a8w8", "-o", str(path)]) == 0
    text = out(capsys)
    assert "mask_head" in text
    assert "100.00% of multiply-adds" in text
    assert main(["plan", detector, "-t", "npu", "--plan", str(path)]) == 0
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    for part in raw["parts"]:
        if "chosen" in part["nodes"]:
            part["placement"] = "device"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    out(capsys)
    assert main(["plan", detector, "-t", "npu", "--plan", str(path), "--json"]) == 1
    objections = json.loads(out(capsys))["objections"]
    assert any("chosen (NonMaxSuppression)" in line for line in objections)


def test_small_parts_on_demand(detector: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--min-macs sends everything to the host; --keep-small leaves on the device what does not pay."""

    def on_device(*more: str) -> set[str]:
        from adcompile.place.plan import parse_plan

        assert main(["plan", detector, "-t", "npu", "--yaml", *more]) == 0
        parts = [p for p in parse_plan(out(capsys)).parts if p.placement == "device"]
        return {node for part in parts for node in part.nodes}

    assert on_device() < on_device("--keep-small")
    assert not on_device("--min-macs", "1000000000000")


def test_plan_prints_yaml_that_reads_back(
    detector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The YAML on standard output is the plan, with the pins in its settings."""
    from adcompile.place.plan import parse_plan

    pins = ["--pin", "role:mask_head=a8w8", "--pin", "op:TopK=host"]
    assert main(["plan", detector, "-t", "npu", "--yaml", *pins]) == 0
    plan = parse_plan(out(capsys))
    assert plan.part("mask_head").precision == "a8w8"
    assert plan.settings.host == ("op:TopK",)
    assert plan.settings.precisions == {"role:mask_head": "a8w8"}


def test_inspect_finds_the_roles(detector: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, data-dependent ops and the parts, whatever the target."""
    assert main(["inspect", detector, "--json"]) == 0
    found = json.loads(out(capsys))
    assert [p["name"] for p in found["parts"]] == ["backbone", "box_head", "mask_head"]
    assert found["data_dependent"] == {"NonMaxSuppression": 1}
    assert found["inputs"] == [{"name": "image", "dtype": "float32", "shape": [1, 3, 64, 64]}]
    assert found["parameters"] > 100_000
    assert main(["inspect", detector]) == 0
    assert "per region" in out(capsys)


def test_list_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Targets, operators, passes and rules as JSON; operators know versions and precisions."""
    assert main(["list", "targets", "--json"]) == 0
    names = {row["target"].removesuffix(" (default)") for row in json.loads(out(capsys))}
    assert {"npu:stx", "trt:orin-nx@10.3", "drpai:v2h"} <= names
    assert main(["list", "ops", "-t", "npu:phx", "--json"]) == 0
    rows = {row["op"]: row for row in json.loads(out(capsys))}
    assert rows["ConvTranspose"]["precisions"] == "a8w8 a16w8"
    assert rows["PRelu"]["runs"] == "no"
    assert main(["list", "ops", "-t", "trt:orin-nx@8.5", "--json"]) == 0
    rows = {row["op"]: row for row in json.loads(out(capsys))}
    assert rows["LayerNormalization"]["runs"] == "no"
    for what in ("passes", "rules"):
        assert main(["list", what, "--json"]) == 0
        listed = json.loads(out(capsys))
        assert {row["exactness"] for row in listed} <= {"exact", "approximate", "quantized"}
        assert len(listed) > 3
    assert main(["list", "ops", "-t", "drpai"]) == 0
    assert "ConvTranspose" in out(capsys)


def test_doctor_says_what_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    """Simulation is possible everywhere here; a requirement that fails is exit code 3."""
    assert main(["doctor", "--json"]) == 0
    report = json.loads(out(capsys))["abilities"]
    assert all(report[family]["simulate"] for family in ("trt", "npu", "drpai"))
    assert main(["doctor", "-t", "npu", "--require", "simulate"]) == 0
    if not report["drpai"]["run"]:
        assert main(["doctor", "-t", "drpai:v2h", "--require", "run"]) == 3
        assert "run on the board" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("other", "better"),
    [
        (Coverage(0.95, 10), True),  # more on the device
        (Coverage(0.905, 10), False),  # hardly more, in as many parts
        (Coverage(0.905, 6), False),
        (Coverage(0.895, 5), True),  # as much in half as many parts
        (Coverage(0.8, 1), False),
    ],
)
def test_another_precision_must_be_clearly_better(other: Coverage, better: bool) -> None:
    """In the share of the work, or in the number of parts for the same share."""
    assert other.better_than(Coverage(0.9, 10)) is better
