"""Preflight: what is said about a bundle before it is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adcompile.check.preflight import ADVICE, FAILS, OK, TODO, Finding, preflight
from adcompile.cli import main
from adcompile.manifest import ActionRecord, read_manifest
from adcompile.steps.tools import tool_versions
from tests.check import handmade


def by_subject(found: list[Finding]) -> dict[str, Finding]:
    return {each.subject: each for each in found}


def test_every_answer(tmp_path: Path) -> None:
    """Intact files, an older runtime, steps that are left or failed, a verdict of the build."""
    folder = handmade.write_bundle(tmp_path / "b")
    manifest = read_manifest(folder)
    waits = ActionRecord(
        name="build plan", part="backbone", tool="trtexec", argv=("sh", "a b.sh"), inputs=(),
        outputs=(), state="pending", detail="on the board",
    )  # fmt: skip
    broke = waits.model_copy(update={"name": "compile", "state": "failed", "detail": "exit 1"})
    handmade.save(
        folder,
        manifest.model_copy(
            update={
                "actions": (waits, broke),
                "results": {"ok": "no"},
                "tools": {"onnxruntime": "1.2.3"},
            }
        ),
    )
    found = by_subject(preflight(folder, {"onnxruntime": "9.9.9"}))
    assert found["files"].state == OK
    assert found["onnxruntime"].state == ADVICE
    assert "9.9.9 here, 1.2.3" in found["onnxruntime"].text
    assert (found["build plan"].state, found["build plan"].fix) == (
        TODO,
        f"(cd {folder} && sh 'a b.sh')",
    )
    assert found["compile"].state == FAILS
    assert found["verification"].state == FAILS
    assert by_subject(preflight(folder, {}))["onnxruntime"].state == FAILS


def test_damage_is_found_and_nothing_is_opened(tmp_path: Path) -> None:
    """A changed file names itself; no part of such a bundle is opened."""
    folder = handmade.write_bundle(tmp_path / "b")
    part = next(iter(folder.glob("parts/*/model.onnx")))
    part.write_bytes(part.read_bytes() + b"x")
    found = preflight(folder, tool_versions())
    assert found[0].state == FAILS
    assert "model.onnx" in found[0].text
    assert not any(each.subject.startswith("part ") for each in found)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes: simulated parts are advice, a missing device is a failure when it is required."""
    from adcompile.compiler import BuildOptions, compile
    from tests.compile.models import cnn

    options = BuildOptions(precision="fp16", golden_count=1, host_code=False, cache=False)
    compile(cnn(), "trt:orin-nx", tmp_path / "out", options)
    words = ["preflight", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    states = {f["subject"]: f["state"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert states["part backbone"] == ADVICE
    assert states["build plan of backbone"] == TODO
    assert main([*words, "--strict"]) == 1
    assert main([*words, "--device", "require"]) == 1
    assert "will not run" in capsys.readouterr().out
    assert main([*words, "--device", "require", "--no-open"]) == 0
    assert main(["preflight", str(tmp_path)]) == 2
